"""Where the detector is weakest: figures of parts of a set, and the name of the worst."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.models.detector import Detector
from stages.data.image_sets import Images, ImageSet, load_images, row_digests
from stages.evaluation.scoring import Scored, statistics_of
from stages.evaluation.types import Data

# CIFAKE's file names tell CIFAR-10's class by a suffix: "0530 (5).jpg" is a deer, "0530.jpg" an airplane.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = 5  # of brightness and of sharpness, each with as many photos


class Evaluator:
    """The figures of each subject, and of dark and bright, blurred and sharp photos."""

    name = "slices"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return group -> slice -> figures, and the worst slice."""
        return slice_figures(detector, data.images, data.scores, data.classes, data.alpha)


def cifar_classes(images: Images, raw: Path, names: Path) -> npt.NDArray[np.str_] | None:
    """Return the CIFAR-10 class of each photo ("" for other photos), as far as file names tell.

    Args:
        images: uint8 [N, H, W, 3].
        raw: what the stage download wrote.
        names: the file names, in its order; the hub's copy of CIFAKE has none.

    Returns:
        str [N], or None where the names are missing or say nothing.
    """
    if not raw.exists() or not names.exists():
        return None
    classes = [_class(name) for name in names.read_text(encoding="utf-8").splitlines()[1:]]
    digests = row_digests(load_images(raw).images)
    if not any(classes) or len(classes) != len(digests):  # no names, or those of another data set
        return None
    known = dict(zip(digests.tolist(), classes, strict=True))
    return np.array([known.get(digest, "") for digest in row_digests(images).tolist()])


def slice_figures(
    detector: Detector, data: ImageSet, scored: Scored, classes: npt.NDArray[np.str_] | None, alpha: float = 0.01
) -> dict[str, Any]:
    """Return the figures of every slice, and which one is the worst.

    Args:
        detector: the model.
        data: N photos of both classes.
        scored: their scores.
        classes: str [N] as `cifar_classes` gives them, or None.
        alpha: one of the card's levels.

    Returns:
        {"class": {"cat": {...}, ...}, "brightness": {"1 of 5": {...}, ...}, "sharpness": ..., "worst": {"slice":
        "class cat", "accuracy": ...}}, the worst by accuracy.
    """
    called = scored.probability >= 0.5
    made = scored.decisions(detector.card, alpha)

    def figures(rows: npt.NDArray[np.bool_]) -> dict[str, float]:
        labels = data.labels[rows]
        return {
            "images": len(labels),
            "accuracy": float((called[rows] == (labels == 1)).mean()),
            "reals_called_generated": float(called[rows][labels == 0].mean()),
            "generated_called_real": float(1 - called[rows][labels == 1].mean()),
            "false_positive_rate": float((made[rows][labels == 0] == "flag").mean()),
        }

    masks: dict[str, dict[str, npt.NDArray[np.bool_]]] = {}
    if classes is not None:
        masks["class"] = {name: classes == name for name in CLASSES}
    measured = statistics_of(data)
    ends: dict[str, dict[str, float]] = {}
    for name in ("brightness", "sharpness"):
        borders = np.quantile(measured[name], np.linspace(0, 1, PARTS + 1))
        part = np.searchsorted(borders[1:-1], measured[name], side="right")
        masks[name] = {f"{i + 1} of {PARTS}": part == i for i in range(PARTS)}
        ends |= {f"{name} {i + 1} of {PARTS}": {"from": borders[i], "to": borders[i + 1]} for i in range(PARTS)}
    result: dict[str, Any] = {
        group: {
            name: figures(rows) | ends.get(f"{group} {name}", {})
            for name, rows in parts.items()
            if len(set(data.labels[rows].tolist())) == 2
        }
        for group, parts in masks.items()
    }
    named = {f"{group} {name}": found for group, parts in result.items() for name, found in parts.items()}
    if named:
        worst = min(named, key=lambda name: named[name]["accuracy"])
        result["worst"] = {"slice": worst, **named[worst]}
    return result


def _class(name: str) -> str:
    stem = Path(name).stem
    if not stem.partition(" ")[0].isdigit():
        return ""
    number = stem.partition("(")[2].rstrip(")") or "1"
    return CLASSES[int(number) - 1] if number.isdigit() and 1 <= int(number) <= len(CLASSES) else ""
