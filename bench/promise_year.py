"""False alarms and power of the test of promises, over simulated years, through the very functions of /drift.

python bench/promise_year.py [--years 200] [--report reports/promise_year.json]

A year begins with a new calibration. Photos come at random, AI images among them, and moderators review some, so many
that 50 real photos are confirmed a day. A look is made whenever `LOOK` more labels are in. No service and no log: those
are tested in tests/service/test_promise.py.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binom, chi2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.drift.promise import LOOK, MINIMUM, NEWEST, is_tested, level, p_value, stand_for
from service.log.prediction_log import ReviewCounts
from tools.calibrate.conformal import upper_limit

Ints = npt.NDArray[np.int64]

ALPHAS = (0.01, 0.02, 0.05)
PRODUCTS = 300  # that a shop calibrates with
A_DAY = 50  # real photos confirmed
STEP = 10  # confirmed reals: time passes in steps of so many
AI_SHARE, AI_FLAGGED = 0.02, 0.5  # of the traffic, and of the AI images
MORE = 10  # times as many years of the released promises: their alarms are rare, and decide
RUNS = 500  # of each figure of power
POWER = 0.9
SEED = 20261130


@dataclass(frozen=True)
class Moderator:
    """Whom moderators review: which part of the flagged photos, and of all others."""

    name: str
    flagged: float
    others: float


MODERATORS = (
    Moderator("flagged_first", 1.0, 0.02),
    Moderator("by_lot", 0.05, 0.05),
    Moderator("everything", 1.0, 1.0),
    Moderator("flagged_only", 1.0, 0.0),
)


@dataclass(frozen=True)
class Promised:
    """A promise: whose, of which alpha, and the bound that is tested."""

    calibration: str
    alpha: float
    bound: float


def promises() -> Iterator[Promised]:
    """Yield those of a shop with `PRODUCTS`, and those of the model."""
    for alpha in ALPHAS:
        yield Promised("shop", alpha, upper_limit(_above(alpha), PRODUCTS))
    for alpha in ALPHAS:
        yield Promised("released", alpha, alpha)


def _above(alpha: float) -> int:
    """Return how many of the calibration's products lie above its threshold, as `tools.calibrate` chooses it."""
    return int(alpha * (PRODUCTS + 1) - 1 + 1e-9)


def traffic(rates: npt.NDArray[np.float64], who: Moderator, usual: float, rng: np.random.Generator) -> Ints:
    """Return the counts of each step as `ReviewCounts` has them, int64 [steps, 6].

    Args:
        rates: float64 [steps], the share of real photos that is flagged.
        who: reviews.
        usual: the rate at which a step holds `STEP` confirmed reals; it says how many photos come.
        rng: random numbers.
    """
    real = STEP / (usual * who.flagged + (1 - usual) * who.others)
    generated = real * AI_SHARE / (1 - AI_SHARE)
    columns = []
    for real_part, generated_part, reviewed in (
        (rates, np.full_like(rates, AI_FLAGGED), who.flagged),
        (1 - rates, np.full_like(rates, 1 - AI_FLAGGED), who.others),
    ):
        seen = [rng.poisson(real * real_part * reviewed), rng.poisson(generated * generated_part * reviewed)]
        unseen = rng.poisson((real * real_part + generated * generated_part) * (1 - reviewed))
        columns += [sum(seen) + unseen, sum(seen), seen[0]]
    return np.stack(columns, axis=1)


def looks(steps: Ints, promise: Promised) -> Iterator[tuple[int, int, bool]]:
    """Yield of each look when it was, in steps and in confirmed reals since the beginning, and whether it alarms."""
    total = np.vstack([np.zeros(6, np.int64), steps.cumsum(axis=0)])
    labels, confirmed = total[:, 1] + total[:, 4], total[:, 2] + total[:, 5]
    for end in 1 + np.flatnonzero(labels[1:] // LOOK > labels[:-1] // LOOK):
        begin = max(0, int(np.searchsorted(confirmed, confirmed[end] - NEWEST, side="right")) - 1)
        counts = ReviewCounts(*map(int, total[end] - total[begin]))
        yield int(end), int(confirmed[end]), alarms(counts, promise)


def alarms(counts: ReviewCounts, promise: Promised) -> bool:
    """Tell whether a look alarms. Where the share is not above the bound there is no need to compute how little."""
    if not is_tested(counts) or counts.flagged_real <= promise.bound * (stand_for(counts) or 1):
        return False
    return p_value(counts, promise.bound) < level(promise.calibration)


def false_alarms(promise: Promised, who: Moderator, rate: float | None, years: int, seed: int) -> int:
    """Return how often an alarm began in so many years at one rate; None: at one that the calibration left possible.

    Then each year has the rate of another calibration, of those that keep their promise.
    """
    rng = np.random.default_rng((SEED, seed))
    begun = 0
    for _ in range(years):
        truth = rate
        while truth is None:
            drawn = float(beta.rvs(_above(promise.alpha) + 1, PRODUCTS - _above(promise.alpha), random_state=rng))
            truth = drawn if drawn <= promise.bound else None
        steps = traffic(np.full(365 * A_DAY // STEP, truth), who, truth, rng)
        states = [False, *(alarm for *_, alarm in looks(steps, promise))]
        begun += sum(now and not before for before, now in pairwise(states))
    return begun


def found(promise: Promised, who: Moderator, seed: int, *, before: int, within: int = NEWEST) -> float:
    """Return how often a doubled bound is found within so many confirmed reals.

    Args:
        promise: that is broken.
        who: reviews.
        seed: of random numbers.
        before: confirmed reals, about, that come at the rate alpha before; 0: the calibration never held.
        within: confirmed reals.
    """
    rng = np.random.default_rng((SEED, seed))
    hits = 0
    for _ in range(RUNS):
        calm = before // STEP + int(rng.integers(LOOK)) * bool(before)
        rates = np.concatenate([np.full(calm, promise.alpha), np.full(2 * within // STEP, 2 * promise.bound)])
        steps = traffic(rates, who, promise.alpha, rng)
        since = int(steps[:calm, 2].sum() + steps[:calm, 5].sum())
        hits += any(alarm and end > calm and at - since <= within for end, at, alarm in looks(steps, promise))
    return hits / RUNS


def needed(promise: Promised) -> int:
    """Return how many real photos one test needs to find a doubled bound with `POWER`, all of them reviewed."""
    numbers = np.arange(MINIMUM, 20_000)
    least = binom.isf(level(promise.calibration), numbers, promise.bound) + 1
    power = binom.sf(least - 1, numbers, min(1.0, 2 * promise.bound))
    return int(numbers[np.flatnonzero(power < POWER)[-1] + 1])


def rate_of(events: int, years: int) -> dict[str, float | int]:
    """Return a rate a year, and its 95 % limit: that of a Poisson rate that gave as many (Garwood 1936)."""
    most = float(chi2.ppf(0.95, 2 * (events + 1))) / 2
    return {"years": years, "alarms": events, "a_year": round(events / years, 4), "at_most": round(most / years, 4)}


def row(task: tuple[int, Promised, Moderator, int]) -> dict[str, Any]:
    """Return the figures of one promise and one moderator."""
    seed, promise, who, years = task
    if promise.calibration == "released":
        years *= MORE
    rates = {"at_alpha": promise.alpha, "at_bound": promise.bound}
    if promise.calibration == "shop":
        rates["over_calibrations"] = None
    else:
        del rates["at_bound"]  # alpha is the bound
    return {
        "calibration": promise.calibration,
        "alpha": promise.alpha,
        "bound": round(promise.bound, 5),
        "moderator": who.name,
        "false_alarms": {
            name: rate_of(false_alarms(promise, who, rate, years, 10 * seed + place), years)
            for place, (name, rate) in enumerate(rates.items())
        },
        "found_from_the_start": found(promise, who, 10 * seed + 5, before=0),
        "found_after_a_change": found(promise, who, 10 * seed + 6, before=2 * NEWEST),
    }


def main() -> None:
    """Write the report and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--years",
        type=int,
        default=200,
        help="of each rate, promise and moderator; of the released promises ten times as many",
    )
    parser.add_argument("--report", type=Path, default=Path("reports/promise_year.json"))
    arguments = parser.parse_args()
    pairs = [(seed, *pair, arguments.years) for seed, pair in enumerate(product(promises(), MODERATORS))]
    with ProcessPoolExecutor() as executor:
        rows = list(executor.map(row, pairs))
    report = {
        "what": "tests of promises at simulated feedback: false alarms a year, and doubled bounds that are found "
        f"within {NEWEST} confirmed reals",
        "confirmed_a_day": A_DAY,
        "ai_share": AI_SHARE,
        "ai_flagged": AI_FLAGGED,
        "products": PRODUCTS,
        "newest": NEWEST,
        "look": LOOK,
        "levels": {name: level(name) for name in ("shop", "released")},
        "moderators": {who.name: {"flagged": who.flagged, "others": who.others} for who in MODERATORS},
        "runs": RUNS,
        "needed": [
            {"calibration": one.calibration, "alpha": one.alpha, "bound": round(one.bound, 5), "reals": needed(one)}
            for one in promises()
        ],
        "rows": rows,
    }
    arguments.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for one in rows:
        alarms_a_year = ", ".join(
            f"{name} {each['a_year']:.3f} (at most {each['at_most']:.3f})" for name, each in one["false_alarms"].items()
        )
        print(
            f"{one['calibration']:9}{one['alpha']:<6g}{one['moderator']:15}"
            f"found {one['found_from_the_start']:.3f} {one['found_after_a_change']:.3f}; {alarms_a_year}"
        )


if __name__ == "__main__":
    main()
