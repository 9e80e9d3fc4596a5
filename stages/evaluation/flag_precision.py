"""How often a `flag` is right where 1, 5 or 50 % of the photos are AI-generated."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from service.models import decision
from service.models.card import Card
from service.models.detector import Detector
from stages.evaluation.scoring import Scored, decisions
from stages.evaluation.types import Data

PRIORS = (0.01, 0.05, 0.5)  # shares of AI images in a catalogue


class Evaluator:
    """The precision of a flag at each of `PRIORS`."""

    name = "flag_precision"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return prior -> figures."""
        return flag_precision(data.scores, detector.card, data.alpha)


def flag_precision(scores: Scored, card: Card, alpha: float) -> dict[str, Any]:
    """Return how often a `flag` is right at each of `PRIORS`.

    Bayes' rule on the measured shares of AI images and of reals that are flagged, with AI_PRIOR set to the true share
    and with AI_PRIOR left at the calibration's.

    Args:
        scores: of photos of both classes.
        card: the model's card.
        alpha: one of its levels.

    Returns:
        For each prior: `recall` and `false_positive_rate` of flags, `review_rate` (at that mixture), `precision` (the
        share of flags that are AI images), `precision_at_least` (the same with the upper end of the 95 % interval of
        Clopper & Pearson 1934 for the false positive rate), and `precision_with_ai_prior_0.5`, without the setting.
        Where nothing is flagged there is no precision.
    """
    base = card.calibration.prior_ai
    shift = np.vectorize(decision.shift_prior)
    inside = scores.in_domain(card)
    real, generated = scores.labels == 0, scores.labels == 1

    def shares(prior: float) -> tuple[npt.NDArray[np.str_], float, float]:
        made = decisions(shift(scores.probability, prior, base), inside, decision.thresholds(card, alpha, prior))
        return made, float((made[generated] == "flag").mean()), float((made[real] == "flag").mean())

    def precision(prior: float, recall: float, false_positive_rate: float) -> float | None:
        flags = prior * recall + (1 - prior) * false_positive_rate
        return prior * recall / flags if flags else None  # nothing is flagged

    result: dict[str, Any] = {}
    _, *untouched = shares(base)
    for prior in PRIORS:
        made, recall, false_positive_rate = shares(prior)
        count = int((made[real] == "flag").sum())
        most = float(beta.ppf(0.975, count + 1, real.sum() - count)) if count < real.sum() else 1.0
        review = [float((made[rows] == "review").mean()) for rows in (real, generated)]
        row = {
            "recall": recall,
            "false_positive_rate": false_positive_rate,
            "review_rate": (1 - prior) * review[0] + prior * review[1],
            "precision": precision(prior, recall, false_positive_rate),
            "precision_at_least": precision(prior, recall, most),
            "precision_with_ai_prior_0.5": precision(prior, *untouched),
        }
        result[f"prior_{prior:g}"] = {name: value for name, value in row.items() if value is not None}
    return result
