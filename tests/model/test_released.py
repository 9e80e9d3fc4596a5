"""Every released model: what its card says of it holds, and it behaves as a detector of photos should."""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from service.drift.columns import take
from service.drift.comparison import compare
from service.drift.references import References
from service.models.card import read_card
from service.models.detector import Detector
from stages.common import load_params
from stages.data.image_sets import load_images
from stages.data.synthetic import synthetic_images
from stages.evaluation import robustness as changes
from stages.evaluation.ood import ood_figures
from stages.exporting.ood_pictures import outliers
from stages.frozen.encoder import ENCODER, EncoderParams, load_encoder
from stages.frozen.evaluate import calibrated
from stages.frozen.gates import refusals as frozen_refusals
from stages.frozen.head import load_head
from stages.frozen.params import ReleaseParams as FrozenReleaseParams
from stages.paths import ModelFolder, ModelPaths
from stages.release import ReleaseParams
from stages.releasing.gates import Measured, refusals

REPO = Path(__file__).resolve().parents[2]
NAMES = sorted(path.parent.name for path in (REPO / "models").glob("*/card.json"))
FROZEN = [name for name in NAMES if read_card(REPO / "models" / name).encoder is not None]
NETWORKS = sorted({*NAMES} - {*FROZEN})

Uint8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest) -> ModelFolder:
    """The folder of each model in models/."""
    return ModelFolder(REPO / "models" / request.param)


@pytest.fixture(scope="module", params=NETWORKS)
def released(request: pytest.FixtureRequest) -> Detector:
    """Each model that was trained from end to end."""
    return Detector(REPO / "models" / request.param)


@pytest.fixture(scope="module", params=FROZEN)
def frozen(request: pytest.FixtureRequest) -> Detector:
    """Each model on a frozen encoder: a photo takes it a hundred times as long."""
    return Detector(REPO / "models" / request.param)


@pytest.fixture(scope="module")
def tiles(released: Detector) -> Uint8:
    """Two photos that scikit-learn ships, cut into squares and made as small as the model takes them."""
    squares = [
        Image.fromarray(photo[top : top + 120, left : left + 120])
        for photo in load_sample_images().images
        for top in range(0, 361, 120)
        for left in range(0, 481, 120)
    ]
    return np.stack([released.prepare(square) for square in squares])


def test_there_is_a_released_model() -> None:
    assert NAMES


def test_the_released_files_fit_together(folder: ModelFolder) -> None:
    """One release: the folder's name, its card, the file that it describes, the checkpoint that made the file."""
    card = read_card(folder.path)
    assert card.name == folder.path.name
    files = {folder.model: card.sha256, folder.checkpoint: card.checkpoint_sha256}
    if card.encoder is not None:
        files[folder.path / card.encoder.file] = card.encoder.sha256
    for path, digest in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    ledger = [json.loads(line) for line in folder.ledger.read_text(encoding="utf-8").splitlines()]
    assert [entry["version"] for entry in ledger].count(card.version) == 1
    assert {picture.suffix for picture in folder.plots.iterdir()} == {".png"}


def test_the_released_model_passes_the_gates_of_a_release(folder: ModelFolder) -> None:
    """The one list of gates, on the figures that it was released by: those of validation."""
    card, paths = read_card(folder.path), ModelPaths(folder.path.name)
    assessment = json.loads((REPO / paths.assessment).read_text(encoding="utf-8"))
    if folder.path.name in FROZEN:
        gates_of_sources = load_params("release", FrozenReleaseParams, folder.path.name, REPO / "params.yaml")
        metrics = json.loads((REPO / paths.metrics).read_text(encoding="utf-8"))
        assert metrics["validation"] == card.released.validation
        assert frozen_refusals(gates_of_sources, card, metrics, assessment, None) == []
        return
    gates = load_params("release", ReleaseParams, folder.path.name, REPO / "params.yaml")
    measured = Measured(card, card.released.validation, assessment, folder.model.stat().st_size / 1e6)
    assert refusals(gates, measured) == []


def test_drift_can_use_its_reference(folder: ModelFolder) -> None:
    card = read_card(folder.path)
    reference = References("memory://nothing-adopted", card.name, folder.path).current(card.version)
    assert len(reference.table["score"]) >= (4_000 if card.name in FROZEN else 10_000)
    assert any(column.drifted for column in compare(take(reference.table, np.arange(500)), reference.table)) is False


@pytest.mark.slow
def test_nothing_from_outside_is_flagged(released: Detector, tmp_path: Path) -> None:
    photos = tmp_path / "large"
    photos.mkdir()
    (photos / "README.txt").write_text("no photo")
    Image.new("RGB", (800, 600), "white").save(photos / "white.jpg")
    known = released.score(synthetic_images(600, released.height, seed=1).images).embedding
    found = ood_figures(released, known, 40, seed=2, alpha=0.01, large_photos=photos)
    assert found.pop("large_photos")["images"] == 1
    for kind, ways in found.items():
        for way, row in ways.items():
            assert row["flagged"] == 0, (kind, way)
        assert ways["large"]["in_domain"] == 0


def test_a_mirrored_photo_gets_the_same_answer(released: Detector, tiles: Uint8) -> None:
    one, mirrored = (released.score(photos).probability for photos in (tiles, tiles[:, :, ::-1].copy()))
    assert one == pytest.approx(mirrored, abs=1e-5)


def test_a_photo_gets_the_same_answer_in_any_company(released: Detector, tiles: Uint8) -> None:
    together = released.score(tiles).probability
    alone = [released.score(photo[None]).probability[0] for photo in tiles]
    assert alone == pytest.approx(together, abs=1e-5)


def test_the_heat_map_adds_up_to_the_answer(released: Detector, tiles: Uint8) -> None:
    """Its mean and the bias are the logit, of which the probability is an increasing function."""
    found = released.score(tiles)
    logits = found.heatmap.mean((1, 2)) + released.card.head_bias
    assert (np.diff(found.probability[np.argsort(logits)]) >= -1e-6).all()


@pytest.mark.slow
def test_the_more_a_photo_suffers_the_less_is_decided(cifake: Path) -> None:
    """Blur takes photos out of the known domain, where nothing is flagged or cleared."""
    released = Detector(REPO / "models/cifake")
    # Photos that chose the model, but taught it nothing; test is read by a release alone.
    photos = load_images(cifake / "build/cifake/dataset/validation.safetensors").images[:1000]
    inside = [
        (released.score(changed).ood_score <= released.card.domain.threshold).mean()
        for changed in (photos, *(changes.blur(photos, sigma) for sigma in (0.8, 1.0, 1.5)))
    ]
    assert inside == sorted(inside, reverse=True)


def photo(index: int) -> Image.Image:
    """One of the two photos that scikit-learn ships: a temple, a flower."""
    return Image.fromarray(load_sample_images().images[index])


def test_a_photo_of_ordinary_size_is_decided(frozen: Detector) -> None:
    """The temple is a real photo, and known: it is cleared, in whatever company it comes."""
    pixels = np.stack([frozen.prepare(photo(index)) for index in (0, 1)])
    together = frozen.score(pixels)
    alone = frozen.score(pixels[:1])
    assert alone.probability[0] == pytest.approx(together.probability[0], abs=1e-4)
    assert together.probability[0] < frozen.thresholds.clear
    assert together.ood_score[0] <= frozen.card.domain.threshold


@pytest.mark.slow
def test_scores_do_not_depend_on_the_arithmetic(frozen: Detector) -> None:
    """PyTorch in float32, from the encoder's file and the head's, says what the exported file says."""
    pixels = np.stack([frozen.prepare(photo(index)) for index in (0, 1)])
    params = EncoderParams.model_validate(frozen.card.params["preprocess"]["encoder"])
    encoder = load_encoder(frozen.path / ENCODER, params).ready("fp32")
    head, _ = load_head(ModelFolder(frozen.path).checkpoint)
    with torch.no_grad():
        features = encoder(torch.from_numpy(pixels)).numpy()
    expected = calibrated(frozen.card, head.logit(features))
    assert np.abs(frozen.score(pixels).probability - expected).max() < 1e-4


@pytest.mark.slow
def test_drawings_are_not_decided(frozen: Detector) -> None:
    """Of another seed than those that it was told of: a person looks at most of them, and none is accused."""
    drawn = np.stack(list(outliers(24, frozen.height, frozen.width, seed=5)))
    scores = frozen.score(drawn)
    inside = scores.ood_score <= frozen.card.domain.threshold
    assert inside.mean() <= 0.25
    assert not (inside & (scores.probability >= frozen.thresholds.flag)).any()
