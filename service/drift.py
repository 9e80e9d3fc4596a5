"""Is the traffic unlike the photos that the model was calibrated on?

A first, honest answer: two-sample Kolmogorov-Smirnov tests of the newest predictions against
`models/reference.npz`, whose photos were never trained on. Half of `ALPHA` goes to the score, where a changed
share of AI images shows; Bonferroni's rule shares the rest out over the other columns, so that a look at
unchanged traffic raises an alarm at most once in a hundred times.
"""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service import decision, metrics
from service.prediction_log import PredictionLog
from service.schemas import DriftColumn, DriftReference, PredictionRatio

Floats = npt.NDArray[np.floating[Any]]

ALPHA = 0.01  # false alarms in looks at unchanged traffic
MINIMUM = 100  # predictions; with fewer nothing is said
FRESH_SECONDS = 60.0  # how old the answer in /health may be
_COLUMNS = {  # name -> words for a median below and above the reference's
    "score": ("scores lean to real", "scores lean to AI-generated"),
    "distance": ("photos are more alike than the reference's", "photos are unlike the training photos"),
    "brightness": ("photos are darker than the reference", "photos are brighter than the reference"),
    "contrast": (
        "photos have less contrast than the reference",
        "photos have more contrast than the reference",
    ),
    "sharpness": ("photos are blurrier than the reference", "photos are sharper than the reference"),
}


def column(table: Mapping[str, Floats], name: str) -> Floats:
    """Return a column as it is tested: `score` is the logit of `probability`, the others are themselves."""
    if name != "score":
        return table[name].astype(np.float64)
    probability = table["probability"].astype(np.float64).clip(1e-7, 1 - 1e-7)
    logit: Floats = np.log(probability / (1 - probability))
    return logit


def compare(window: Mapping[str, Floats], reference: Mapping[str, Floats]) -> list[DriftColumn]:
    """Test each column of a window against the reference.

    Args:
        window: float [n] arrays `probability` (at the calibration's prior), `distance`, `brightness`,
            `contrast`, `sharpness`.
        reference: the same, float [m].

    Returns:
        One result for each column. In unchanged traffic the probability that any is `drifted` is `ALPHA` at most.
    """
    from scipy.stats import ks_2samp  # takes a second to import, and only a look at enough data needs it

    results = []
    for name in _COLUMNS:
        threshold = ALPHA / 2 if name == "score" else ALPHA / 2 / (len(_COLUMNS) - 1)
        found = ks_2samp(column(window, name), column(reference, name), method="asymp")
        results.append(
            DriftColumn(
                name=name,
                test="ks",
                statistic=float(found.statistic),
                p_value=float(found.pvalue),
                threshold=threshold,
                drifted=bool(found.pvalue < threshold),
            )
        )
    return results


def alerts(results: list[DriftColumn], window: Mapping[str, Floats], reference: Mapping[str, Floats]) -> list[str]:
    """Say in words what drifted, the largest difference first."""
    lines = []
    for result in sorted(results, key=lambda result: -result.statistic):
        if result.drifted:
            now, then = (float(np.median(column(table, result.name))) for table in (window, reference))
            words = _COLUMNS[result.name][now > then]
            lines.append(f"{words}: median {result.name} {now:.3g} against {then:.3g}")
    return lines


class DriftMonitor:
    """Looks at the prediction log's newest rows; keeps the last answer for `/health`.

    Its methods read a database and compute: never call them on the event loop.
    """

    def __init__(self, log: PredictionLog, reference: Path, model_version: str, window: int) -> None:
        """Remember what to compare; nothing is read yet.

        Args:
            log: the prediction log.
            reference: `reference.npz`, written with the model.
            model_version: whose predictions are looked at.
            window: how many of them, at most.
        """
        self._log = log
        self._path = reference
        self._model_version = model_version
        self._size = window
        self._reference: dict[str, Floats] | None = None
        self._lock = threading.Lock()
        self._detected = False
        self._looked = float("-inf")

    def look(self) -> dict[str, Any]:
        """Return the fields of `schemas.DriftResponse` except `request_id`.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the prediction log cannot be read.
        """
        with self._lock:
            rows = self._log.recent(self._model_version, self._size)
            answer = self._answer(rows)
            self._detected, self._looked = answer["drift_detected"], time.monotonic()
        metrics.DRIFT.set(answer["drift_detected"])
        metrics.DRIFT_SCORE.set(answer["drift_score"])
        return answer

    def detected(self) -> bool:
        """Return whether drift was detected at most `FRESH_SECONDS` ago; looks again where that is older."""
        if time.monotonic() - self._looked > FRESH_SECONDS:
            self.look()
        return self._detected

    def _answer(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        window = {
            name: np.array([row[name if name != "probability" else "score"] for row in rows])
            for name in ("probability", *list(_COLUMNS)[1:])
        }
        probability = np.array([row["probability"] for row in rows])
        generated = float(np.mean(probability >= 0.5)) if rows else 0.0
        low = [decision.confidence(value) == "low" for value in probability]
        reference, trouble = self._load()
        enough = len(rows) >= MINIMUM and reference is not None
        results = compare(window, reference) if enough and reference is not None else []
        lines = alerts(results, window, reference) if enough and reference is not None else trouble
        return {
            "timestamp": datetime.now(UTC),
            "status": ("drift" if lines else "ok") if enough else "insufficient_data",
            "window_size": len(rows),
            "mean_probability": float(probability.mean()) if rows else 0.0,
            "std_probability": float(probability.std()) if rows else 0.0,
            "low_confidence_ratio": float(np.mean(low)) if rows else 0.0,
            "prediction_ratio": PredictionRatio(real=1 - generated if rows else 0.0, ai_generated=generated),
            "drift_detected": enough and bool(lines),
            "drift_score": max((result.statistic for result in results), default=0.0),
            "alerts": lines,
            "columns": results,
            "estimated_accuracy": float(np.maximum(probability, 1 - probability).mean())
            if len(rows) >= MINIMUM
            else None,
            "reference": None
            if reference is None
            else DriftReference(
                name=self._path.name,
                rows=len(reference["probability"]),
                ai_share=float(reference["label"].mean()),
            ),
            "report_url": None,
        }

    def _load(self) -> tuple[dict[str, Floats] | None, list[str]]:
        """Read the reference once; without one there is nothing to compare with, and the answer says so."""
        if self._reference is None:
            needed = ("probability", *list(_COLUMNS)[1:], "label")
            try:
                with np.load(self._path, allow_pickle=False) as file:
                    self._reference = {name: file[name] for name in needed}
            except Exception:  # numpy raises by the file's kind of damage
                return None, [f"no reference: {self._path.name} is missing or damaged beside the model file"]
        return self._reference, []
