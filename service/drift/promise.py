"""Does feedback say that more real photos are flagged than was promised? docs/DRIFT.md tells how often it is wrong.

Reviewed photos are no random sample: moderators look at flagged photos first. So the share of flagged ones among those
that they called real says nothing. What is not biased is the log: it knows every photo, reviewed or not. A flagged
photo that was called real counts as one, and the photos that were not flagged are taken from the log, as many of them
as the share of the flagged photos that was reviewed. All of them count as real that nobody called AI-generated: too
many rather than too few, so that this raises no false alarm, whichever of them are reviewed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Literal

from service.log.prediction_log import PredictionLog, ReviewCounts, ThresholdsInForce
from service.models.card import Card
from service.models.decision import shift_prior
from service.models.shop import ShopCalibration
from service.schemas import DriftPromise

MINIMUM = 200  # photos called real; with fewer nothing is said
NEWEST = 1000  # photos called real that are tested
LOOK = 100  # labels between two looks; each look is another chance of a false alarm
LEVEL = 0.01  # of one test
OTHERS = 20  # reviewed photos that were not flagged; with fewer a promise is not said to hold

# A shop's bound is a 95 % limit, and its rate lies well below it. The released alpha has no such margin: there the
# looks that one photo takes part in share the level.
_LEVELS = {"shop": LEVEL, "released": LEVEL * LOOK / NEWEST}
REST = "rest"  # stands for the groups that were calibrated together


@dataclass(frozen=True)
class Promise:
    """What was promised of some photos.

    Attributes:
        calibration: whose thresholds it rests on.
        group: the shop's group, or `REST`; None: all photos.
        alpha: share of real photos that may be flagged.
        bound: the share that is tested.
        thresholds: which predictions it is about.
    """

    calibration: Literal["released", "shop"]
    group: str | None
    alpha: float
    bound: float
    thresholds: ThresholdsInForce


def promised(card: Card, shop: ShopCalibration | None, alpha: float, ai_prior: float) -> list[Promise]:
    """Return what is promised now; nothing where `alpha` is not calibrated.

    Args:
        card: the model's.
        shop: the shop's calibration of this model; None: it has none, and the card's thresholds decide.
        alpha: the share of real photos that may be flagged.
        ai_prior: the share of AI images that probabilities assume.
    """

    def one(group: str | None, groups: tuple[str | None, ...], bound: float, flag: float) -> Promise:
        moved = shift_prior(flag, ai_prior, card.calibration.prior_ai)
        whose: Literal["released", "shop"] = "released" if shop is None else "shop"
        return Promise(whose, group, alpha, bound, ThresholdsInForce(card.name, card.version, whose, groups, moved))

    if shop is None:
        flags = card.thresholds.flag
        return [one(None, (), alpha, flags[alpha])] if alpha in flags else []
    if alpha not in shop.shop.promises:
        return []
    parts = [(name, (name,)) for name in shop.groups] + [(REST, tuple(shop.small_groups))] * bool(shop.small_groups)
    found = [(part, names, shop.promises_at(names[0], alpha)) for part, names in parts]
    shared = tuple(name for _, names, promises in found if promises is shop.shop for name in names)
    whole = shop.shop.promises[alpha]
    return [
        one(None, (None, *shared), whole.upper, whole.flag),
        *(
            one(part, names, promises.promises[alpha].upper, promises.promises[alpha].flag)
            for part, names, promises in found
            if promises is not shop.shop
        ),
    ]


def stand_for(counts: ReviewCounts) -> int | None:
    """Return how many real photos the confirmed ones stand for, flagged or not.

    Where a part f / F of the flagged photos was reviewed, the same part of all others belongs to them; those that were
    called AI-generated are left out first. None: photos were flagged, and none of them was reviewed.
    """
    if counts.flagged and not counts.flagged_reviewed:
        return None
    part = counts.flagged_reviewed / counts.flagged if counts.flagged else 1.0
    others = counts.others - (counts.others_reviewed - counts.others_real)
    return counts.flagged_real + round(others * part)


def is_tested(counts: ReviewCounts) -> bool:
    """Tell whether there is enough feedback for a test."""
    return counts.flagged_real + counts.others_real >= MINIMUM and bool(stand_for(counts))


def p_value(counts: ReviewCounts, bound: float) -> float:
    """Return the p-value of the exact binomial test: is the share of flagged real photos above `bound`?

    Args:
        counts: that `is_tested`.
        bound: above 0 and below 1.
    """
    from scipy.special import bdtrc  # slow to import, and workers import this module

    return float(bdtrc(counts.flagged_real - 1, stand_for(counts) or 1, bound)) if counts.flagged_real else 1.0


def level(calibration: str, tests: int = 1) -> float:
    """Return the level of each of so many tests at one look (Bonferroni's rule)."""
    return _LEVELS[calibration] / max(1, tests)


def judged(promises: Sequence[Promise], counted: Sequence[ReviewCounts]) -> list[DriftPromise]:
    """Return what feedback says of each promise.

    Args:
        promises: those in force.
        counted: the counts of each.
    """
    tests = sum(map(is_tested, counted))
    return [_judged(promise, counts, tests) for promise, counts in zip(promises, counted, strict=True)]


def _judged(promise: Promise, counts: ReviewCounts, tests: int) -> DriftPromise:
    confirmed, real = counts.flagged_real + counts.others_real, stand_for(counts)
    found = p_value(counts, promise.bound) if is_tested(counts) else None
    holds, note = None, None
    if found is None:
        missing = f"{confirmed} of {MINIMUM} photos were called real"
        note = f"no flagged photo was reviewed, of {counts.flagged}" if confirmed >= MINIMUM else missing
    elif found < level(promise.calibration, tests):
        holds = False
    elif counts.others_reviewed < OTHERS:
        note = f"of the photos that were not flagged {counts.others_reviewed} were reviewed: {OTHERS} are needed"
    else:
        holds = True
    return DriftPromise(
        calibration=promise.calibration,
        group=promise.group,
        alpha=promise.alpha,
        bound=promise.bound,
        confirmed=confirmed,
        flagged=counts.flagged_real,
        stand_for=real,
        share=counts.flagged_real / real if real else None,
        p_value=found,
        level=level(promise.calibration, tests),
        holds=holds,
        since=counts.since and counts.since.replace(tzinfo=UTC),
        note=note,
    )


def worst(promises: Sequence[DriftPromise]) -> DriftPromise | None:
    """Return the promise that is furthest from holding; None: there is none."""
    return min(promises, key=lambda each: 2.0 if each.p_value is None else each.p_value, default=None)


def in_words(promise: DriftPromise, model: str) -> str:
    """Return the alert of a broken promise: the numbers, and the command that recalibrates."""
    whose = "the shop's calibration" if promise.calibration == "shop" else f"ALPHA={promise.alpha:g}"
    of = f" of {promise.group}" if promise.group else ""
    return (
        f"promise: {promise.share:.2%} of real photos{of} are flagged, and {whose} promises {promise.bound:.2%} at "
        f"most: {promise.flagged:,} of {promise.stand_for:,} since {promise.since:%Y-%m-%d}, by {promise.confirmed:,} "
        f"that were called real (p = {promise.p_value:.2g}). "
        f"Recalibrate: python -m tools.calibrate PHOTOS --model {model}"
    )


class Promises:
    """Looks at the promises of one model each time that moderators gave another `LOOK` labels."""

    def __init__(self, log: PredictionLog) -> None:
        """Remember the log; nothing is read yet."""
        self._log = log
        self._seen: tuple[tuple[int, list[Promise]], list[DriftPromise]] | None = None

    def look(self, card: Card, shop: ShopCalibration | None, alpha: float, ai_prior: float) -> list[DriftPromise]:
        """Return what feedback says of each promise; arguments as of `promised`.

        The log is counted where there are new labels, or other promises.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the prediction log cannot be read.
        """
        promises = promised(card, shop, alpha, ai_prior)
        until = self._log.newest_feedback() // LOOK * LOOK
        seen = self._seen
        if seen is None or seen[0] != (until, promises):
            counted = [self._log.review_counts(each.thresholds, until, NEWEST) for each in promises]
            seen = self._seen = (until, promises), judged(promises, counted)
        return seen[1]
