"""The recipe `frozen`, stage by stage, with a tiny encoder of random weights on the synthetic set."""

import hashlib
import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from service.models.detector import Detector
from stages.common import StageError, sha256_file
from stages.frozen import features, head, preprocess
from stages.frozen.dataset import DRAWINGS, Described, PhotoSet, Rows, load
from stages.frozen.encoder import load_encoder, rounded_to_8_bits, write_encoder
from stages.frozen.features import cache_folder
from stages.frozen.head import fit, fitted_folds, folds, held_out, source_weights
from stages.frozen.judging import by_source, pairs
from stages.frozen.params import PreprocessParams, TrainParams
from stages.frozen.preprocess import near_copies
from stages.frozen.rewrites import ORDINARY, REWRITES
from stages.frozen.thresholds import platt, quantile_from_above, robust_threshold
from stages.frozen.views import rewritten
from stages.paths import ModelPaths
from stages.with_timm import import_timm
from tests.stages.conftest import Workspace
from tests.support.tiny_frozen import SECTIONS, make_encoder, small_sections

REPO = Path(__file__).resolve().parents[2]
FILES = ModelPaths("photos")
STAGES = ("download", "preprocess", "train", "export", "evaluate", "release")


class Shop(Workspace):
    """A folder in which the stages of the model `photos` run as processes of their own."""

    files = FILES

    def params(self, **changes: dict[str, Any]) -> None:
        self.write_params(small_sections(**changes))

    def runs(self, *stages: str) -> str:
        for stage in stages:
            result = self.run(stage)
            assert result.returncode == 0, result.stderr
        return result.stdout

    def copy(self, path: Path) -> "Shop":
        shutil.copytree(self.path, path)
        return Shop(path)


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.params()
    make_encoder(shop.path / FILES.build / "encoder.safetensors")
    shop.runs("download")
    return shop


@pytest.fixture(scope="session")
def released(downloaded: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = downloaded.copy(tmp_path_factory.mktemp("released") / "shop")
    shop.runs("preprocess", "train", "export", "evaluate", "release")
    return shop


@pytest.mark.slow
class TestStages:
    def test_all_stages_make_a_model_that_serves(self, released: Shop) -> None:
        folder = released.path / FILES.released.path
        detector = Detector(folder)
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8))
        scores = detector.score(detector.prepare(photo)[None])
        assert 0 <= scores.probability[0] <= 1
        card = json.loads((folder / "card.json").read_text())
        assert card["name"] == "photos"
        assert card["heatmap"]["kind"] == "windows"
        assert card["encoder"]["sha256"] == sha256_file(folder / "encoder.safetensors")
        assert card["release"]["metrics"]["test"]["images"] > 0
        assert (folder / "model.onnx").stat().st_size < 3_000_000
        assert len((folder / "ledger.jsonl").read_text().splitlines()) == 1
        with np.load(folder / "reference.npz", allow_pickle=False) as reference:
            arrays = dict(reference)
        made = arrays["label"] == 1
        generator = arrays["generator_names"][arrays["generator"]]
        assert (generator != "")[made].all()
        assert (generator == "")[~made].all()
        assert arrays["source_photos"].min() > 0
        for source in np.unique(arrays["source"]):
            assert len(set(arrays["source_photos"][arrays["source"] == source].tolist())) == 1

    def test_a_source_is_in_one_part_only(self, released: Shop) -> None:
        report = json.loads((released.path / FILES.dataset_report).read_text())
        development, test = (set(report[part]["sources"]) for part in ("development", "test"))
        assert not development & test
        assert any("real" in name for name in test)
        assert any("ai_generated" in name for name in test)

    def test_test_sources_of_real_photos_cost_nothing_to_learn_from(self, released: Shop) -> None:
        test = load(released.path / FILES.test).rows
        assert not test.train[test.label == 0].any()

    def test_the_file_that_serves_says_what_the_features_say(self, released: Shop) -> None:
        assessment = json.loads((released.path / FILES.assessment).read_text())
        assert assessment["served"]["largest_difference"] < 0.02  # features are kept in 16 bits
        assert set(assessment["rewrites"]["changes"]) == {"as found", *REWRITES}
        kept = list((released.path / FILES.build / "features").rglob("rewrites-*/*.npy"))
        assert len(kept) == assessment["rewrites"]["photos"]

    def test_the_same_inputs_give_the_same_head(self, released: Shop, tmp_path: Path) -> None:
        again = released.copy(tmp_path / "again")
        before = (again.path / FILES.candidate.checkpoint).read_bytes()
        shutil.rmtree(again.path / FILES.candidate.path)
        again.runs("preprocess", "train", "export")
        assert (again.path / FILES.candidate.checkpoint).read_bytes() == before

    def test_own_photos_cost_only_their_own_features(self, released: Shop, tmp_path: Path) -> None:
        shop = released.copy(tmp_path / "own")
        kept = set((shop.path / FILES.build / "features").rglob("*.npz"))
        rng = np.random.default_rng(1)
        for place in range(3):
            folder = shop.path / "data/real/lamps"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(folder / f"{place}.png")
        shop.runs("preprocess", "train", "export", "evaluate")
        new = set((shop.path / FILES.build / "features").rglob("*.npz")) - kept
        assert [len(Described.load(path)) for path in new] == [3, 3]  # as found, and one rewrite
        found = json.loads((shop.path / FILES.metrics).read_text())
        assert found["validation"]["own_photos"]["images"] == 3
        assert "own/real/lamps" in json.loads((shop.path / FILES.dataset_report).read_text())["development"]["sources"]

    def test_a_refused_candidate_leaves_the_release(self, released: Shop, tmp_path: Path) -> None:
        shop = released.copy(tmp_path / "refused")
        shop.params(export={"version": "9.0.0"}, release={"min_auc": 1.0})
        shop.runs("export", "release")
        said = json.loads((shop.path / FILES.release_report).read_text())
        assert said["decision"] == "refused"
        assert any("release.min_auc" in reason for reason in said["reasons"])
        assert json.loads((shop.path / FILES.released.card).read_text())["version"] != "9.0.0"


@pytest.mark.slow
class TestBadInput:
    def test_no_encoder(self, downloaded: Shop, tmp_path: Path) -> None:
        shop = downloaded.copy(tmp_path / "shop")
        (shop.path / FILES.build / "encoder.safetensors").unlink()
        shop.refuses("preprocess", "encoder.safetensors is missing", "tools.encoder")

    def test_a_full_disk_loses_nothing(self, downloaded: Shop, tmp_path: Path) -> None:
        shop = downloaded.copy(tmp_path / "shop")
        shop.refuses("preprocess", "File too large", room_kb=100)
        shop.runs("preprocess")
        assert (shop.path / FILES.dataset / DRAWINGS).exists()

    def test_photos_of_one_label(self, downloaded: Shop, tmp_path: Path) -> None:
        shop = downloaded.copy(tmp_path / "shop")
        raw = shop.path / FILES.raw / "photos.parquet"
        table = pq.read_table(raw)
        pq.write_table(table.filter([label == "real" for label in table["label"].to_pylist()]), raw)
        shop.refuses("preprocess", "label ai_generated", "at least two are needed")


def test_an_encoder_is_verified(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    params = make_encoder(path)
    assert load_encoder(path, params).image_size == 64
    with pytest.raises(StageError, match=r"has sha256 .*, and preprocess\.encoder\.sha256 in params\.yaml is 0000"):
        load_encoder(path, params.model_copy(update={"sha256": "0" * 64}))
    other = params.model_copy(update={"blocks": 3})
    with pytest.raises(StageError, match=r"is vit_tiny_patch16_224, 2 blocks, 64 px, and .* 3 blocks, 64 px"):
        load_encoder(path, other)
    with pytest.raises(StageError, match="is missing"):
        load_encoder(tmp_path / "none.safetensors", params)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StageError, match="truncated"):
        load_encoder(path, params)
    for name, blocks, said in (("no_such_vit", 2, "not a timm model"), ("resnet18", 2, "no vision transformer")):
        with pytest.raises(StageError, match=said):
            write_encoder(path, params.model_copy(update={"timm": name, "blocks": blocks}), {})
    with pytest.raises(StageError, match="blocks is 1; it must be at least 2"):
        write_encoder(path, params.model_copy(update={"blocks": 1}), {})
    with pytest.raises(StageError, match="lack cls_token: they are another network's"):
        write_encoder(path, params, {})


def test_an_encoders_file_gives_timms_own_features(tmp_path: Path) -> None:
    """Up to the rounding to eight bits, and with positions of the size that is wanted."""
    params = make_encoder(tmp_path / "encoder.safetensors", smaller_sizes=[])
    encoder = load_encoder(tmp_path / "encoder.safetensors", params)
    torch.manual_seed(0)
    vit: Any = import_timm().create_model(params.timm, num_classes=0)
    vit.set_input_size(img_size=params.image_size)
    photo = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        normalised = (photo.permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
        tokens = vit.eval().forward_intermediates(
            normalised, indices=[0, 1], return_prefix_tokens=True, intermediates_only=True, norm=False
        )
        expected = torch.cat([tokens[0][1][:, 0], tokens[1][1][:, 0], tokens[0][0].mean((2, 3))], 1)
        found = encoder(photo)
        ready = encoder.ready("fp32")(photo)
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999
    assert torch.allclose(found, ready, atol=1e-5)


def test_a_head_is_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, fits, fit_one = photo_set(), [], head._fit
    expected = fitted_folds(photos, TRAIN)
    monkeypatch.setattr(head, "_fit", lambda *given: fits.append(1) or fit_one(*given))
    for wanted in (6, 6):  # two draws of three folds, and then none
        for fold, again in zip(expected, fitted_folds(photos, TRAIN, kept=tmp_path), strict=True):
            assert (fold.draw, fold.head.bias) == (again.draw, again.head.bias)
            assert np.array_equal(fold.head.weight, again.head.weight)
            assert np.array_equal(fold.held_out, again.held_out)
        assert len(fits) == wanted
    fitted_folds(photos.take(np.arange(100)), TRAIN, kept=tmp_path)
    fitted_folds(photos, TRAIN.model_copy(update={"source_exponent": 0.0}), kept=tmp_path)
    assert len(fits) == 18


def test_a_head_on_all_components_is_that_on_the_features() -> None:
    photos = photo_set()
    features = photos.seen.features.astype(np.float64)
    flat = features.reshape(-1, features.shape[-1])
    weight = np.repeat(source_weights(photos.rows, TRAIN.source_exponent), features.shape[1])
    label = np.repeat(photos.rows.label, features.shape[1])
    x, found_only = StandardScaler().fit_transform(flat), StandardScaler().fit(flat).transform(features[:, 0])
    logistic = LogisticRegression(C=TRAIN.inverse_penalty, tol=1e-8, max_iter=1000)
    logistic.fit(x, label, sample_weight=weight / weight.mean())
    balanced = weight / np.array([weight[label == 0].sum(), weight[label == 1].sum()])[label]
    ridge = Ridge(TRAIN.ridge_penalty).fit(x, 2 * label - 1, sample_weight=balanced / balanced.mean())
    scale = np.std(logistic.decision_function(x)) / np.std(ridge.predict(x))
    logits = (logistic.decision_function(found_only) + scale * ridge.predict(found_only)) / 2
    found = fit(photos, TRAIN.model_copy(update={"components": 1000})).logit(features[:, 0])
    assert np.abs(found - logits).max() < 0.02 * np.abs(logits).max()
    assert np.ptp(found) > np.ptp(fit(photos, TRAIN.model_copy(update={"components": 1})).logit(features[:, 0]))


def test_a_head_is_the_same_on_any_number_of_cores() -> None:
    photos = photo_set(count=1000, width=1000)  # so much that two threads share the work
    with threadpool_limits(1):
        expected = fit(photos, TRAIN)
    with threadpool_limits(3):
        found = fit(photos, TRAIN)
    assert np.array_equal(expected.weight, found.weight)
    assert expected.bias == found.bias


def test_a_smaller_size_sees_the_same_picture_shrunk(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    params = make_encoder(file)
    alone = params.model_copy(update={"smaller_sizes": ()})
    photo = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    shrunk = torch.nn.functional.interpolate(
        photo.permute(0, 3, 1, 2) / 255, size=(32, 32), mode="bicubic", antialias=True
    )
    encoder, one_size = load_encoder(file, params), load_encoder(file, alone)
    count = {each: sum(parameter.numel() for parameter in each.parameters()) for each in (encoder, one_size)}
    assert count[encoder] - count[one_size] == 5 * 192  # positions alone: all other weights are shared
    with torch.no_grad():
        found, at_64 = encoder(photo), one_size(photo)
        one_size.vit.set_input_size(img_size=32)  # type: ignore[operator]
        expected = torch.cat([at_64, one_size._features(one_size.vit, shrunk.clamp(0, 1))], 1)
        ready = encoder.ready("bf16")(photo)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.nn.functional.cosine_similarity(found, ready).min() > 0.999


def test_eight_bits_keep_the_largest_value_of_each_output() -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    rounded, scale = rounded_to_8_bits(matrix)
    assert (np.abs(rounded).max(1) == 127).all()
    assert np.abs(rounded * scale[:, None] - matrix).max() <= scale.max() / 2 * 1.001


def test_copies_are_found_across_sources_alone() -> None:
    hashes = np.array([0b1111, 0b1110, 0xFFFF_0000, 0b1111], np.uint64)
    sources = np.array(["a", "b", "b", "a"])
    assert near_copies(hashes, sources, bits=1) == {1: 0, 3: 1}
    assert near_copies(hashes, np.array(["a"] * 4), bits=64) == {}


def photo_set(count: int = 120, sources: int = 12, width: int = 4) -> PhotoSet:
    """Photos of two labels whose first feature tells them apart, and whose second tells the source."""
    rng = np.random.default_rng(0)
    label = np.arange(count) % 2
    source = np.arange(count) // 2 % (sources // 2)
    values = rng.normal(size=(count, 2, width))
    values[..., 0] += 4 * label[:, None]
    values[..., 1] += 3 * source[:, None]
    text = np.array([f"{number:064x}" for number in range(count)])
    rows = Rows(
        sha256=text, label=label, source=np.array([f"{a}/{b}" for a, b in zip(label, source, strict=True)]),
        generator=np.where(label == 1, "one", ""), date=np.full(count, "2026"), licence=np.full(count, "MIT"),
        train=np.ones(count, bool), subject=np.full(count, "food"),
    )  # fmt: skip
    zeros = np.zeros(count, np.int64)
    seen = Described(
        sha256=text, features=values.astype(np.float16), hash=zeros.astype(np.uint64), width=zeros, height=zeros,
        jpeg_quality=zeros, format=np.full(count, "JPEG"), white=zeros.astype(np.float32),
        statistics=np.zeros((count, 3), np.float32),
    )  # fmt: skip
    return PhotoSet(rows, seen)


TRAIN = TrainParams(
    components=1000,
    inverse_penalty=1,
    ridge_penalty=1,
    ridge_share=0.5,
    penalties=(1,),
    source_exponent=0.5,
    folds=3,
    draws=2,
    seed=0,
)


def test_a_head_is_judged_on_sources_that_it_never_saw() -> None:
    photos = photo_set()
    place = folds(photos.rows, TRAIN, 0)
    for source in np.unique(photos.rows.source):
        assert len(set(place[photos.rows.source == source].tolist())) == 1
    assert (place != folds(photos.rows, TRAIN, 1)).any()
    logits = held_out(fitted_folds(photos, TRAIN), photos.seen.features[:, 0])
    assert logits.shape == (2, len(photos))
    assert ((logits > 0) == (photos.rows.label == 1)).mean() > 0.9


def test_every_source_weighs_the_same() -> None:
    rows = photo_set().rows.take(np.array([0, 2, 4, 6, 1, 14, 26]))
    weights = source_weights(rows)
    totals = [weights[rows.source == source].sum() for source in np.unique(rows.source)]
    assert totals == pytest.approx([1.0] * len(totals))


def test_photos_that_may_only_be_measured_teach_nothing() -> None:
    photos = photo_set()
    photos.rows.train[photos.rows.source == "0/0"] = False
    before = fit(photos, TRAIN)
    photos.seen.features[photos.rows.source == "0/0"] += 5
    assert np.array_equal(fit(photos, TRAIN).weight, before.weight)


def test_a_threshold_keeps_its_share() -> None:
    scores, weights = np.arange(100.0), np.ones(100)
    threshold = quantile_from_above(scores, weights, 0.05)
    assert (scores > threshold).mean() == 0.05
    sources = np.repeat([f"s{number}" for number in range(20)], 5)
    loose, strict = (robust_threshold(scores, sources, 0.1, confidence) for confidence in (0.5, 0.9))
    assert loose["threshold"] < strict["threshold"]
    assert loose["low"] < loose["threshold"] < loose["high"]
    assert robust_threshold(scores, sources, 0.1, 0.5) == loose


def test_platt_takes_both_labels_as_equally_frequent() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [4000, 400])
    logits = rng.normal(size=4400) + 2 * labels
    slope, intercept = platt(logits, labels, np.ones(4400))
    assert slope == pytest.approx(2, abs=0.2)
    assert -intercept / slope == pytest.approx(1, abs=0.1)


def test_sources_are_told_apart() -> None:
    rows = photo_set().rows
    probability = np.where(rows.label == 1, 0.9, 0.1)[None].repeat(2, 0)
    probability[:, rows.source == "0/0"] = 0.95
    found = by_source(rows, probability)
    assert found["real"]["0/0"]["flagged_at_2"] == 1.0
    assert found["real"]["0/1"]["flagged_at_2"] == 0.0
    assert pairs(rows, probability)["worst"] == 0.0


def test_pairs_of_sources_have_the_areas_that_scikit_learn_gives() -> None:
    rows = photo_set().rows
    mean = np.random.default_rng(0).random(len(rows)).round(1)  # with ties
    areas = []
    for real in np.unique(rows.source[rows.label == 0]):
        for generated in np.unique(rows.source[rows.label == 1]):
            mask = (rows.source == real) | (rows.source == generated)
            areas.append(roc_auc_score(rows.label[mask], mean[mask]))
    found = pairs(rows, np.stack([mean, mean]))
    assert found["pairs"] == len(areas) == 36
    assert found["mean"] == pytest.approx(np.mean(areas))
    assert found["worst"] == pytest.approx(min(areas))


def test_a_view_is_the_same_whenever_it_is_made() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8))
    for view in range(4):
        one, other = (np.asarray(rewritten(photo, "ab", view, 0)) for _ in range(2))
        assert np.array_equal(one, other)
        assert min(one.shape[:2]) >= 200
    assert rewritten(photo, "ab", 0, 0).size != rewritten(photo, "cd", 0, 0).size


@pytest.mark.parametrize("name", REWRITES)
def test_each_rewrite_gives_a_photo(name: str) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    assert REWRITES[name](photo).mode == "RGB"
    assert len(ORDINARY) == 10


def test_features_go_on_where_they_were_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tmp_path / "encoder.safetensors"
    make_encoder(encoder)
    params = PreprocessParams.model_validate(
        SECTIONS["preprocess"]
        | {"own_views": 1, "seed": 0, "near_copy_bits": 4, "test_real_share": 0.5, "own_photos_min": 0}
    )
    folder = cache_folder(tmp_path, params)
    monkeypatch.setattr(features, "_SHARD", 2)
    rng, photos = np.random.default_rng(0), {}
    for _ in range(5):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(file, "JPEG")
        photos[hashlib.sha256(file.getvalue()).hexdigest()] = file.getvalue()
    photos = dict(sorted(photos.items()))
    last = list(photos)[-1]

    def describe(broken: str = "") -> Described:
        def read(digest: str) -> bytes:
            return b"" if digest == broken else photos[digest]

        readers = [(digest, lambda digest=digest: read(digest)) for digest in photos]
        return features.describe(readers, params, encoder, folder)

    with pytest.raises(StageError, match=f"the photo {last} cannot be read"):
        describe(broken=last)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    assert kept
    whole = describe()
    assert whole.sha256.tolist() == list(photos)
    assert whole.features.shape == (5, 2, 2 * 3 * 192)  # two sizes, three tokens each
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    # One view more costs that view alone; another seed makes other views.
    more = params.model_copy(update={"views": 2})
    assert cache_folder(tmp_path, more) == folder
    assert cache_folder(tmp_path, params.model_copy(update={"seed": 1})) != folder
    # The one rewrite of an own photo takes the place of further ones.
    rows = [{"sha256": digest, "photo": partial(photos.get, digest), "source": "shop"} for digest in photos]
    rows[0]["source"] = "own/real/lamps"
    seen = preprocess._seen(rows, more, encoder, folder)
    assert seen.sha256.tolist() == list(photos)
    same = (seen.features[:, 1] == seen.features[:, 2]).all(1)
    assert same.tolist() == [True, False, False, False, False]
    assert np.array_equal(seen.features[:, :2], whole.features)
