"""Deletion and insertion curves of the heat map."""

from typing import Any

import pytest

from service.models.detector import Detector
from stages.data import image_sets
from stages.data.image_sets import ImageSet
from stages.evaluation.explanation import STEPS, faithfulness


def test_the_exact_heat_map_of_a_linear_model_beats_random_masks(detector: Detector, photos: ImageSet) -> None:
    found = faithfulness(detector, photos)
    assert len(found["deletion"]["map"]) == STEPS + 1
    assert found["deletion"]["map_area"] < found["deletion"]["random_area"] - 0.05
    assert found["insertion"]["map_area"] > found["insertion"]["random_area"] + 0.05
    for curve in ("deletion", "insertion"):  # the whole photo, and the whole blur
        for share in ("0", "1"):
            assert found[curve]["map"][share] == found[curve]["random"][share]
    assert found["deletion"]["map"]["0"] == found["insertion"]["map"]["1"]
    assert found["deletion"]["map"]["1"] == found["insertion"]["map"]["0"]


def test_photos_that_come_a_few_at_a_time_give_the_same_curves(
    detector: Detector, photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = faithfulness(detector, photos)
    monkeypatch.setattr(image_sets, "_BATCH_PIXELS", 32 * 32 * 32)
    assert numbers(faithfulness(detector, photos)) == pytest.approx(numbers(together), abs=1e-6)


def numbers(value: Any) -> list[float]:
    """Return the numbers of a nested mapping, in order."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [float(value)]
