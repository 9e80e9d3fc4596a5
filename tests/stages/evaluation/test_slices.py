"""Parts of a set, and the worst of them."""

from pathlib import Path

import numpy as np
import pytest

from service.models.detector import Detector
from service.models.images import statistics
from stages.data.image_sets import ImageSet, save_images
from stages.evaluation.scoring import score
from stages.evaluation.slices import CLASSES, cifar_classes, slice_figures


def test_slices_share_the_photos_out_and_name_the_worst(detector: Detector, photos: ImageSet, tmp_path: Path) -> None:
    save_images(tmp_path / "raw", photos)
    suffixes = ["", *(f" ({number})" for number in range(2, 11)), ", a strange one"]
    names = [f"train/REAL/{row:04}{suffixes[row % 11]}.jpg" for row in range(len(photos))]
    (tmp_path / "names.csv").write_text("\n".join(["name", *names]) + "\n", encoding="utf-8")
    mixed = photos.take(np.random.default_rng(1).permutation(len(photos)))
    classes = cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "names.csv")
    assert classes is not None
    rows = {tuple(image.ravel()[:9]): row for row, image in enumerate(photos.images)}
    expected = [([*CLASSES, ""])[rows[tuple(image.ravel()[:9])] % 11] for image in mixed.images]
    assert classes.tolist() == expected
    assert cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "missing") is None
    (tmp_path / "of another set").write_text("\n".join(["name", *names[:50]]) + "\n", encoding="utf-8")
    assert cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "of another set") is None

    alpha = next(iter(detector.card.thresholds.flag))
    found = slice_figures(detector, mixed, score(detector, mixed, "photos"), classes, alpha)
    worst = found.pop("worst")
    assert list(found) == ["class", "brightness", "sharpness"]
    assert set(found["class"]) == set(CLASSES)
    for name in ("brightness", "sharpness"):
        assert sum(part["images"] for part in found[name].values()) == len(photos)
    everything = {f"{group} {name}": part for group, parts in found.items() for name, part in parts.items()}
    assert worst["accuracy"] == min(part["accuracy"] for part in everything.values())
    assert everything[worst.pop("slice")] == worst
    measured = statistics(mixed.images)["brightness"]
    assert found["brightness"]["1 of 5"]["from"] == pytest.approx(measured.min(), abs=1e-5)
    assert found["brightness"]["5 of 5"]["to"] == pytest.approx(measured.max(), abs=1e-5)
