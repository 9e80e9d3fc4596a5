"""The released model: what its card says of it holds, and it behaves as a detector of photos should."""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from service.drift.columns import take
from service.drift.comparison import compare
from service.drift.references import References
from service.models.card import read_card
from service.models.detector import Detector
from stages.common import load_params
from stages.data.image_sets import ImageSet, load_images
from stages.data.synthetic import synthetic_images
from stages.evaluation import robustness as changes
from stages.evaluation.gates import Measured, refusals
from stages.evaluation.ood import outside
from stages.release import ReleaseParams

REPO = Path(__file__).resolve().parents[2]
CARD = read_card(REPO / "models/cifake")

Uint8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def released() -> Detector:
    return Detector(REPO / "models/cifake/model.onnx")


@pytest.fixture(scope="module")
def validation(cifake: Path) -> ImageSet:
    """Photos that chose the model, but taught it nothing; test is read by a release alone."""
    data = load_images(cifake / "build/dataset/validation.safetensors")
    return data.take(np.arange(1000))


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


def test_the_released_files_fit_together() -> None:
    """One release: the card, the file it describes, the checkpoint that file was exported from."""
    for path, digest in {
        "models/cifake/model.onnx": CARD.sha256,
        "models/cifake/checkpoint.safetensors": CARD.checkpoint_sha256,
    }.items():
        assert hashlib.sha256((REPO / path).read_bytes()).hexdigest() == digest
    ledger = [
        json.loads(line) for line in (REPO / "models/cifake/ledger.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [entry["version"] for entry in ledger].count(CARD.version) == 1


def test_the_released_model_passes_the_gates_of_a_release() -> None:
    """The one list (stages/evaluation/gates.py) on the figures that it was released by: those of validation."""
    gates = load_params("release", ReleaseParams, REPO / "params.yaml")
    size = (REPO / "models/cifake/model.onnx").stat().st_size / 1e6
    assessment = json.loads((REPO / "reports/cifake/assessment.json").read_text(encoding="utf-8"))
    assert refusals(gates, Measured(CARD, CARD.released.validation, assessment, size)) == []


def test_drift_can_use_its_reference() -> None:
    reference = References("memory://nothing-adopted", REPO / "models/cifake/model.onnx").current(CARD.version)
    assert len(reference.table["score"]) >= 10_000
    assert any(column.drifted for column in compare(take(reference.table, np.arange(500)), reference.table)) is False


@pytest.mark.slow
def test_nothing_from_outside_is_flagged(released: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "README.txt").write_text("no photo")
    Image.new("RGB", (800, 600), "white").save(folder / "white.jpg")
    known = released.score(synthetic_images(600, released.height, seed=1).images).embedding
    found = outside(released, known, 40, seed=2, alpha=0.01, large_photos=folder)
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
def test_the_more_a_photo_suffers_the_less_is_decided(released: Detector, validation: ImageSet) -> None:
    """Blur takes photos out of the known domain, where nothing is flagged or cleared."""
    inside = [
        (released.score(photos).distance <= released.card.domain.threshold).mean()
        for photos in (validation.images, *(changes.blur(validation.images, sigma) for sigma in (0.8, 1.0, 1.5)))
    ]
    assert inside == sorted(inside, reverse=True)
