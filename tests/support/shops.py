"""Calibrations of a shop, for tests of what takes them."""

from pathlib import Path

import numpy as np

from service.models.card import Card
from service.models.shop import Promise, Promises, Recall, ShopCalibration, calibration_file
from tests.support import tiny_model


def promises(flag: float, photos: int = 300) -> Promises:
    """Return promises at 5 and 1 %, both with the same threshold."""
    each = {alpha: Promise(flag=flag, upper=2 * alpha) for alpha in (0.05, 0.01)}
    return Promises(photos=photos, products=photos, promises=each, needed={0.001: 999})


def calibration_of(card: Card, flag: float, groups: dict[str, float] | None = None) -> ShopCalibration:
    """Return a calibration for a model; its small groups are `bags` and `hats`.

    Args:
        card: the model's.
        flag: the whole shop's threshold.
        groups: those of the groups that have their own.
    """
    return ShopCalibration(
        model=card.name,
        model_version=card.version,
        model_sha256=card.sha256 or "",
        made_at="2026-11-30T12:00:00+00:00",
        shop=promises(flag),
        groups={name: promises(each) for name, each in (groups or {}).items()},
        rest=promises(0.99, 100) if groups else None,
        small_groups=["bags", "hats"],
        recall={0.05: Recall(of_all=0.9), 0.01: Recall(of_all=0.8)},
        out_of_domain=0.02,
        marked=0,
    )


def released_with_reference(folder: Path) -> Path:
    """Write the tiny model, with scores of 100 AI images of two generators in its reference; return its folder."""
    tiny_model.release(folder, "1.0.0")
    np.savez(
        folder / "reference.npz",
        label=np.repeat([0, 1], [1, 100]).astype(np.uint8),
        generator=np.repeat(["", "one", "two"], [1, 90, 10]),
        source_photos=np.repeat([1, 90, 10], [1, 90, 10]),
        probability=np.linspace(0, 1, 101),
        distance=np.zeros(101),
    )
    return folder


def write_calibration(path: Path, calibration: ShopCalibration) -> Path:
    """Write it as `python -m tools.calibrate` does, and return the path."""
    temporary = path.with_suffix(".new")
    temporary.write_text(calibration_file(calibration), encoding="utf-8")
    return temporary.replace(path)
