"""A shop's own thresholds, from a folder of its photos to the file."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.models.card import ModelError, read_card
from service.models.shop import calibration_file, read_calibration
from tests.support.photos import encode, photo
from tests.support.shops import released_with_reference
from tools.calibrate.__main__ import Scored, calibration, recall, without

REPO = Path(__file__).resolve().parents[2]
COUNT = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, with scores of AI images in its reference."""
    return released_with_reference(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two groups, one of them with a product of two photos and a file that is no photo."""
    folder = tmp_path_factory.mktemp("shop") / "photos"
    rng = np.random.default_rng(0)
    for place in range(COUNT):
        path = folder / (f"shoes/{place:03}.png" if place % 3 else f"hats/{place:03}/front.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))))
    for name in ("front", "back"):
        path = folder / "shoes/boot" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(photo(seed=len(name))))
    (folder / "hats/text.jpg").write_text("no photo")
    return folder


def run(*options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.calibrate", *map(str, options)]
    return subprocess.run(command, cwd=REPO, text=True, capture_output=True, check=False)


def photos_of(scores: Sequence[float], groups: Sequence[str] | None = None) -> Scored:
    """Return photos with these scores, each of a product of its own."""
    count = len(scores)
    return Scored(
        names=[f"{place}.jpg" for place in range(count)],
        score=np.array(scores),
        probability=np.array(scores),
        in_domain=np.ones(count, bool),
        marked=np.zeros(count, bool),
        products=np.arange(count),
        groups=np.array(groups if groups is not None else [""] * count),
        unreadable={},
    )


@pytest.mark.slow
def test_a_folder_of_photos_becomes_a_calibration(model: Path, shop: Path, tmp_path: Path) -> None:
    done = run(shop, "--model", model, "--out", tmp_path, "--workers", 2)
    assert done.returncode == 0, done.stderr
    found = read_calibration(tmp_path / "calibration.json")
    assert (found.shop.photos, found.shop.products) == (COUNT + 2, COUNT + 1)
    assert list(found.shop.promises) == [0.05]
    assert found.shop.needed == {0.01: 99, 0.005: 199, 0.001: 999}
    assert found.small_groups == ["hats", "shoes"]
    card = read_card(model)
    found.check(card, card.sha256 or "", 0.05)
    assert "1 files could not be read and are left out; the first, hats/text.jpg" in done.stdout
    assert "ALPHA=0.001: refused, it takes 999 products" in done.stdout
    assert len((tmp_path / "suspicious.csv").read_text().splitlines()) == 25
    with Image.open(tmp_path / "suspicious.jpg") as sheet:
        assert sheet.size == (1440, 960)
    again = run(shop, "--model", model, "--out", tmp_path, "--workers", 2)
    said = f"the calibration before it is kept as {tmp_path / 'calibration.before.json'}\n"
    assert said in again.stdout
    assert again.stdout.replace(said, "") == done.stdout
    assert read_calibration(tmp_path / "calibration.before.json") == found
    assert len(list(tmp_path.glob("scores-*"))) == 1, "nothing is scored again"


def test_the_threshold_keeps_its_share_of_the_photos(model: Path) -> None:
    scores = np.random.default_rng(0).random(1000).round(6)
    found = calibration(photos_of(scores), read_card(model), model / "reference.npz")
    for alpha, promise in found.shop.promises.items():
        assert alpha - 0.002 <= (scores >= promise.flag).mean() <= alpha
        assert alpha < promise.upper < alpha + 0.02
    assert set(found.shop.promises) == {0.05, 0.01, 0.005, 0.001}


def test_a_group_with_enough_photos_has_thresholds_of_its_own(model: Path) -> None:
    high, low = np.linspace(0.5, 0.9, 250).round(6), np.linspace(0, 0.4, 250).round(6)
    few = np.full(30, 0.45)
    photos = photos_of([*high, *low, *few], ["worn"] * 250 + ["flat"] * 250 + ["rest"] * 30)
    found = calibration(photos, read_card(model), model / "reference.npz")
    worn, flat, rest = (found.promises(name) for name in ("worn", "flat", "rest"))
    assert worn is not None
    assert flat is not None
    assert rest is found.rest
    assert found.promises("unknown") is None
    assert found.promises(None) is found.shop
    assert worn.promises[0.01].flag > 0.89
    assert flat.promises[0.01].flag == pytest.approx(0.4, abs=0.01)


def test_what_is_out_of_domain_is_never_flagged(model: Path) -> None:
    photos = photos_of(np.linspace(0, 0.999, 300).round(6))
    inside = photos.in_domain.copy()
    inside[150:] = False
    changed = photos._replace(in_domain=inside, score=np.where(inside, photos.score, 0))
    found = calibration(changed, read_card(model), model / "reference.npz")
    assert found.out_of_domain == 0.5
    assert found.shop.promises[0.05].flag < 0.5


def test_what_is_found_at_a_threshold(model: Path) -> None:
    found = recall(model / "reference.npz", read_card(model), 0.955)
    assert found.by_generator == {"one": 0, "two": 0.5}
    assert found.of_all == 0.25, "both sources weigh the same"


def test_a_reference_may_number_the_generators(model: Path, tmp_path: Path) -> None:
    with np.load(model / "reference.npz") as stored:
        arrays = dict(stored)
    names, numbers = np.unique(arrays["generator"], return_inverse=True)
    np.savez(tmp_path / "reference.npz", **arrays | {"generator": numbers.astype(np.uint16), "generator_names": names})
    card = read_card(model)
    assert recall(tmp_path / "reference.npz", card, 0.955) == recall(model / "reference.npz", card, 0.955)


def test_suspicious_photos_can_be_left_out(model: Path) -> None:
    photos = photos_of([*np.linspace(0, 0.5, 300).round(6), 0.98, 0.99])
    kept = without(photos, 0.97)
    assert len(kept.names) == 300
    before, after = (
        calibration(each, read_card(model), model / "reference.npz").shop.promises[0.005] for each in (photos, kept)
    )
    assert after.flag < before.flag


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nowhere", "is no folder"),
        ("empty", "holds no photo"),
        ("mixed/AI generated", "is a folder 'AI generated', and a calibration takes real photos alone"),
        ("mixed", "has a folder 'AI generated', and a calibration takes real photos alone"),
        ("broken", "none of 1 photos in"),
        ("few", "3 products are too few: 19 are needed to promise 0.05"),
        ("large", "knows none of the 20 photos"),
    ],
)
@pytest.mark.slow
def test_bad_folders(model: Path, tmp_path: Path, folder: str, said: str) -> None:
    rng = np.random.default_rng(0)
    for name, count, size in (("mixed/AI generated", 1, 32), ("few", 3, 32), ("large", 20, 90)):
        (tmp_path / name).mkdir(parents=True)
        for place in range(count):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(tmp_path / name / f"{place}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_text("no photo")
    done = run(tmp_path / folder, "--model", model, "--out", tmp_path / "out", "--workers", 1)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1 or "scoring" in done.stderr
    assert not (tmp_path / "out/calibration.json").exists()


def test_a_calibration_of_another_model_or_alpha_is_refused(model: Path, tmp_path: Path) -> None:
    card = read_card(model)
    found = calibration(photos_of(np.linspace(0, 1, 120).round(6)), card, model / "reference.npz")
    digest = card.sha256 or ""
    with pytest.raises(ModelError, match="was made with"):
        found.check(card, "0" * 64, 0.05)
    with pytest.raises(ModelError, match=r"promises nothing at ALPHA=0.001 \(999 products are needed, it has 120\)"):
        found.check(card, digest, 0.001)
    file = tmp_path / "calibration.json"
    file.write_text(calibration_file(found))
    assert read_calibration(file) == found
    edited = calibration_file(found).replace('"photos": 120', '"photos": 121')
    file.write_text(edited)
    with pytest.raises(ModelError, match="is damaged or was edited"):
        read_calibration(file)
    file.write_text(calibration_file(found)[:-9])
    with pytest.raises(ModelError, match="is damaged or no calibration"):
        read_calibration(file)
    file.write_text(json.dumps(json.loads(calibration_file(found)) | {"format": 2}))
    with pytest.raises(ModelError, match="format"):
        read_calibration(file)
    with pytest.raises(ModelError, match="cannot be read"):
        read_calibration(tmp_path / "nowhere.json")
