"""Tests of a window against a reference, what they found in words, and Evidently's page of them."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from service.drift.columns import EMBEDDING, Floats, Table
from service.schemas import DriftColumn

if TYPE_CHECKING:
    import pandas as pd

Booleans = npt.NDArray[np.bool_]

ALPHA = 0.01  # promised: share of windows of unchanged traffic that raise an alarm
ALPHA_SHARE = 0.005  # spent on the share called AI: half, because a changed share is the smallest shift to be found
ALPHA_COLUMNS = (
    0.003  # shared out among the other columns by Bonferroni's rule; the rest is left for the tests' own errors
)
MINIMUM = 100  # predictions; with fewer nothing is said

_EXPECTED = 10  # photos of the rarer label in a window, from which on the normal approximation holds (Cochran 1954)
SHARE = "called_ai"
_AI = "ai_generated"
TESTED = {  # besides the share and the embedding, in this order: words for a median below and above the reference's
    "score": ("scores lean to real", "scores lean to AI-generated"),
    "ood_score": ("photos are more alike than the reference's", "photos are less like the training photos"),
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
        The share called AI first, by a two-proportion z-test (Fisher's exact test where one label is rare), then the
        other columns, by two-sample Kolmogorov-Smirnov tests. Where photos are independent of each other and nothing
        changed, the probability that any is `drifted` is `ALPHA` at most.
    """
    from scipy.stats import ks_2samp  # late: a worker that never compares anything does not load it

    found = []
    for name, threshold in _thresholds(window, reference).items():
        used: Literal["z", "fisher_exact", "ks"]
        if name == SHARE:
            used, statistic, p_value = _compare_shares(_called_ai(window), _called_ai(reference))
        else:
            result = ks_2samp(reference[name], window[name])
            used, statistic, p_value = "ks", float(result.statistic), float(result.pvalue)
        found.append(
            DriftColumn(
                name=name,
                test=used,
                statistic=statistic,
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
    methods = _evidently_tests()
    drifts = [
        ValueDrift(column=column.name, method=methods[column.test], threshold=column.threshold) for column in columns
    ]
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
            now, then = (float(_called_ai(table).mean()) for table in (window, reference))
            lines.append(f"{'more' if now > then else 'fewer'} photos look AI-generated: {now:.1%} against {then:.1%}")
        elif column.name in EMBEDDING:
            parts.append(column.name.rpartition("_")[2])
            if len(parts) == 1:
                lines.append("")  # their place is that of the largest
        else:
            lines.append(_said(column.name, window[column.name], reference[column.name]))
    together = f"photos look different to the model: embedding components {', '.join(parts)}"
    return [line or together for line in lines]


def _said(name: str, window: Floats, reference: Floats) -> str:
    """Say in words how a column that drifted differs."""
    if name == "jpeg_quality":  # 0: no JPEG
        now, then = (float((values > 0).mean()) for values in (window, reference))
        if abs(now - then) > 0.05:
            return f"{'more' if now > then else 'fewer'} photos are JPEG files: {now:.1%} against {then:.1%}"
        window, reference = window[window > 0], reference[reference > 0]
    now, then = float(np.median(window)), float(np.median(reference))
    if f"{now:.3g}" == f"{then:.3g}":
        low, high = (
            f"{np.percentile(values, 10):.3g} to {np.percentile(values, 90):.3g}" for values in (window, reference)
        )
        return f"{name} is spread otherwise than in the reference: from {low} (middle 80 %) against {high}"
    return f"{TESTED[name][now > then]}: median {name} {now:.3g} against {then:.3g}"


@cache
def _evidently_tests() -> dict[str, str]:
    """Return what Evidently calls the tests, with Fisher's registered: its own takes samples of equal length alone."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def work(then: "pd.Series[Any]", now: "pd.Series[Any]", _: Any, threshold: float) -> tuple[float, bool]:
        p_value = _fisher_exact(*((values == _AI).to_numpy() for values in (now, then)))
        return p_value, p_value < threshold

    fisher = StatTest("fisher_exact_shares", "Fisher's exact p_value", [ColumnType.Categorical])
    register_stattest(fisher, work)
    return {"z": "z", "fisher_exact": fisher.name, "ks": "ks"}


def _compare_shares(now: Booleans, then: Booleans) -> tuple[Literal["z", "fisher_exact"], float, float]:
    """Test whether two samples have the same share of true values.

    Returns:
        The test: the z-test's approximation needs some photos of either label to be expected. The difference of the two
        shares, and the p-value.
    """
    from scipy.stats import chi2_contingency

    share = float(np.concatenate([now, then]).mean())
    difference = abs(float(now.mean()) - float(then.mean()))
    if len(now) * min(share, 1 - share) < _EXPECTED:
        return "fisher_exact", difference, _fisher_exact(now, then)
    # The chi-squared test of two shares is the two-sided z-test: its statistic is the square of that one's.
    return "z", difference, float(chi2_contingency(_counts(now, then), correction=False).pvalue)


def _fisher_exact(now: Booleans, then: Booleans) -> float:
    """Return the p-value of Fisher's exact test; 1 where all photos have one label."""
    from scipy.stats import fisher_exact

    return float(fisher_exact(_counts(now, then)).pvalue)


def _counts(now: Booleans, then: Booleans) -> list[list[int]]:
    return [[int((~values).sum()), int(values.sum())] for values in (then, now)]


def _called_ai(table: Table) -> Booleans:
    return table["probability"] >= 0.5


def _thresholds(window: Table, reference: Table) -> dict[str, float]:
    """Return each tested column's part of `ALPHA`."""
    names = [name for name in (*TESTED, *EMBEDDING) if name in window and name in reference]
    return {SHARE: ALPHA_SHARE, **dict.fromkeys(names, ALPHA_COLUMNS / len(names))}


def _frame(table: Table) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(table | {SHARE: np.where(_called_ai(table), _AI, "real")})
