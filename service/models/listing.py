"""One answer for all photos of a listing, of whose real ones at most a share alpha is flagged: pure functions.

Photos of one listing are alike, real or not: a shop has its light, its camera, its way. So a listing of ten photos is
worth less than ten listings of one. How much less is learned from a model's `reference.npz`, whose photos say which
source (shop, catalogue, repository) they are of and were judged by heads that never saw it.

Three things may be true of a listing: all its photos are real; all are AI-generated; one is AI-generated, the others
real. With z the log-likelihood ratio of each photo (the logit of its calibrated probability, at equal shares of both
labels), what speaks for either of the last two against the first is

    all   mean(z) * n / (1 + (n - 1) * rho)     rho: intraclass correlation of real photos of one source
    one   log(mean(exp(z + c)))                 c: what the other photos say about the real photos of this listing

The first factor is the effective number of equally correlated observations (Kish 1965, "Survey Sampling", section 8.2).
c is log p(z) - log p(z | the others) of a normal model with a mean for each source (Searle, Casella & McCulloch 1992,
"Variance Components", section 3.4): a photo that would be usual elsewhere is unusual among photos that are all surely
real. For one photo all of this is z. `evidence` gives both hypotheses the same weight: that is the probability that is
told. `score`, which decides, gives them those at which both kinds of listings were found well on the evaluation set of
`photos`; whatever they are, its threshold for n photos comes from listings of real photos, as `learn` says.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from service.models.card import REFERENCE, Card
from service.models.decision import DecidedBy, Decision, Thresholds, decide

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 20  # photos whose dependence is learned; a larger listing is judged in parts
_FEW = 20  # sources that it takes to learn from
_DRAWS = 40  # listings drawn from each source
_RESAMPLES = 120  # of sources
_CONFIDENCE = 0.7  # share of them in which a threshold keeps its alpha; 0.6 for single photos, of which there are more
_TAIL = 0.2  # share of the largest scores, beyond which no threshold lies
_CERTAIN = 1e-5  # a probability is taken to be this far from 0 and 1: references have five decimals
_EVERY = 0.5  # log-weight of the hypothesis that all photos are AI-generated, in `score`
_ONE = 0.5  # that of the other one, times log(n): the more photos, the more places for one AI image
_NUDGE = 2.0  # what the other photos may add to one, at most: the normal model's tails are too light to be believed


@dataclass(frozen=True)
class Dependence:
    """How real photos of one source depend on each other: a normal model of their log-likelihood ratios.

    Attributes:
        mean: of all sources, each with the same weight.
        between: variance of the sources' means.
        within: variance of photos around the mean of their source.
    """

    mean: float
    between: float
    within: float

    @property
    def correlation(self) -> float:
        """Of two photos of one source (intraclass correlation), 0 to 1."""
        return self.between / (self.between + self.within)


@dataclass(frozen=True, eq=False)
class Rule:
    """What a model's listings are judged by.

    Attributes:
        flag: the card's threshold of single photos, as a log-likelihood ratio.
        dependence: None: not known, because the reference has no sources. Then the largest photo alone decides.
        extra: float64 [MOST, M]: how much larger than `flag` the score of n photos must be, at [k - 1, n - 1], where a
            listing is judged in k parts, each at alpha / k. Parts have M photos at most.
        note: what a client should know, in words; None: nothing.
    """

    flag: float
    dependence: Dependence | None
    extra: Floats
    note: str | None = None


@dataclass(frozen=True)
class Judge:
    """A model in force: its rule, and the thresholds of single photos, which may be those of a shop.

    Attributes:
        rule: as `load_rule` gives it.
        thresholds: at `ai_prior`.
        ai_prior: the share of AI images that probabilities assume; of listings, the share that is not all real.
    """

    rule: Rule
    thresholds: Thresholds
    ai_prior: float


@dataclass(frozen=True)
class Member:
    """A photo of a listing, and what was said of it alone.

    Attributes:
        place: in the listing, from 0.
        probability: P(AI-generated) at the judge's `ai_prior`.
        in_domain: whether the model knows such photos.
        decision: of it alone.
        decided_by: likewise.
        judge: who said so.
    """

    place: int
    probability: float
    in_domain: bool
    decision: Decision
    decided_by: DecidedBy
    judge: Judge


class ListingVerdict(BaseModel):
    """What is said about one listing."""

    model_config = ConfigDict(protected_namespaces=())

    decision: Decision = Field(
        description="flag: at most a share `alpha` of real listings gets here, however many photos they have; clear: "
        "each photo is clear by itself; review: everything else, and no photo could be read"
    )
    decided_by: DecidedBy = Field(
        description="pixels, or what turned their decision: a photo's credential or mark, as of one photo"
    )
    probability: float | None = Field(
        ge=0,
        le=1,
        description="P(not all photos are real), if a share AI_PRIOR of listings is so: in half of those all photos "
        "are AI-generated, in half of them one is. Of photos in domain; null: there is none. Of one photo its own",
    )
    carried_by: list[int] = Field(
        description="places, from 0, the most suspicious first: without these photos the listing would not be flagged "
        "(flag), or would be clear (review)"
    )
    photos: int = Field(ge=0, description="that could be read; the same photo twice counts once")
    in_domain: int = Field(ge=0, description="of them; only these can flag a listing by their pixels")
    alpha: float = Field(description="share of real listings that may be flagged: of listings, not of photos")
    notes: list[str] = Field(default=[], description="what else to know, such as that the model knows no dependence")


def evidence(ratios: Floats, dependence: Dependence | None) -> Floats:
    """Return the log-likelihood ratio of listings: not all photos real, against all real.

    Args:
        ratios: float64 [..., n], log-likelihood ratios of their photos.
        dependence: of real photos; None: not known, and photos are taken to say the same thing n times.

    Returns:
        float64 [...].
    """
    every, one = _hypotheses(ratios, dependence)
    total: Floats = np.logaddexp(every, one) - np.log(2)
    return total


def score(ratios: Floats, dependence: Dependence | None) -> Floats:
    """Return what is compared with a threshold, float64 [...]; arguments as of `evidence`.

    Where dependence is not known it is the largest ratio.
    """
    count = ratios.shape[-1]
    if dependence is None or count == 1:
        largest: Floats = ratios.max(-1)
        return largest
    every, one = _hypotheses(ratios, dependence)
    total: Floats = np.logaddexp(every + _EVERY, one + _ONE * np.log(count)) - np.log(2)
    return total


def _hypotheses(ratios: Floats, dependence: Dependence | None) -> tuple[Floats, Floats]:
    """Return what speaks for a listing all of AI images, and for one with one of them, against all real."""
    count = ratios.shape[-1]
    mean = ratios.mean(-1)
    if dependence is None or count == 1:
        every, single = mean, ratios
    else:
        every = mean * (count / (1 + (count - 1) * dependence.correlation))
        single = ratios + np.clip(_surprise(ratios, dependence), -_NUDGE, _NUDGE)
    largest = single.max(-1)
    return every, np.log(np.exp(single - largest[..., None]).mean(-1)) + largest


def _surprise(ratios: Floats, dependence: Dependence) -> Floats:
    """Return log p(z) - log p(z | the others) of each photo, if all are real: float64 [..., n], n at least 2."""
    others = ratios.shape[-1] - 1
    mean_of_others = (ratios.sum(-1, keepdims=True) - ratios) / others
    trust = dependence.between / (dependence.between + dependence.within / others)
    expected = dependence.mean + trust * (mean_of_others - dependence.mean)
    total = dependence.between + dependence.within
    left = dependence.within + dependence.between * (1 - trust)
    surprise: Floats = (
        (ratios - expected) ** 2 / left - (ratios - dependence.mean) ** 2 / total + np.log(left / total)
    ) / 2
    return surprise


def learn_dependence(ratios: Floats, sources: Ints) -> Dependence | None:
    """Estimate how real photos of one source depend on each other, each source with the same weight.

    The estimators are those of a one-way analysis of variance for groups of unequal size, unweighted (Searle, Casella &
    McCulloch 1992, section 3.6).

    Args:
        ratios: float64 [N], log-likelihood ratios of real photos in domain.
        sources: int64 [N].

    Returns:
        None: fewer than 20 sources have two photos and more, or all photos have the same ratio.
    """
    groups = [ratios[sources == source] for source in np.unique(sources)]
    several = [group for group in groups if len(group) > 1]
    if len(several) < _FEW:
        return None
    variances = np.array([group.var(ddof=1) for group in several])
    means = np.array([group.mean() for group in several])
    within = float(variances.mean())
    if within == 0:
        return None
    between = float(means.var(ddof=1) - (variances / [len(group) for group in several]).mean())
    return Dependence(float(np.mean([group.mean() for group in groups])), max(between, 0.0), within)


def learn(ratios: Floats, sources: Ints | None, weights: Floats, flag: float, alpha: float) -> Rule:
    """Learn what it takes to flag a listing from real photos that were judged by heads that never saw their sources.

    Listings of n photos are drawn out of one source at a time, without replacement: so they are as dependent as a
    shop's photos, and more than those of listings that mix. Every source with n photos weighs the same. The threshold
    of n is the one that keeps alpha in a share 0.7 of draws of sources (bootstrap by clusters, Efron 1979), much as
    that of single photos. It is never below the threshold of fewer photos, and never below that of one: a listing takes
    at least as much evidence as a photo, also where there are too few sources to see it.

    Without sources nothing is known of dependence. Then the largest photo decides, at alpha / n (Bonferroni), which
    keeps alpha whatever the dependence is.

    What is learned are differences to the threshold of one photo. Where a shop has thresholds of its own, they carry
    over if its real photos are those of the reference but for a constant in log-likelihood ratios.

    Args:
        ratios: float64 [N], log-likelihood ratios of real photos in domain, N at least 1.
        sources: int64 [N]; None: not known.
        weights: float64 [N], of the photos, where sources are not known.
        flag: the threshold of single photos, likewise a log-likelihood ratio.
        alpha: the share of real listings that may be flagged.
    """
    dependence = None if sources is None else learn_dependence(ratios, sources)
    parts = np.arange(1, MOST + 1)
    if sources is None or dependence is None:
        order = np.argsort(-ratios, kind="stable")
        above = np.cumsum(weights[order]) / weights.sum()
        place = np.searchsorted(above, alpha / np.outer(parts, parts), side="right")
        limits = np.nextafter(ratios[order][np.minimum(place, len(order) - 1)], np.inf)
        note = "how photos of a listing depend on each other is not known of this model: the largest one decides"
    else:
        limits = _learned(ratios, sources, dependence, alpha / parts)
        note = None
    extra = np.maximum.accumulate(np.maximum(limits - flag, 0), axis=1)
    extra[0, 0] = 0  # one photo: its own threshold
    return Rule(flag, dependence, np.maximum.accumulate(extra, axis=0), note)


def _learned(ratios: Floats, sources: Ints, dependence: Dependence, alphas: Floats) -> Floats:
    """Return thresholds float64 [K, M] for K alphas and 1 to M photos; M is the most that enough sources have."""
    rng = np.random.default_rng(0)
    drawn = [
        rng.permuted(np.tile(ratios[sources == source], (_DRAWS, 1)), axis=1)[:, :MOST] for source in np.unique(sources)
    ]
    limits = []
    for count in range(1, MOST + 1):
        listings = [rows[:, :count] for rows in drawn if rows.shape[1] >= count]
        if len(listings) < _FEW:
            break
        limits.append(_robust_limits(score(np.stack(listings), dependence), alphas))
    return np.stack(limits, axis=1)


def _robust_limits(scores: Floats, alphas: Floats) -> Floats:
    """Return for each of K alphas the score from which on at most that share of listings lies, float64 [K].

    Args:
        scores: float64 [S, D], D listings of each of S sources.
        alphas: float64 [K], at most half of `_TAIL`.
    """
    count, draws = scores.shape
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[: int(np.ceil(_TAIL * flat.size))]
    weights = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    above = np.cumsum(weights[:, order // draws], axis=1) / flat.size
    place = np.stack([np.searchsorted(row, alphas, side="right") for row in above])
    found = flat[order][np.minimum(place, len(order) - 1)]
    limits: Floats = np.nextafter(np.quantile(found, _CONFIDENCE, axis=0), np.inf)
    return limits


def rule_of(arrays: Mapping[str, npt.NDArray[Any]], card: Card, alpha: float) -> Rule:
    """Learn the rule of a model from its reference.

    Args:
        arrays: of `reference.npz`: `label` and `probability` [N], `ood_score` (`distance` in older ones) [N]; `source`
            [N], the number of each photo's source, and `source_photos` [N], how many photos that has, where known.
        card: the model's.
        alpha: one of the levels in the card's `thresholds.flag`.

    Raises:
        KeyError: an array is missing.
        ValueError: no real photo is in domain.
    """
    distance = arrays["ood_score"] if "ood_score" in arrays else arrays["distance"]
    kept = (arrays["label"] == 0) & (distance <= card.domain.threshold)
    if not kept.any():
        raise ValueError("none of its real photos is in domain")
    size = arrays["source_photos"][kept].astype(np.float64) if "source_photos" in arrays else np.ones(int(kept.sum()))
    return learn(
        log_ratio(arrays["probability"][kept], card.calibration.prior_ai),
        arrays["source"][kept].astype(np.int64) if "source" in arrays else None,
        1 / size,
        flag_of(card, alpha),
        alpha,
    )


def load_rule(path: Path, card: Card, alpha: float) -> Rule:
    """Learn the rule of a model from the reference beside it.

    Where that is missing or damaged, several photos are never flagged together; the note says so.

    Args:
        path: the model's folder, or its ONNX file.
        card: the model's.
        alpha: one of the levels in the card's `thresholds.flag`.
    """
    file = (path if path.is_dir() else path.parent) / REFERENCE
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _READ if name in stored}
        return rule_of(arrays, card, alpha)
    except Exception as error:  # numpy and zipfile have many classes for a damaged file
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be used ({error})"
        extra = np.full((MOST, MOST), np.inf)
        extra[0, 0] = 0
        note = f"{REFERENCE} of {card.name} {why}: listings of several photos are not flagged by their pixels"
        return Rule(flag_of(card, alpha), None, extra, note)


_RANK: dict[Decision, int] = {"flag": 2, "review": 1, "clear": 0}
_READ = ("label", "probability", "ood_score", "distance", "source", "source_photos")


def flag_of(card: Card, alpha: float) -> float:
    """Return the card's threshold of single photos as a log-likelihood ratio."""
    return _logit(card.thresholds.flag[alpha]) - _logit(card.calibration.prior_ai)


def log_ratio(probability: npt.ArrayLike, prior: float) -> Floats:
    """Return log-likelihood ratios, AI-generated against real, of P(AI-generated) at a prior: float64, same shape."""
    clipped = np.clip(np.asarray(probability, np.float64), _CERTAIN, 1 - _CERTAIN)
    ratios: Floats = np.log(clipped / (1 - clipped)) - _logit(prior)
    return ratios


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-9), 1 - 1e-9)  # a shop's threshold may lie above 1: never
    return float(np.log(clipped / (1 - clipped)))


def distinct(members: Iterable[tuple[object, Member]]) -> tuple[list[Member], list[int]]:
    """Return each photo of a listing once, and the places of those that are there already.

    Of copies the one whose decision is the gravest counts, for one may carry a credential that the other lost, else the
    first.

    Args:
        members: each with what is equal for copies of one photo.
    """
    found: dict[object, Member] = {}
    repeated = []
    for key, member in members:
        before = found.get(key)
        if before is not None:
            repeated.append(member.place)
        if before is None or _RANK[member.decision] > _RANK[before.decision]:
            found[key] = member
    return list(found.values()), repeated


def judge_listing(members: Sequence[Member], alpha: float) -> ListingVerdict:
    """Turn what is said about the photos of a listing into what is said about the listing.

    Photos out of domain flag nothing and clear nothing: no promise covers them. Photos that different models answered,
    and those beyond 20, are judged in parts: the listing is flagged where one part is, each at its share of alpha.

    Args:
        members: its photos, each once, of any number.
        alpha: the share of real listings that may be flagged; that of the judges' thresholds.
    """
    decision, by, probability = _decided(members)
    ordered = sorted(members, key=lambda each: (-_RANK[each.decision], not each.in_domain, -each.probability))
    carried: list[Member] = []
    if decision == "review":
        carried = [each for each in ordered if each.decision != "clear"]
    elif decision == "flag":
        left = list(ordered)
        while left and _decided(left)[0] == "flag":
            carried.append(left.pop(0))
    notes = {each.judge.rule.note for each in members if each.judge.rule.note} if len(members) > 1 else set()
    return ListingVerdict(
        decision=decision,
        decided_by=by,
        probability=probability,
        carried_by=[each.place for each in carried],
        photos=len(members),
        in_domain=sum(each.in_domain for each in members),
        alpha=alpha,
        notes=sorted(notes),
    )


def _decided(members: Sequence[Member]) -> tuple[Decision, DecidedBy, float | None]:
    """Return a listing's decision, what made it, and its probability."""
    if len(members) == 1:
        (only,) = members
        return only.decision, only.decided_by, only.probability if only.in_domain else None
    parts = _parts([each for each in members if each.in_domain])
    judged = [_part(part, len(parts)) for part in parts]
    probability = max((each for each, _ in judged), default=None)
    alone = [decide(each.probability, each.in_domain, each.judge.thresholds) for each in members]
    by_pixels: Decision = "review"
    if any(flagged for _, flagged in judged):
        by_pixels = "flag"
    elif members and all(each == "clear" for each in alone):
        by_pixels = "clear"
    if any(each.decision == "flag" and each.decided_by == "credential" for each in members):
        return "flag", "pixels" if by_pixels == "flag" else "credential", probability
    if by_pixels == "clear":
        for each in members:
            if each.decision != "clear":
                return "review", each.decided_by, probability
    return by_pixels, "pixels", probability


def _parts(members: Sequence[Member]) -> list[list[Member]]:
    """Cut photos in domain into parts of one judge each, none larger than what that one knows."""
    by_judge: dict[Judge, list[Member]] = {}
    for each in sorted(members, key=lambda each: each.place):
        by_judge.setdefault(each.judge, []).append(each)
    return [
        some[start : start + most]
        for judge, some in by_judge.items()
        for most in (judge.rule.extra.shape[1],)
        for start in range(0, len(some), most)
    ]


def _part(members: Sequence[Member], parts: int) -> tuple[float, bool]:
    """Return the probability of a part, and whether it flags its listing, which has so many parts."""
    judge = members[0].judge
    rule = judge.rule
    if len(members) == parts == 1:  # to the last digit what is said of the photo
        probability = members[0].probability
        return probability, decide(probability, True, judge.thresholds) == "flag"
    ratios = log_ratio([each.probability for each in members], judge.ai_prior)
    # A shop's own threshold moves photos to where the card's is theirs, and the sum back.
    shift = _logit(judge.thresholds.flag) - _logit(judge.ai_prior) - rule.flag
    total = float(evidence(ratios - shift, rule.dependence)) + shift
    said = float(score(ratios - shift, rule.dependence)) + shift
    extra = rule.extra[parts - 1, len(members) - 1] if parts <= len(rule.extra) else np.inf
    probability = round(float(1 / (1 + np.exp(-(total + _logit(judge.ai_prior))))), 6)
    return probability, bool(said >= rule.flag + shift + extra and probability >= 0.5)
