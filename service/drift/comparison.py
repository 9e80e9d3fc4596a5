"""Evidently's tests of a window against a reference, and what they found in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.drift.columns import EMBEDDING, Table
from service.schemas import DriftColumn

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.01  # promised: looks at unchanged traffic that raise an alarm
ALPHA_SHARE = 0.005  # spent on the share called AI: half, because a changed share is the smallest shift to be found
ALPHA_COLUMNS = (
    0.003  # shared out among the other columns by Bonferroni's rule; the rest is left for the tests' own errors
)
MINIMUM = 100  # predictions; with fewer nothing is said

SHARE = "called_ai"
_WORDS = {  # column -> words for a median below and above the reference's
    "score": ("scores lean to real", "scores lean to AI-generated"),
    "distance": ("photos are more alike than the reference's", "photos are less like the training photos"),
    "brightness": ("photos are darker than the reference", "photos are brighter than the reference"),
    "contrast": ("photos have less contrast than the reference", "photos have more contrast than the reference"),
    "sharpness": ("photos are blurrier than the reference", "photos are sharper than the reference"),
    "size": ("photos are smaller than the reference", "photos are larger than the reference"),
    "jpeg_quality": (
        "photos are compressed harder than the reference",
        "photos are compressed less than the reference",
    ),
}


def compare(window: Table, reference: Table) -> list[DriftColumn]:
    """Test each column that both tables have.

    Args:
        window: at least `MINIMUM` predictions.
        reference: what they are compared with.

    Returns:
        The share called AI first, by a two-proportion z-test, then the other columns, by two-sample Kolmogorov-Smirnov
        tests. In unchanged traffic the probability that any is `drifted` is `ALPHA` at most.
    """
    from evidently.legacy.calculations.stattests import ks_stat_test, z_stat_test
    from evidently.legacy.core import ColumnType

    now, then = _frame(window), _frame(reference)
    found = []
    for name, threshold in _thresholds(window, reference).items():
        test, kind = (z_stat_test, ColumnType.Categorical) if name == SHARE else (ks_stat_test, ColumnType.Numerical)
        p_value = float(test(then[name], now[name], kind, threshold).drift_score)
        found.append(
            DriftColumn(
                name=name,
                test="z" if name == SHARE else "ks",
                statistic=_difference(now[name], then[name]),
                p_value=p_value,
                threshold=threshold,
                drifted=p_value < threshold,
            )
        )
    return found


def report(found: Sequence[DriftColumn], window: Table, reference: Table) -> str:
    """Return Evidently's HTML page of the same tests, whole in itself, the largest difference first."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    columns = sorted(found, key=lambda column: (not column.drifted, -column.statistic))
    names = [column.name for column in columns]
    definition = DataDefinition(
        numerical_columns=[name for name in names if name != SHARE], categorical_columns=[SHARE]
    )
    drifts = [ValueDrift(column=column.name, method=column.test, threshold=column.threshold) for column in columns]
    now, then = (Dataset.from_pandas(_frame(table)[names], definition) for table in (window, reference))
    page: str = Report(drifts).run(now, then).get_html_str(as_iframe=False)
    return page


def alerts(found: Sequence[DriftColumn], window: Table, reference: Table) -> list[str]:
    """Say in words what drifted, the largest difference first; components of the embedding together."""
    lines, parts = [], []
    for column in sorted(found, key=lambda column: -column.statistic):
        if not column.drifted:
            continue
        if column.name == SHARE:
            now, then = (float((table["probability"] >= 0.5).mean()) for table in (window, reference))
            lines.append(
                f"{'more' if now > then else 'fewer'} photos are called AI-generated: {now:.1%} against {then:.1%}"
            )
        elif column.name in EMBEDDING:
            parts.append(column.name.rpartition("_")[2])
            if len(parts) == 1:
                lines.append("")  # their place is that of the largest
        else:
            now, then = (float(np.median(table[column.name])) for table in (window, reference))
            words = _WORDS[column.name][now > then]
            lines.append(f"{words}: median {column.name} {now:.3g} against {then:.3g}")
    together = f"photos look different to the model: embedding components {', '.join(parts)}"
    return [line or together for line in lines]


def _thresholds(window: Table, reference: Table) -> dict[str, float]:
    """Return each tested column's part of `ALPHA`."""
    names = [name for name in (*_WORDS, *EMBEDDING) if name in window and name in reference]
    return {SHARE: ALPHA_SHARE, **dict.fromkeys(names, ALPHA_COLUMNS / len(names))}


def _frame(table: Table) -> "pd.DataFrame":
    import pandas as pd

    called = np.where(table["probability"] >= 0.5, "ai_generated", "real")
    return pd.DataFrame(table | {SHARE: called})


def _difference(now: "pd.Series[float]", then: "pd.Series[float]") -> float:
    """Return how far two columns lie apart, 0 to 1: the largest difference of their distribution functions."""
    from scipy.stats import ks_2samp

    if now.dtype != float:
        return float(abs((now == "real").mean() - (then == "real").mean()))
    return float(ks_2samp(now, then, method="asymp").statistic)
