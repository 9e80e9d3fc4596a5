"""The figures of a scored image set, and their pictures: the same for validation (evaluate) and test (release)."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn import metrics as sk

from service.models import decision
from service.models.card import Card
from stages.common import LABELS, whole_file

mpl.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Decisions = npt.NDArray[np.str_]

PRIORS = (0.01, 0.05, 0.5)  # shares of AI images in a catalogue for which the worth of a flag is told


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


def _bin(probability: Float, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


def decisions(probability: Float, in_domain: Bools, limits: decision.Thresholds) -> Decisions:
    """Return the service's decision on each photo: float [N], bool [N] -> str [N]."""
    pairs = zip(probability.tolist(), in_domain.tolist(), strict=True)
    return np.array([decision.decide(p, inside, limits) for p, inside in pairs])


def flag_bound(alpha: float, calibrated: int, tested: int) -> float:
    """Return what the share of real photos flagged may come to when the promise of `alpha` holds.

    The promise is one about the mean; a threshold found on `calibrated` reals, and a share counted on `tested` others,
    both scatter around it. 97.5 % of the time the share is below this (normal approximation to both).
    """
    return alpha + 1.96 * float(np.sqrt(alpha * (1 - alpha) * (1 / calibrated + 1 / tested)))


def worth(labels: Labels, probability: Float, in_domain: Bools, card: Card, alpha: float) -> dict[str, Any]:
    """Return how often a `flag` is right where 1, 5 or 50 % of the photos are AI-generated.

    Bayes' rule on the measured shares of AI images and of reals that are flagged, with AI_PRIOR set to the true share
    and with AI_PRIOR left at 0.5.

    Args:
        labels: uint8 [N], 1 = AI-generated, both present.
        probability: float [N], calibrated P(AI-generated).
        in_domain: bool [N].
        card: the model's card.
        alpha: one of its levels.

    Returns:
        For each prior: `generated_flagged`, `reals_flagged`, `reviewed` (at that mixture), `flag_is_right` (the share
        of flags that are AI images), `flag_is_right_at_least` (the same with the upper end of the 95 % interval of
        Clopper & Pearson 1934 for the reals flagged), and `with_ai_prior_0.5`, `flag_is_right` without the setting.
        What is told of flags is left out where there are none.
    """
    base = card.calibration.prior_ai
    shift = np.vectorize(decision.shift_prior)
    real, generated = labels == 0, labels == 1

    def shares(prior: float) -> tuple[Decisions, float, float]:
        made = decisions(shift(probability, prior, base), in_domain, decision.thresholds(card, alpha, prior))
        return made, float((made[generated] == "flag").mean()), float((made[real] == "flag").mean())

    def right(prior: float, hits: float, false_alarms: float) -> float | None:
        flags = prior * hits + (1 - prior) * false_alarms
        return prior * hits / flags if flags else None  # nothing is flagged

    result: dict[str, Any] = {}
    _, *untouched = shares(base)
    for prior in PRIORS:
        made, hits, false_alarms = shares(prior)
        count = int((made[real] == "flag").sum())
        most = float(beta.ppf(0.975, count + 1, real.sum() - count)) if count < real.sum() else 1.0
        review = [float((made[rows] == "review").mean()) for rows in (real, generated)]
        row = {
            "generated_flagged": hits,
            "reals_flagged": false_alarms,
            "reviewed": (1 - prior) * review[0] + prior * review[1],
            "flag_is_right": right(prior, hits, false_alarms),
            "flag_is_right_at_least": right(prior, hits, most),
            "with_ai_prior_0.5": right(prior, *untouched),
        }
        result[f"prior_{prior:g}"] = {name: value for name, value in row.items() if value is not None}
    final: dict[str, Any] = rounded(result)
    return final


def figures(labels: Labels, probability: Float, in_domain: Bools, card: Card) -> dict[str, Any]:
    """Return every figure of one scored set.

    Args:
        labels: uint8 [N], 1 = AI-generated, both present.
        probability: float [N], calibrated P(AI-generated).
        in_domain: bool [N].
        card: the model's card, for its thresholds.
    """
    called = (probability >= 0.5).astype(np.uint8)
    confusion = sk.confusion_matrix(labels, called, labels=[0, 1])
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
        "in_domain_share": float(in_domain.mean()),
        "decisions": {},
    }
    for alpha in card.thresholds.flag:
        limits = decision.thresholds(card, float(alpha), card.calibration.prior_ai)
        made = decisions(probability, in_domain, limits)
        result["decisions"][f"alpha_{alpha}"] = {
            "reals_flagged": float((made[labels == 0] == "flag").mean()),
            "reals_flagged_at_most": flag_bound(float(alpha), card.calibration.reals or 1, int((labels == 0).sum())),
            "generated_flagged": float((made[labels == 1] == "flag").mean()),
            "generated_cleared": float((made[labels == 1] == "clear").mean()),
            "reviewed": float((made == "review").mean()),
        }
    final: dict[str, Any] = rounded(result)
    return final


def rounded(value: Any) -> Any:
    """Return `value` with every float at 6 decimals: what follows is noise of the processor's arithmetic."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 6) if isinstance(value, float) else value


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


def draw_training(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the training curves as one picture."""

    def panel(ax: Any) -> None:
        epochs = [row["epoch"] for row in rows]
        for key in ("train_loss", "validation_loss"):
            ax.plot(epochs, [row[key] for row in rows], label=key.replace("_", " "))
        ax.set(xlabel="epoch", ylabel="loss")
        right = ax.twinx()
        right.plot(epochs, [row["validation_accuracy"] for row in rows], "k:", label="validation accuracy (right)")
        right.legend(handles=[*ax.lines, *right.lines], loc="center right")

    save_figure(path, panel)


def save_figure(path: Path, panel: Any, rows: int = 1, columns: int = 1) -> None:
    """Draw with `panel(axes)` and write the picture, whole or not at all."""
    size = (5, 4) if rows == columns == 1 else (3.5 * columns, 3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    panel(axes)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)


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
