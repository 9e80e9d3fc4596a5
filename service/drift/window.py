"""A window of predictions compared with the reference: the result, and its pages."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from service.drift import columns
from service.drift.accuracy import estimated_accuracy, reviewed, reviewed_report
from service.drift.columns import Table
from service.drift.comparison import MINIMUM, alerts, compare, report
from service.drift.promise import in_words, worst
from service.drift.references import Reference
from service.models import decision
from service.schemas import DriftColumn, DriftPromise, DriftReference, PredictionRatio

Rows = Sequence[dict[str, Any]]

_TITLES = {"ok": "These photos are like the reference", "drift": "These photos are unlike the reference"}


@dataclass(frozen=True)
class DriftResult:
    """What the comparison found.

    Attributes:
        answer: the fields of `schemas.DriftResponse` that the window alone decides.
        window: the predictions, oldest first.
        reviewed: rows of reviewed photos, each with what a moderator said.
        reference: None: there was none.
    """

    answer: dict[str, Any]
    window: Table
    reviewed: list[tuple[dict[str, Any], str]]
    reference: Reference | None

    @cached_property
    def page(self) -> str | None:
        """Evidently's HTML page of the window, under what the answer says in words.

        None where there was too little to compare.
        """
        if self.reference is None or not self.answer["columns"]:
            return None
        page = report(self.answer["columns"], self.window, self.reference.table)
        return page.replace("<body>", f"<body>{self._head()}", 1)

    def _head(self) -> str:
        answer = self.answer
        begin, end = (f"{answer[name]:%Y-%m-%d %H:%M}" for name in ("window_start", "window_end"))
        low, high = answer["estimated_accuracy_interval"]
        return _header(
            _TITLES[answer["status"]],
            f"{answer['window_size']} predictions of {answer['model']}, {begin} to {end} UTC, "
            f"against {answer['reference'].name}. "
            f"Estimated accuracy {answer['estimated_accuracy']:.1%} ({low:.1%} to {high:.1%}).",
            answer["alerts"],
        )

    @cached_property
    def reviewed_page(self) -> str | None:
        """Evidently's HTML page of the reviewed photos; None without enough of both labels."""
        found = self.answer["reviewed"]
        if found is None or not 0 < found.ai_share < 1:
            return None
        head = _header(
            "Of reviewed photos",
            f"{found.photos} photos that moderators looked at, no random choice: {found.accuracy:.1%} of the answers "
            f"were right, {found.false_accusations} real photos were called AI-generated, {found.missed} missed.",
        )
        return reviewed_report(self.reviewed).replace("<body>", f"<body>{head}", 1)


def _header(title: str, text: str, lines: Sequence[str] = ()) -> str:
    """Return the first thing to see on a page, as HTML."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return (
        '<header style="font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em">'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p><ul>{items}</ul></header>"
    )


def evaluate_window(
    model: str,
    rows: Rows,
    labels: dict[str, str],
    reference: Reference | str,
    promises: Sequence[DriftPromise] = (),
) -> DriftResult:
    """Compare a window with a reference.

    Args:
        model: its name.
        rows: of the prediction log, newest first, all of one version of the model.
        labels: request id -> what a moderator said.
        reference: what they are compared with, or why there is none.
        promises: what feedback says of what was promised. A broken one is an alert, and no drift.
    """
    probability = np.array([row["probability"] for row in rows], dtype=np.float64)
    generated = float(np.mean(probability >= 0.5)) if rows else 0.0
    found: list[DriftColumn] = []
    lines: list[str] = []
    enough = len(rows) >= MINIMUM and isinstance(reference, Reference)
    window = columns.from_rows(rows[::-1])
    newest = {row["request_id"]: row for row in reversed(rows)}  # an id that a client sent twice means its last photo
    labelled = [(row, labels[name]) for name, row in newest.items() if name in labels]
    if isinstance(reference, str):
        lines = [f"no reference: {reference}"]
    elif enough:
        found = compare(window, reference.table)
        lines = alerts(found, window, reference.table)
    drifted = any(column.drifted for column in found)
    estimate = estimated_accuracy(probability) if len(rows) >= MINIMUM else None
    answer: dict[str, Any] = {
        "model": model,
        "timestamp": datetime.now(UTC).replace(microsecond=0),
        "status": ("drift" if drifted else "ok") if enough else "insufficient_data",
        "window_size": len(rows),
        "window_start": rows[-1]["time"].replace(tzinfo=UTC) if rows else None,
        "window_end": rows[0]["time"].replace(tzinfo=UTC) if rows else None,
        "mean_probability": float(probability.mean()) if rows else 0.0,
        "std_probability": float(probability.std()) if rows else 0.0,
        "low_confidence_ratio": float(np.mean([_unsure(row) for row in rows])) if rows else 0.0,
        "prediction_ratio": PredictionRatio(real=1 - generated if rows else 0.0, ai_generated=generated),
        "drift_detected": drifted,
        "drift_score": max((column.statistic for column in found), default=0.0),
        "alerts": [*lines, *(in_words(each, model) for each in promises if each.holds is False)],
        "promise": worst(promises),
        "promises": list(promises),
        "columns": found,
        "estimated_accuracy": estimate[0] if estimate else None,
        "estimated_accuracy_interval": estimate[1:] if estimate else None,
        "reviewed": reviewed(labelled),
        "reference": None
        if isinstance(reference, str)
        else DriftReference(
            name=reference.name,
            rows=len(reference.table["score"]),
            ai_share=reference.ai_share,
            adopted=reference.adopted,
        ),
    }
    known = None if isinstance(reference, str) else reference
    return DriftResult(answer, window, labelled, known)


def _unsure(row: Mapping[str, Any]) -> bool:
    return decision.confidence(row["probability"], row["in_domain"]) == "low"
