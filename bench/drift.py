"""False alarms and power of the drift tests, by resampling real predictions through the very code of /drift.

python bench/drift.py [--report reports/drift_power.json] [--picture docs/drift_power.png]

The predictions are those of CIFAKE's validation and calibration photos from build/cifake/dataset (`dvc repro
preprocess`), on which nothing was trained; test is not read. Each window is drawn from them without replacement, and
what is left is its reference: so the two never share a photo, and where nothing is changed they come from one
distribution for certain. A shifted window has the same photos, changed before they are scored, or another share of AI
images.
"""

import argparse
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from scipy.stats import chi2
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.drift.accuracy import estimated_accuracy
from service.drift.columns import Table, from_arrays, take
from service.drift.comparison import ALPHA, compare
from service.models.images import statistics
from stages.data.image_sets import ImageSet, load_images
from stages.evaluation.robustness import CHANGES
from stages.evaluation.scoring import open_detector, score

MODEL = Path("models/cifake/model.onnx")
DATASET = Path("build/cifake/dataset")
CHECKS_A_MONTH = 30 * 24  # DRIFT_CHECK_SECONDS is an hour: more checks there cannot be
STREAM = 6  # disjoint windows that meet one reference, as a month's checks do


@dataclass(frozen=True)
class Scenario:
    """What is drawn, and how often.

    Attributes:
        name: as the report has it.
        size: predictions in a window.
        windows: how many.
        change: of the photos: name and strength in `stages.evaluation.robustness.CHANGES`.
        ai_share: of the window; None: as it comes.
        known_share: of AI images in the reference; None: as it comes, or half where `ai_share` is given.
        known: rows of the reference at most; None: all that are left.
    """

    name: str
    size: int
    windows: int
    change: tuple[str, float] | None = None
    ai_share: float | None = None
    known_share: float | None = None
    known: int | None = None


SCENARIOS = (
    *(Scenario("unchanged", size, 4002) for size in (100, 200, 500)),
    Scenario("unchanged", 1000, 2000),
    Scenario("unchanged", 2000, 2000),
    *(Scenario("unchanged_1_percent_ai", size, 2000, ai_share=0.01, known_share=0.01) for size in (100, 500)),
    Scenario("unchanged_reference_1000", 500, 2000, known=1000),
    *(Scenario("share_60", size, 1000, ai_share=0.6) for size in (200, 500, 1000)),
    *(Scenario("share_55", size, 1000, ai_share=0.55) for size in (500, 1000, 2000, 3000)),
    *(Scenario("blur_0.6", size, 500, change=("blur", 0.6)) for size in (100, 200)),
    *(Scenario("jpeg_40", size, 500, change=("jpeg", 40)) for size in (100, 200, 500)),
    *(Scenario("brightness_1.2", size, 500, change=("brightness", 1.2)) for size in (100, 200)),
)


class Pool:
    """Predictions to draw from.

    Attributes:
        labels: uint8 [N], 1 is AI-generated.
        fresh: bool [N], photos to which nothing was fitted, the calibration neither: they judge estimates.
        tables: change -> the predictions of all photos so changed; None: unchanged.
        known: the unchanged ones as models/cifake/reference.npz holds them.
    """

    def __init__(self) -> None:
        sets = [load_images(DATASET / f"{name}.safetensors") for name in ("validation", "calibration")]
        images = np.concatenate([part.images[:] for part in sets])
        self.labels = np.concatenate([part.labels for part in sets])
        self.fresh = np.arange(len(self.labels)) < len(sets[0])
        detector = open_detector(MODEL)
        self.tables: dict[tuple[str, float] | None, Table] = {}
        for change in dict.fromkeys(scenario.change for scenario in SCENARIOS):
            pixels = images if change is None else CHANGES[change[0]][0](images, change[1])
            data = ImageSet(pixels, self.labels, {})
            scored = score(detector, data, "unchanged" if change is None else f"{change[0]} {change[1]:g}")
            arrays = {"probability": scored.probability, "distance": scored.ood_score}
            arrays |= {"embedding": scored.embedding} | statistics(pixels)
            self.tables[change] = from_arrays(arrays)
            if change is None:
                self.known = from_arrays({name: values.round(5).astype(np.float32) for name, values in arrays.items()})

    def draw(self, scenario: Scenario, rng: np.random.Generator, windows: int) -> tuple[list[Any], Any]:
        """Return the rows of some disjoint windows, and of their reference."""
        order = rng.permutation(len(self.labels))
        if scenario.ai_share is None:
            parts = np.split(order, scenario.size * np.arange(1, windows + 1))
            return parts[:-1], parts[-1][: scenario.known]
        generated, real = order[self.labels[order] == 1], order[self.labels[order] == 0]
        count = rng.binomial(scenario.size, scenario.ai_share)
        window = np.concatenate([generated[:count], real[: scenario.size - count]])
        generated, real = generated[count:], real[scenario.size - count :]
        share = 0.5 if scenario.known_share is None else scenario.known_share
        whole = int(min(len(generated) / share, len(real) / (1 - share)))
        count = rng.binomial(whole, share) if scenario.known_share is not None else whole // 2
        return [window], np.concatenate([generated[:count], real[: whole - count]])


def run(scenario: Scenario, pool: Pool, seed: int) -> list[tuple[bool, float, float, bool]]:
    """Look at some windows with one reference.

    Returns:
        For each whether it alarms; and of its `fresh` photos the estimated and the true accuracy, and whether the one's
        interval holds the other.
    """
    rng = np.random.default_rng(seed)
    together = STREAM if scenario.name == "unchanged" and (STREAM + 1) * scenario.size < len(pool.labels) / 2 else 1
    windows, reference = pool.draw(scenario, rng, together)
    known = take(pool.known, reference)
    found = []
    for rows in windows:
        window = take(pool.tables[scenario.change], rows)
        alarm = any(column.drifted for column in compare(window, known))
        fresh = pool.fresh[rows]
        probability = window["probability"][fresh]
        right = float(((probability >= 0.5) == (pool.labels[rows][fresh] == 1)).mean())
        estimate, low, high = estimated_accuracy(probability)
        found.append((alarm, estimate, right, low <= right <= high))
    return found


_pool: Pool | None = None


def _start(pool: Pool) -> None:
    global _pool  # noqa: PLW0603 - a process of the executor has no other way to keep it
    _pool = pool


def _run(job: tuple[Scenario, int]) -> list[tuple[bool, float, float, bool]]:
    assert _pool is not None  # noqa: S101 - `_start` set it
    return run(job[0], _pool, job[1])


def rate(scenario: Scenario, executor: ProcessPoolExecutor, pool: Pool) -> dict[str, Any]:
    """Return a scenario's row of the report."""
    step = len(run(scenario, pool, 0))
    jobs = [(scenario, seed) for seed in range(math.ceil(scenario.windows / step))]
    bar = tqdm(
        executor.map(_run, jobs, chunksize=20),
        total=len(jobs),
        desc=f"{scenario.name} {scenario.size}",
        mininterval=2,
    )
    streams = list(bar)
    found = [one for stream in streams for one in stream]
    alarms, estimates, truths, covered = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    errors = estimates - truths
    row = {
        "scenario": scenario.name,
        "n": scenario.size,
        "windows": len(found),
        "alarm_rate": round(float(alarms.mean()), 4),
        "estimated_accuracy": round(float(estimates.mean()), 4),
        "true_accuracy": round(float(truths.mean()), 4),
        "interval_coverage": round(float(covered.mean()), 4),
        "accuracy_error_mean": round(float(errors.mean()), 4),
        "accuracy_error_p95": round(float(np.percentile(np.abs(errors), 95)), 4),
    }
    if step > 1:
        pairs = [(first[0] and then[0]) for stream in streams for first, then in pairwise(stream)]
        # At most: the 95 % bound of a Poisson rate that gave as many (Garwood 1936).
        most = float(chi2.ppf(0.95, 2 * (sum(pairs) + 1))) / 2
        months = len(pairs) / CHECKS_A_MONTH
        row["pairs"] = len(pairs)
        row["false_pages_per_30_days"] = round(sum(pairs) / months, 3)
        row["false_pages_per_30_days_at_most"] = round(most / months, 3)
    return row


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the share of windows that alarm over their size, a line a scenario."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["scenario"] for row in rows):
        points = [(row["n"], row["alarm_rate"]) for row in rows if row["scenario"] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color="black" if name == "unchanged" else None)
    axes.axhline(ALPHA, color="grey", linestyle=":", label=f"promised where nothing changed: {ALPHA:.0%}")
    axes.axhline(0.9, color="grey", linestyle="--", linewidth=0.8)
    axes.set(xscale="log", xlabel="predictions in the window", ylabel="share of windows that alarm", ylim=(-0.02, 1.02))
    axes.set_xticks(sorted({row["n"] for row in rows}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Write the report and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("reports/drift_power.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/drift_power.png"))
    arguments = parser.parse_args()
    pool = Pool()
    with ProcessPoolExecutor(initializer=_start, initargs=(pool,)) as executor:
        rows = [rate(scenario, executor, pool) for scenario in SCENARIOS]
    report = {
        "alpha": ALPHA,
        "photos": len(pool.labels),
        "model": open_detector(MODEL).version,
        "checks_in_30_days_at_most": CHECKS_A_MONTH,
        "rows": rows,
    }
    arguments.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    draw(rows, arguments.picture)
    print(
        f"{'scenario':16}{'n':>6}{'windows':>9}{'alarms':>9}{'estimated':>11}{'true':>8}{'false pages in 30 days':>25}"
    )
    for row in rows:
        pages = (
            f"{row['false_pages_per_30_days']:.2f} (95 %: {row['false_pages_per_30_days_at_most']:.2f})"
            if "pairs" in row
            else ""
        )
        print(
            f"{row['scenario']:16}{row['n']:6}{row['windows']:9}{row['alarm_rate']:9.4f}{row['estimated_accuracy']:11.4f}"
            f"{row['true_accuracy']:8.4f}{pages:>25}"
        )


if __name__ == "__main__":
    main()
