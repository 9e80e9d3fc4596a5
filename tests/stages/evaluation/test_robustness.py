"""What is done to photos, checked by hand, and what is counted then."""

import numpy as np
import pytest

from service.models.detector import Detector
from stages.data import image_sets
from stages.data.image_sets import ImageSet
from stages.data.synthetic import synthetic_images
from stages.evaluation import robustness as changes
from stages.evaluation.figures import figures
from stages.evaluation.robustness import CHANGES, robustness
from stages.evaluation.scoring import score


def test_every_change_does_more_at_each_strength() -> None:
    images = synthetic_images(40, 32, seed=0).images
    for name, (change, strengths) in CHANGES.items():
        moved = [np.abs(change(images, s).astype(int) - images).mean() for s in strengths]
        assert all(changed > 0 for changed in moved), name
        if name not in {"brightness", "contrast"}:
            assert moved == sorted(moved), name
        assert change(images, strengths[0]).dtype == np.uint8
        assert np.array_equal(change(images, strengths[-1]), change(images, strengths[-1])), "not the same twice"


def test_the_changes_by_hand() -> None:
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    assert (changes.brightness(grey, 1.2) == 120).all()
    assert (changes.brightness(grey, 3.0) == 255).all()
    for same in (changes.contrast(grey, 0.5), changes.blur(grey, 1.0), changes.resize(grey, 0.5)):
        assert (same == 100).all()
    halves = np.repeat(np.array([50, 150], np.uint8), 512).reshape(1, 32, 32, 1).repeat(3, axis=3)
    assert np.unique(changes.contrast(halves, 0.5)).tolist() == [75, 125]
    assert changes.noise(grey, 0.1).std() == pytest.approx(25.5, rel=0.05)
    point = np.zeros((1, 31, 31, 3), np.uint8)
    point[0, 15, 15] = 255  # becomes the blur's own shape
    assert changes.blur(point, 1.0)[0, 15, 15, 0] == pytest.approx(255 / (2 * np.pi), abs=1)


def test_without_a_change_the_figures_are_those_of_the_photos(
    detector: Detector, photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHANGES", {"brightness": (changes.brightness, (1.0, 0.2))})
    alpha = next(iter(detector.card.thresholds.flag))
    found = robustness(detector, photos, alpha)
    expected = figures(score(detector, photos, "photos"), detector.card)
    same = found["brightness"]["1"]
    assert same == found["unchanged"]
    assert (same["accuracy"], same["auc"]) == (expected["accuracy"], expected["auc"])
    assert same["false_positive_rate"] == expected["decisions"][f"alpha_{alpha:g}"]["false_positive_rate"]
    assert found["brightness"]["0.2"]["auc"] != same["auc"]


def test_large_photos_are_changed_a_few_at_a_time(
    detector: Detector, photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that memory does not grow with their size; the figures are the same."""
    monkeypatch.setattr(changes, "CHANGES", {"blur": (changes.blur, (0.6,))})
    together = robustness(detector, photos)
    monkeypatch.setattr(image_sets, "_BATCH_PIXELS", 32 * 32 * 7)
    sizes = set()

    def blur(images: changes.Uint8, sigma: float) -> changes.Uint8:
        sizes.add(len(images))
        return changes.blur(images, sigma)

    monkeypatch.setattr(changes, "CHANGES", {"blur": (blur, (0.6,))})
    for name, row in robustness(detector, photos)["blur"].items():
        assert row == pytest.approx(together["blur"][name], abs=1e-6)
    assert sizes == {7, 120 % 7}
