"""The model file: what it says of itself, what it gives, and what is refused."""

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.models.card import Card, ModelError, read_card
from service.models.detector import Detector
from tests.support import tiny_model
from tests.support.server import ROOT


def _print_card(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.models.card", path], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_command_prints_the_card(tiny: Path) -> None:
    printed = _print_card(tiny)
    assert printed.returncode == 0
    card = Card.model_validate_json(printed.stdout)
    assert card == read_card(tiny)
    assert card.of_file == Card.model_validate(tiny_model.CARD)
    assert card.sha256 == hashlib.sha256(tiny.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "damage", ["missing", "empty", "truncated", "text", "foreign", "folder", "other_format", "no_limits"]
)
def test_a_file_that_is_no_detector_is_one_clear_line(tmp_path: Path, tiny: Path, damage: str) -> None:
    path = tmp_path / "model.onnx"
    data = tiny.read_bytes()
    match damage:
        case "empty":
            path.touch()
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "text":
            path.write_text("hello")
        case "foreign":
            tiny_model.build(path, author="somebody else")
        case "folder":
            path.mkdir()
        case "other_format":
            tiny_model.build(path, tiny_model.CARD | {"format": 3})
        case "no_limits":
            card = copy.deepcopy(tiny_model.CARD)
            del card["domain"]["geometry"]["max_width"]
            tiny_model.build(path, card)
    printed = _print_card(path)
    assert printed.returncode == 1
    assert printed.stdout == ""
    assert len(printed.stderr.splitlines()) == 1
    assert str(path) in printed.stderr
    assert "MODELS" in printed.stderr
    with pytest.raises(ModelError):
        Detector(path)


def test_a_card_that_does_not_fit_its_graph_is_refused(tmp_path: Path) -> None:
    card = copy.deepcopy(tiny_model.CARD)
    card["input"]["height"] = 48
    with pytest.raises(ModelError, match="48x32"):
        Detector(tiny_model.build(tmp_path / "model.onnx", card))


def test_an_unknown_policy_of_resizing_is_refused(tmp_path: Path) -> None:
    card = copy.deepcopy(tiny_model.CARD)
    card["input"]["resize"] = "crop-lanczos"
    with pytest.raises(ModelError, match=r"input\.resize: Input should be"):
        Detector(tiny_model.build(tmp_path / "model.onnx", card))


def test_alpha_must_be_calibrated(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"ALPHA=0\.02 is not calibrated: choose one of 0\.05, 0\.01"):
        Detector(tiny, alpha=0.02)


def test_scores_do_not_depend_on_the_batch(tiny: Path) -> None:
    detector = Detector(tiny)
    photos = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    together = detector.score(photos)
    assert together.probability.shape == together.ood_score.shape == (70,)
    assert together.embedding.shape == (70, 8)
    assert together.heatmap.shape == (70, 4, 4)
    assert together.inference_ms > 0
    for row in (0, 31, 32, 69):
        alone = detector.score(photos[row : row + 1])
        assert alone.probability[0] == pytest.approx(together.probability[row], abs=1e-6)
    logit = np.log(together.probability / (1 - together.probability))
    assert together.heatmap.mean((1, 2)) + detector.card.head_bias == pytest.approx(logit, abs=1e-4)


def test_few_large_photos_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tiny_model.CARD["input"] | {"height": 336, "width": 336, "resize": "crop"}
    card = tiny_model.CARD | {"format": 2, "name": "large", "input": given}
    detector = Detector(tiny_model.build(tmp_path / "model.onnx", card, (336, 336)))
    passes, run = [], Detector._run

    def counting(self: Detector, pixels: np.ndarray) -> object:
        passes.append(len(pixels))
        return run(self, pixels)

    monkeypatch.setattr(Detector, "_run", counting)
    photos = np.random.default_rng(0).integers(0, 256, (5, 336, 336, 3), dtype=np.uint8)
    assert detector.score(photos).probability.shape == (5,)
    assert passes == [2, 2, 1]


def test_more_threads_give_the_same_bits() -> None:
    path = ROOT / "models" / "cifake"
    photos = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    one, several = Detector(path), Detector(path, threads=2)
    for size in (1, 2, 20, 40):
        for name in ("probability", "embedding", "heatmap", "ood_score"):
            found = [getattr(detector.score(photos[:size]), name) for detector in (one, several)]
            assert np.array_equal(*found), name


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (1, 32, 31, 3), (32, 32, 3)])
def test_wrong_photos_are_refused(tiny: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="photos must be"):
        Detector(tiny).score(np.zeros(shape, dtype=np.uint8))


BLOCKED = """
import sys

blocked = {"torch", "torchvision", "timm", "dvc", "mlflow", "stages", "ui"}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}")

sys.meta_path.insert(0, Finder())
import service.service
from service.models.detector import Detector
from service.models.store import ModelStore
from service.settings import Settings
from service.http.state import start_worker
Detector(sys.argv[1])
assert not blocked & set(sys.modules), blocked & set(sys.modules)
assert "scipy" not in sys.modules, "scipy makes the start slow"
"""


def test_the_service_needs_nothing_of_the_training_stack(tiny: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:service", "-c", BLOCKED, tiny],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        check=True,
    )


def test_a_wrong_setting_ends_the_start_with_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import service.service"],
        cwd=ROOT,
        env=os.environ | {"WORKERS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: WORKERS=0: ")
    assert len(ended.stderr.splitlines()) == 1
