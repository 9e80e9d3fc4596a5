"""Calibration, thresholds and the known domain: the statistics that export adds to a trained model."""

import math
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from stages.data.image_sets import ImageSet, Spool, batches
from stages.exporting.inference_graph import Float, InferenceGraph, run
from stages.exporting.ood_pictures import outliers
from stages.exporting.ood_statistics import drawing_score, whitened


def conformal_threshold(scores: Float, alpha: float) -> float:
    """Split-conformal bound (Vovk et al. 2005; Lei et al. 2018): a new score exceeds it with probability <= alpha.

    Args:
        scores: float [N], exchangeable with the new one.
        alpha: the share that may exceed it.

    Returns:
        The ceil((N + 1)(1 - alpha))-th smallest score; infinity where N is too small to promise anything.
    """
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def above(threshold: float) -> float:
    """Return the next number of 6 decimals above a probability, so that reaching it means exceeding `threshold`.

    Above 1, and so out of every photo's reach, where nothing is promised.
    """
    return (math.floor(min(threshold, 1.0) * 1e6) + 1) / 1e6


def calibrate(
    model: InferenceGraph,
    calibration: ImageSet,
    known_photos: ImageSet,
    *,
    flag_alphas: list[float],
    clear_miss: float,
    domain_out_share: float,
    domain_drawings: int,
) -> dict[str, Any]:
    """Set the model's calibration and domain statistics; return them and the thresholds as parts of the card."""
    logit, description = run(model, calibration.batches(), "calibration")
    # Platt 1999: a logistic regression on the logit; C large because two parameters need no shrinking.
    platt = LogisticRegression(C=1e6).fit(logit[:, None], calibration.labels)
    # Rounded, so that the last bits of another processor's arithmetic do not make another file.
    slope, intercept = round(float(platt.coef_[0, 0]), 4), round(float(platt.intercept_[0]), 4)
    model.slope.fill_(slope)
    model.intercept.fill_(intercept)
    probability = 1 / (1 + np.exp(-(slope * logit + intercept)))
    reals, generated = probability[calibration.labels == 0], probability[calibration.labels == 1]

    _, known = run(model, known_photos.batches(), "domain")
    spool = Spool()  # drawn one by one, judged in batches
    height, width = known_photos.images.shape[1:3]
    for picture in outliers(domain_drawings, height, width, seed=0):
        spool.add(picture)
    _, drawn = run(model, batches(spool.images()), "drawings")
    centre, whitening = whitened(known)
    unit, weight, bias = drawing_score((known - centre) @ whitening, (drawn - centre) @ whitening)
    for buffer, value in ((model.centre, centre), (model.whitening, whitening), (model.drawn, weight)):
        buffer.copy_(torch.from_numpy(value))
    model.unit.fill_(unit)
    model.drawn_bias.fill_(bias)
    away = (description - centre) @ whitening
    ood_score = np.maximum(np.linalg.norm(away, axis=1) / unit, away @ weight + bias)
    return {
        "calibration": {
            "method": "platt", "slope": slope, "intercept": intercept, "prior_ai": 0.5, "images": len(calibration),
            "reals": len(reals),
        },
        "thresholds": {
            "flag": {str(alpha): above(conformal_threshold(reals, alpha)) for alpha in flag_alphas},
            "clear": round(max(0.0, 1 - conformal_threshold(1 - generated, clear_miss)), 6),
            "clear_miss": clear_miss,
        },
        "domain": {
            "method": "mahalanobis and outlier exposure on embedding, middle map and texture",
            "threshold": round(conformal_threshold(ood_score, domain_out_share), 4),
            "out_share": domain_out_share,
        },
    }  # fmt: skip
