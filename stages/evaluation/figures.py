"""The figures of each selection of photos: accuracy, AUC, calibration, and what the decisions come to."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from service.models.card import Card
from service.models.detector import Detector
from stages.common import LABELS, StageError
from stages.evaluation.plots import save_figure
from stages.evaluation.scoring import Float, Labels, Scored
from stages.evaluation.types import Data


class Evaluator:
    """The figures of every selection, and the usual pictures of the data set's."""

    name = "figures"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return selection -> `figures`; write roc.png, precision_recall.png, confusion.png and reliability.png."""
        draw(data.plots, data.scores.labels, data.scores.probability)
        return {name: figures(scores, detector.card) for name, scores in data.selections.items()}


def figures(scores: Scored, card: Card) -> dict[str, Any]:
    """Return every figure of one selection of photos.

    Args:
        scores: of photos of both classes.
        card: the model's card, for its thresholds.

    Raises:
        StageError: the card does not say how many real photos calibrated the model.
    """
    labels, probability = scores.labels, scores.probability
    called = (probability >= 0.5).astype(np.uint8)
    confusion = sk.confusion_matrix(labels, called, labels=[0, 1])
    if card.calibration.reals is None:
        raise StageError("the card does not say how many real photos calibrated the model: export it again")
    result: dict[str, Any] = {
        "images": len(labels),
        "accuracy": float(sk.accuracy_score(labels, called)),
        "auc": float(sk.roc_auc_score(labels, probability)),
        "f1": float(sk.f1_score(labels, called)),
        "precision": float(sk.precision_score(labels, called, zero_division=0.0)),
        "recall": float(sk.recall_score(labels, called)),
        "ece": calibration_error(labels, probability),
        "brier": float(sk.brier_score_loss(labels, probability)),
        "log_loss": float(sk.log_loss(labels, np.clip(probability, 1e-7, 1 - 1e-7))),
        "confusion": {LABELS[i]: {LABELS[j]: int(confusion[i, j]) for j in (0, 1)} for i in (0, 1)},
        "in_domain_share": float(scores.in_domain(card).mean()),
        "decisions": {},
    }
    for alpha in card.thresholds.flag:
        made = scores.decisions(card, alpha)
        result["decisions"][f"alpha_{alpha:g}"] = {
            "false_positive_rate": float((made[labels == 0] == "flag").mean()),
            "false_positive_rate_at_most": flag_bound(alpha, card.calibration.reals, int((labels == 0).sum())),
            "recall": float((made[labels == 1] == "flag").mean()),
            "miss_rate": float((made[labels == 1] == "clear").mean()),
            "review_rate": float((made == "review").mean()),
        }
    return result


def calibration_error(labels: Labels, probability: Float, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Args:
        labels: uint8 [N], 1 = AI-generated.
        probability: float [N], P(AI-generated).
        bins: how many.

    Returns:
        Mean over all photos of |share of AI images - mean probability| of the photo's bin, in 0..1.
    """
    gaps = np.bincount(_bin(probability, bins), labels - probability, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def flag_bound(alpha: float, calibrated: int, tested: int) -> float:
    """Return what the share of real photos flagged may come to when the promise of `alpha` holds.

    The promise is one about the mean; a threshold found on `calibrated` reals, and a share counted on `tested` others,
    both scatter around it. 97.5 % of the time the share is below this (normal approximation to both).
    """
    return alpha + 1.96 * float(np.sqrt(alpha * (1 - alpha) * (1 / calibrated + 1 / tested)))


def draw(folder: Path, labels: Labels, probability: Float) -> None:
    """Write roc.png, precision_recall.png, confusion.png and reliability.png into `folder`."""
    panels = {
        "roc.png": lambda ax: sk.RocCurveDisplay.from_predictions(labels, probability, ax=ax),
        "precision_recall.png": lambda ax: sk.PrecisionRecallDisplay.from_predictions(labels, probability, ax=ax),
        "confusion.png": lambda ax: sk.ConfusionMatrixDisplay.from_predictions(
            labels, probability >= 0.5, display_labels=LABELS, ax=ax, colorbar=False, cmap="Blues"
        ),
        "reliability.png": lambda ax: _reliability(ax, labels, probability),
    }
    for name, panel in panels.items():
        save_figure(folder / name, panel)


def _reliability(ax: Any, labels: Labels, probability: Float) -> None:
    index = _bin(probability, 15)
    counts = np.bincount(index, minlength=15)
    used = counts > 0
    predicted = np.bincount(index, probability, minlength=15)[used] / counts[used]
    observed = np.bincount(index, labels, minlength=15)[used] / counts[used]
    ax.plot([0, 1], [0, 1], "k:", label="perfect")
    ax.plot(predicted, observed, "o-", label=f"ECE {calibration_error(labels, probability):.4f}")
    ax.set(xlabel="predicted P(AI-generated)", ylabel="share of AI images")
    ax.legend()


def _bin(probability: Float, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((probability * bins).astype(np.int64), bins - 1)
