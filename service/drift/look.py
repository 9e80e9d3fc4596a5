"""One look at a window: its answer, and its pages."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from service import decision
from service.drift import columns
from service.drift.accuracy import estimated_accuracy, reviewed, reviewed_report
from service.drift.columns import Table
from service.drift.comparison import MINIMUM, alerts, compare, report
from service.drift.references import Reference
from service.schemas import DriftColumn, DriftReference, PredictionRatio

Rows = Sequence[dict[str, Any]]

_TITLES = {"ok": "These photos are like the reference", "drift": "These photos are unlike the reference"}


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        answer: the fields of `schemas.DriftResponse` that the window alone decides.
        window: the predictions, oldest first.
        seen: rows of reviewed photos, each with what a moderator said.
        reference: None, there was none.
    """

    answer: dict[str, Any]
    window: Table
    seen: list[tuple[dict[str, Any], str]]
    reference: Reference | None

    def page(self) -> str | None:
        """Return Evidently's HTML page of the window, under what the answer says in words.

        None where there was too little to compare.
        """
        if self.reference is None or not self.answer["columns"]:
            return None
        page = report(self.answer["columns"], self.window, self.reference.table)
        return page.replace("<body>", f"<body>{self._head()}", 1)

    def _head(self) -> str:
        answer, said = self.answer, html.escape
        begin, end = (f"{answer[name]:%Y-%m-%d %H:%M}" for name in ("window_start", "window_end"))
        low, high = answer["estimated_accuracy_interval"]
        alerts = "".join(f"<li>{said(line)}</li>" for line in answer["alerts"])
        return (
            '<header style="font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em">'
            f"<h1>{said(_TITLES[answer['status']])}</h1>"
            f"<p>{answer['window_size']} predictions, {begin} to {end} UTC, against {said(answer['reference'].name)}. "
            f"Estimated accuracy {answer['estimated_accuracy']:.1%} ({low:.1%} to {high:.1%}).</p>"
            f"<ul>{alerts}</ul></header>"
        )

    def reviewed_page(self) -> str | None:
        """Return Evidently's HTML page of the reviewed photos; None without enough of both labels."""
        enough = self.answer["reviewed"] is not None and 0 < self.answer["reviewed"].ai_share < 1
        return reviewed_report(self.seen) if enough else None


def look(rows: Rows, labels: dict[str, str], reference: Reference | str) -> Look:
    """Compare a window with a reference.

    Args:
        rows: of the prediction log, newest first, all of one model version.
        labels: request id -> what a moderator said.
        reference: what they are compared with, or why there is none.
    """
    probability = np.array([row["probability"] for row in rows], dtype=np.float64)
    generated = float(np.mean(probability >= 0.5)) if rows else 0.0
    found: list[DriftColumn] = []
    lines: list[str] = []
    enough = len(rows) >= MINIMUM and isinstance(reference, Reference)
    window = columns.from_rows(rows[::-1])
    seen = [(row, labels[row["request_id"]]) for row in rows if row["request_id"] in labels]
    if isinstance(reference, str):
        lines = [f"no reference: {reference}"]
    elif enough:
        found = compare(window, reference.table)
        lines = alerts(found, window, reference.table)
    drifted = any(column.drifted for column in found)
    estimate = estimated_accuracy(probability) if len(rows) >= MINIMUM else None
    answer: dict[str, Any] = {
        "timestamp": datetime.now(UTC).replace(microsecond=0),
        "status": ("drift" if drifted else "ok") if enough else "insufficient_data",
        "window_size": len(rows),
        "window_start": rows[-1]["time"].replace(tzinfo=UTC) if rows else None,
        "window_end": rows[0]["time"].replace(tzinfo=UTC) if rows else None,
        "mean_probability": float(probability.mean()) if rows else 0.0,
        "std_probability": float(probability.std()) if rows else 0.0,
        "low_confidence_ratio": float(np.mean([decision.confidence(p) == "low" for p in probability])) if rows else 0.0,
        "prediction_ratio": PredictionRatio(real=1 - generated if rows else 0.0, ai_generated=generated),
        "drift_detected": drifted,
        "drift_score": max((column.statistic for column in found), default=0.0),
        "alerts": lines,
        "columns": found,
        "estimated_accuracy": estimate[0] if estimate else None,
        "estimated_accuracy_interval": estimate[1:] if estimate else None,
        "reviewed": reviewed(seen),
        "reference": None
        if isinstance(reference, str)
        else DriftReference(
            name=reference.name,
            rows=len(reference.table["score"]),
            ai_share=reference.ai_share,
            adopted=reference.adopted,
            note=reference.note,
        ),
    }
    known = None if isinstance(reference, str) else reference
    return Look(answer, window, seen, known)
