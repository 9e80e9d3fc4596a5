"""Figures of photos whose sources the head never saw: every source with the same weight, and source by source."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from service.models import decision
from service.models.card import Card
from stages.evaluation.figures import calibration_error
from stages.evaluation.scoring import decisions
from stages.frozen.dataset import RENDER, PhotoSet, Rows
from stages.frozen.head import Float, source_weights
from stages.frozen.thresholds import quantile_from_above

ALPHA = 0.01  # the service's default
SHARES = (0.05, 0.02, 0.01)  # of real photos flagged, at which recall is told
ENOUGH = 20  # photos; a source with fewer says little by itself
PAIR = 5  # photos of a source, for an AUC of its own

Bools = npt.NDArray[np.bool_]


def figures(card: Card, rows: Rows, probability: Float, in_domain: Bools, weights: Float) -> dict[str, Any]:
    """Return the figures of N photos, renders left out.

    Args:
        card: for its thresholds.
        rows: N photos.
        probability: float64 [N], calibrated.
        in_domain: bool [N].
        weights: float64 [N]: 1 / (photos of the source) lets every source weigh the same.
    """
    kept = rows.label != RENDER
    labels, probability, in_domain, weights = rows.label[kept], probability[kept], in_domain[kept], weights[kept]
    reals, generated = labels == 0, labels == 1
    balanced = weights / np.where(reals, weights[reals].sum(), weights[generated].sum())
    found: dict[str, Any] = {
        "images": len(labels),
        "auc": float(roc_auc_score(labels, probability, sample_weight=weights)),
        "ece": weighted_calibration_error(labels, probability, balanced),
        "accuracy": float(balanced[(probability >= 0.5) == generated].sum() / balanced.sum()),
        "in_domain_share": float(weights[in_domain].sum() / weights.sum()),
        "recall_at": {},
        "decisions": {},
    }
    for share in SHARES:
        threshold = quantile_from_above(probability[reals], weights[reals], share)
        above = probability[generated] > threshold
        found["recall_at"][f"{share:g}"] = float(weights[generated][above].sum() / weights[generated].sum())
    for alpha in card.thresholds.flag:
        limits = decision.thresholds(card, alpha, card.calibration.prior_ai)
        made = decisions(probability, in_domain, limits)
        found["decisions"][f"alpha_{alpha:g}"] = {
            "false_positive_rate": _share(made[reals] == "flag", weights[reals]),
            "recall": _share(made[generated] == "flag", weights[generated]),
            "miss_rate": _share(made[generated] == "clear", weights[generated]),
            "review_rate": _share(made == "review", balanced),
            "cleared_reals": _share(made[reals] == "clear", weights[reals]),
        }
    return found


def _share(which: Bools, weights: Float) -> float:
    return float(weights[which].sum() / weights.sum())


def weighted_calibration_error(labels: npt.NDArray[np.int64], probability: Float, weights: Float) -> float:
    """Return the expected calibration error with weights: as of each photo repeated in proportion to its weight."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(labels), 50_000, p=weights / weights.sum())
    return calibration_error(labels[drawn].astype(np.uint8), probability[drawn])


def by_source(rows: Rows, probability: Float) -> dict[str, Any]:
    """Return what happens to each source's photos at the threshold that the other sources set.

    Args:
        rows: N photos.
        probability: float64 [draws, N], of heads that never saw the photos' sources.

    Returns:
        label -> source -> photos, and the share flagged at 1 and 2 % of the other sources' reals; of AI images the
        recall of the threshold of all real sources.
    """
    reals = rows.label == 0
    weights = source_weights(rows)
    found: dict[str, Any] = {"real": {}, "ai_generated": {}, "render": {}}
    every = {share: _thresholds(probability, weights, reals, share) for share in (0.01, 0.02)}
    for source in np.unique(rows.source).tolist():
        mask = rows.source == source
        label = int(rows.label[mask][0])
        row: dict[str, Any] = {"images": int(mask.sum())}
        for share, thresholds in every.items():
            own = _thresholds(probability, weights, reals & ~mask, share) if label == 0 else thresholds
            row[f"flagged_at_{100 * share:g}"] = float((probability[:, mask] > own[:, None]).mean())
        if label == 1:
            row["generators"] = sorted(set(rows.generator[mask].tolist()))
        found[("real", "ai_generated", "render")[label]][source] = row
    enough = [row for row in found["real"].values() if row["images"] >= ENOUGH]
    found["worst_real_source_at_2"] = max((row["flagged_at_2"] for row in enough), default=0.0)
    return found


def _thresholds(probability: Float, weights: Float, mask: Bools, share: float) -> Float:
    return np.array([quantile_from_above(each[mask], weights[mask], share) for each in probability])


def by_generator(rows: Rows, probability: Float) -> dict[str, Any]:
    """Return generator -> images, sources and recall at 1 % of real photos flagged, every source the same weight."""
    weights, reals = source_weights(rows), rows.label == 0
    thresholds = _thresholds(probability, weights, reals, ALPHA)
    found = {}
    for name in np.unique(rows.generator[rows.label == 1]).tolist():
        mask = (rows.generator == name) & (rows.label == 1)
        above = (probability[:, mask] > thresholds[:, None]).mean(0)
        found[name or "unknown"] = {
            "images": int(mask.sum()),
            "sources": len(np.unique(rows.source[mask])),
            "recall": float((above * weights[mask]).sum() / weights[mask].sum()),
        }
    return found


def pairs(rows: Rows, probability: Float) -> dict[str, Any]:
    """Return the AUC of each real source against each AI source with `PAIR` photos and more: mean and worst."""
    mean = probability.mean(0)
    large = [source for source, count in zip(*np.unique(rows.source, return_counts=True), strict=True) if count >= PAIR]
    of_label = [[s for s in large if (rows.label[rows.source == s] == label).all()] for label in (0, 1)]
    # The AUC is the share of pairs of photos in which the AI image scores higher (Mann & Whitney 1947). It is worked
    # out for all AI sources at once: ten thousand calls of a library take as long as the rest of the evaluation.
    scores = [[mean[rows.source == source] for source in sources] for sources in of_label]
    areas: dict[tuple[str, str], float] = {}
    if all(of_label):
        generated = np.concatenate(scores[1])
        ends = np.cumsum([len(one) for one in scores[1]])
        for real, of_real in zip(of_label[0], scores[0], strict=True):
            higher = (of_real[:, None] < generated).mean(0) + 0.5 * (of_real[:, None] == generated).mean(0)
            each = np.split(higher, ends[:-1])
            areas |= {(real, name): float(part.mean()) for name, part in zip(of_label[1], each, strict=True)}
    if not areas:
        return {"pairs": 0}
    worst = min(areas, key=lambda pair: areas[pair])
    values = np.array(list(areas.values()))
    return {
        "pairs": len(areas),
        "mean": float(values.mean()),
        "worst": areas[worst],
        "worst_pair": list(worst),
        "share_below_0.9": float((values < 0.9).mean()),
    }


def slices(photos: PhotoSet, probability: Float) -> dict[str, Any]:
    """Return group -> slice -> photos, share of reals flagged and recall at 1 %, by what the file and the photo are."""
    rows = photos.rows
    weights, reals, generated = source_weights(rows), rows.label == 0, rows.label == 1
    thresholds = _thresholds(probability, weights, reals, ALPHA)
    flagged = (probability > thresholds[:, None]).mean(0)
    found: dict[str, Any] = {}
    for group, parts in _groups(photos):
        found[group] = {}
        for name, mask in parts.items():
            row: dict[str, Any] = {"real": int((mask & reals).sum()), "ai_generated": int((mask & generated).sum())}
            for key, part in (("false_positive_rate", mask & reals), ("recall", mask & generated)):
                if part.sum() >= PAIR:
                    row[key] = float((flagged[part] * weights[part]).sum() / weights[part].sum())
            found[group][name] = row
    return found


def _groups(photos: PhotoSet) -> Iterator[tuple[str, Mapping[str, Bools]]]:
    white, kind = photos.seen.white, photos.seen.format
    short = np.minimum(photos.seen.width, photos.seen.height)
    yield "subject", {name: photos.rows.subject == name for name in np.unique(photos.rows.subject).tolist()}
    yield "ground", {"white": on_white(photos), "partly white": (white > 0.1) & (white < 0.9), "scene": white <= 0.1}
    borders = (0, 320, 512, 768, 1024, 10**6)
    yield (
        "short side",
        {
            f"{low} to {high - 1}" if high < 10**6 else f"{low} and more": (short >= low) & (short < high)
            for low, high in pairwise(borders)
        },
    )
    yield "format", {name: kind == name for name in np.unique(kind).tolist()}


def on_white(photos: PhotoSet) -> Bools:
    """Tell of N photos which are cut out, on white ground."""
    white: Bools = photos.seen.white >= 0.9
    return white


def dark(photos: PhotoSet) -> Bools:
    """Tell of N photos which are as dark as those of an evening."""
    found: Bools = photos.seen.statistics[:, 0] < 0.25
    return found


def shares_flagged(probability: Float, rows: Rows, threshold: float) -> dict[str, float]:
    """Return which share of each label reaches a threshold, every source the same weight: float64 [N]."""
    weights = source_weights(rows)
    names = {0: "false_positive_rate", 1: "recall", RENDER: "renders"}
    return {
        name: _share(probability[rows.label == label] >= threshold, weights[rows.label == label])
        for label, name in names.items()
        if (rows.label == label).any()
    }
