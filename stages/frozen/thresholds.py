"""Calibration and thresholds that hold beyond their own sources: every source weighs the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

Float = npt.NDArray[np.float64]

_RESAMPLES = 1000


def platt(logits: Float, labels: npt.NDArray[np.int64], weights: Float) -> tuple[float, float]:
    """Return slope and intercept that make of a logit a calibrated one (Platt 1999), at equal shares of both labels.

    Args:
        logits: float64 [N], of heads that never saw the photos' sources.
        labels: int64 [N], 1 = AI-generated.
        weights: float64 [N], within a label.
    """
    balanced = weights.copy()
    for label in (0, 1):
        balanced[labels == label] /= weights[labels == label].sum()
    # C large, because two parameters need no shrinking.
    model = LogisticRegression(C=1e6).fit(logits[:, None], labels, sample_weight=balanced * len(labels) / 2)
    return round(float(model.coef_[0, 0]), 4), round(float(model.intercept_[0]), 4)


def quantile_from_above(scores: Float, weights: Float, share: float) -> float:
    """Return the largest score that at least must be exceeded so that at most `share` of the weight lies above it.

    Args:
        scores: float64 [N].
        weights: float64 [N].
        share: from 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    above = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(above, share, side="right"))
    return float(scores[order[min(place, len(order) - 1)]])


def robust_threshold(
    scores: Float, sources: npt.NDArray[np.str_], alpha: float, confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Return a threshold that flags at most `alpha` of the photos of sources like these, each with the same weight.

    Sources differ more than photos of one source do. So the sources are drawn again with replacement (the bootstrap of
    Efron 1979, by clusters), and the threshold is the one that keeps `alpha` in a share `confidence` of these draws.

    Args:
        scores: float64 [N], of real photos, of heads that never saw their sources.
        sources: str [N].
        alpha: share that may lie above.
        confidence: from 0.5 to 1.
        seed: of the draws.

    Returns:
        `threshold`; `low` and `high`, between which it lies in nine draws of ten.
    """
    names, place, count = np.unique(sources, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    order = np.argsort(-scores, kind="stable")
    ordered, owner = scores[order], place[order]
    found = []
    for _ in range(_RESAMPLES):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        above = np.cumsum((drawn / count)[owner]) / len(names)
        found.append(ordered[min(int(np.searchsorted(above, alpha, side="right")), len(ordered) - 1)])
    low, threshold, high = np.quantile(found, [0.05, confidence, 0.95])
    return {"threshold": float(threshold), "low": float(low), "high": float(high)}
