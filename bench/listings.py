"""What happens to listings, measured on sources from which nothing was learned.

python bench/listings.py [--reference models/photos/reference.npz] [--report reports/listings.json]

The reference holds what heads said about photos of sources that they never saw. Here the thresholds, too, are learned
anew without the sources they are tried on: real sources fall into five folds, five times, and each fold is judged by
the rule and the threshold of single photos that the other four give. Listings are drawn out of one source at a time,
without replacement, and judged by the very code of /predict/listing. Every source weighs the same, and confidence
limits count sources.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.models.card import Card, read_card
from service.models.decision import Thresholds, decide
from service.models.listing import Judge, ListingVerdict, Member, judge_listing, learn, log_ratio
from stages.common import StageError, run_command, write_json
from stages.frozen.dataset import PHOTOS, RENDER, read_rows
from stages.frozen.thresholds import robust_threshold
from stages.paths import ModelPaths

SIZES = (1, 2, 5, 10, 20)  # photos in a listing
COPIES = 20  # of one photo: the worst that dependence can do
CONFIDENCE = 0.6  # as params.yaml has it for the thresholds of single photos
LEAST = 0.005  # alpha: of less there are too few sources to tell
BINS = 10  # of the calibration


@dataclass(frozen=True)
class Photos:
    """Photos of one label.

    Attributes:
        probability: float64 [N], at the prior of the card.
        inside: bool [N], in domain.
        source: int64 [N].
    """

    probability: np.ndarray
    inside: np.ndarray
    source: np.ndarray

    def rows(self, sources: np.ndarray) -> dict[int, np.ndarray]:
        """Return the rows of each of these sources."""
        return {int(each): np.flatnonzero(self.source == each) for each in sources}


@dataclass(frozen=True)
class Fold:
    """What is judged by one rule: the rows, by source, of sources of which nothing was learned."""

    judge: Judge
    real: dict[int, np.ndarray]
    generated: dict[int, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes:
        alpha: the share of real listings that may be flagged.
        splits: times that the sources fall into folds.
        draws: listings of each source, size, kind and split.
        grouped: whether the rule is told the sources.
    """

    alpha: float
    splits: int
    draws: int
    grouped: bool = True


def sources_of(arrays: Mapping[str, np.ndarray], dataset: Path) -> np.ndarray:
    """Return the source of each photo of a reference, uint16 [N], out of the data set that it was made from.

    Raises:
        StageError: there is no data set, or another one.
    """
    rows = read_rows(dataset / PHOTOS)
    rows = rows.take(np.flatnonzero(rows.label != RENDER))
    same = len(rows) == len(arrays["label"]) and all(
        (mine == arrays[name]).all()
        for name, mine in (("label", rows.label), ("generator", rows.generator), ("source_photos", rows.of_source))
    )
    if not same:
        raise StageError(f"{dataset / PHOTOS} is not what the release was made from: run 'dvc repro preprocess@photos'")
    return np.unique(rows.source, return_inverse=True)[1].astype(np.uint16)


def photos_of(arrays: Mapping[str, np.ndarray], card: Card, label: int) -> Photos:
    """Return the photos of a label."""
    rows = np.flatnonzero(arrays["label"] == label)
    distance = arrays["ood_score"] if "ood_score" in arrays else arrays["distance"]
    inside = distance[rows] <= card.domain.threshold
    return Photos(arrays["probability"][rows].astype(float), inside, arrays["source"][rows].astype(np.int64))


def folds(real: Photos, generated: Photos, card: Card, plan: Plan) -> Iterator[Fold]:
    """Yield folds of sources, each with what the others teach."""
    rng = np.random.default_rng(0)
    names, others = np.unique(real.source), np.unique(generated.source)
    for _ in range(plan.splits):
        shuffled, mixed = rng.permutation(names), rng.permutation(others)
        for held, beside in zip(np.array_split(shuffled, 5), np.array_split(mixed, 5), strict=True):
            judge = taught(real, ~np.isin(real.source, held), card, plan)
            yield Fold(judge, real.rows(held), generated.rows(beside))


def taught(real: Photos, rows: np.ndarray, card: Card, plan: Plan) -> Judge:
    """Return what these real photos teach: the threshold of single photos, and the rule."""
    scores = np.where(real.inside, real.probability, 0)[rows]
    flag = robust_threshold(scores, real.source[rows].astype(str), plan.alpha, CONFIDENCE)["threshold"]
    known, prior = rows & real.inside, card.calibration.prior_ai
    _, place, size = np.unique(real.source[known], return_inverse=True, return_counts=True)
    rule = learn(
        log_ratio(real.probability[known], prior),
        real.source[known] if plan.grouped else None,
        1 / size[place],
        float(log_ratio(flag, prior)),
        plan.alpha,
    )
    return Judge(rule, Thresholds(flag, card.thresholds.clear), prior)


def judged(judge: Judge, photos: Sequence[tuple[Photos, int]], alpha: float) -> ListingVerdict:
    """Return the verdict on a listing of these rows."""
    members = []
    for place, (of, row) in enumerate(photos):
        probability, inside = float(of.probability[row]), bool(of.inside[row])
        decision = decide(probability, inside, judge.thresholds)
        members.append(Member(place, probability, inside, decision, "pixels", judge))
    return judge_listing(members, alpha)


class Shares:
    """Shares of listings by source: each source weighs the same."""

    def __init__(self) -> None:
        self._of: dict[int, list[float]] = {}

    def add(self, source: int, value: float) -> None:
        """Add a listing of a source."""
        self._of.setdefault(source, []).append(value)

    @property
    def means(self) -> dict[int, float]:
        """Of each source."""
        return {source: float(np.mean(values)) for source, values in self._of.items() if values}

    def share(self, sources: set[int] | None = None) -> float:
        """Return the mean of all sources, or of some."""
        return float(np.mean([each for source, each in self.means.items() if sources is None or source in sources]))

    def limits(self) -> tuple[float, float]:
        """Return 95 % limits with sources as trials (Clopper & Pearson 1934); one flagged in part counts in part."""
        trials = len(self.means)
        count = sum(self.means.values())
        low = float(beta.ppf(0.025, count, trials - count + 1)) if count > 0 else 0.0
        high = float(beta.ppf(0.975, count + 1, trials - count)) if count < trials else 1.0
        return low, high


def ratio(few: Shares, many: Shares, sources: set[int]) -> dict[str, Any]:
    """Return how many times as large a share is, on the same sources, with 95 % limits by drawing sources again."""
    names = sorted(sources)
    one, other = (np.array([shares.means[name] for name in names]) for shares in (few, many))
    drawn = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    low, high = np.quantile(other[drawn].mean(1) / one[drawn].mean(1), [0.025, 0.975])
    return {
        "sources": len(names),
        "of_one": float(one.mean()),
        "of_five": float(other.mean()),
        "ratio": float(other.mean() / one.mean()),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "largest_possible": float(1 / one.mean()),
    }


def calibration_error(weighted: Sequence[tuple[float, float, int]]) -> float:
    """Return the expected calibration error of (probability, weight, 1 = not all real), in equal bins."""
    probability, weight, truth = (np.array(column) for column in zip(*weighted, strict=True))
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(((probability - truth) * weight)[place == each].sum()) for each in range(BINS) if (place == each).any()]
    return float(sum(gaps) / weight.sum())


class Bench:
    """Draws listings, has them judged, and keeps what was said.

    Attributes:
        found: size -> what is counted -> shares.
        copies: shares of flagged listings of one real photo, `COPIES` times.
        said: size -> (probability, weight, 1 = not all real) of each listing with a photo in domain.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], card: Card, plan: Plan) -> None:
        self.plan = plan
        self.real, self.generated = photos_of(arrays, card, 0), photos_of(arrays, card, 1)
        self._rng = np.random.default_rng(1)
        names = ("real", "real_cleared", "all", "all_cleared", "one", "one_cleared", "named", "first")
        self.found = {size: {name: Shares() for name in names} for size in SIZES}
        self.copies = Shares()
        self.said: dict[int, list[tuple[float, float, int]]] = {size: [] for size in SIZES}
        parts = 5 * plan.splits
        for fold in tqdm(folds(self.real, self.generated, card, plan), f"alpha {plan.alpha:g}", parts, mininterval=5):
            for size in SIZES:
                self._of_one_source(size, "real", self.real, fold)
                self._of_one_source(size, "all", self.generated, fold)
                self._with_one_generated(size, fold)
            self._of_copies(fold)

    def _of_one_source(self, size: int, kind: str, photos: Photos, fold: Fold) -> None:
        by_source = fold.real if kind == "real" else fold.generated
        truth, weight = (0, 0.5) if kind == "real" else (1, 0.25)
        for source, rows in by_source.items():
            if len(rows) < size:
                continue
            for _ in range(self.plan.draws):
                drawn = self._rng.choice(rows, size, replace=False)
                verdict = judged(fold.judge, [(photos, row) for row in drawn], self.plan.alpha)
                self._keep(size, kind, source, verdict)
                self._keep_probability(size, verdict, weight / len(by_source), truth)

    def _with_one_generated(self, size: int, fold: Fold) -> None:
        """Put an AI image among the real photos of a source, at any place."""
        large = [rows for rows in fold.real.values() if len(rows) >= size - 1]
        for source, rows in fold.generated.items():
            for _ in range(self.plan.draws):
                place, of_shop = int(self._rng.integers(size)), large[self._rng.integers(len(large))]
                listing = [(self.real, row) for row in self._rng.choice(of_shop, size - 1, replace=False)]
                listing.insert(place, (self.generated, int(self._rng.choice(rows))))
                verdict = judged(fold.judge, listing, self.plan.alpha)
                self._keep(size, "one", source, verdict)
                self._keep_probability(size, verdict, 0.25 / len(fold.generated), 1)
                if verdict.decision == "flag":
                    self.found[size]["named"].add(source, verdict.carried_by == [place])
                    self.found[size]["first"].add(source, verdict.carried_by[0] == place)

    def _of_copies(self, fold: Fold) -> None:
        for source, rows in fold.real.items():
            for row in self._rng.choice(rows, min(self.plan.draws, len(rows)), replace=False):
                verdict = judged(fold.judge, [(self.real, row)] * COPIES, self.plan.alpha)
                self.copies.add(source, verdict.decision == "flag")

    def _keep(self, size: int, kind: str, source: int, verdict: ListingVerdict) -> None:
        self.found[size][kind].add(source, verdict.decision == "flag")
        self.found[size][f"{kind}_cleared"].add(source, verdict.decision == "clear")

    def _keep_probability(self, size: int, verdict: ListingVerdict, weight: float, truth: int) -> None:
        if verdict.probability is not None:
            self.said[size].append((verdict.probability, weight, truth))

    def figures(self) -> dict[str, Any]:
        """Return all figures."""
        largest = set(self.found[SIZES[-1]]["all"].means)
        one, five = self.found[1]["all"], self.found[5]["all"]
        sizes = [(str(size), shares) for size, shares in self.found.items()]
        return {
            "alpha": self.plan.alpha,
            "real": {
                size: _false_positives(shares["real"], self.plan.alpha) | {"cleared": shares["real_cleared"].share()}
                for size, shares in sizes
            },
            "copies_of_one_photo": _false_positives(self.copies, self.plan.alpha),
            "all_generated": {
                size: {
                    "sources": len(shares["all"].means),
                    "recall": shares["all"].share(),
                    "recall_same_sources": shares["all"].share(largest),
                    "cleared": shares["all_cleared"].share(),
                }
                for size, shares in sizes
            },
            "five_against_one": {
                "sources_of_5_and_more": ratio(one, five, set(five.means)),
                "sources_of_20_and_more": ratio(one, five, largest),
            },
            "one_generated": {
                size: {
                    "sources": len(shares["one"].means),
                    "recall": shares["one"].share(),
                    "named_exactly": shares["named"].share(),
                    "named_first": shares["first"].share(),
                    "cleared": shares["one_cleared"].share(),
                }
                for size, shares in sizes
            },
            "calibration_error": {str(size): calibration_error(weighted) for size, weighted in self.said.items()},
        }


def _false_positives(shares: Shares, alpha: float) -> dict[str, Any]:
    low, high = shares.limits()
    return {
        "sources": len(shares.means),
        "flagged": shares.share(),
        "low": low,
        "high": high,
        "within_chance_of_alpha": low <= alpha,
    }


def rounded(value: Any) -> Any:
    """Return a table with numbers of four decimals."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures of one alpha as lines of text."""
    lines = [f"alpha {figures['alpha']:g}: photos, real listings flagged (95 % limits), all AI, one AI, named exactly"]
    for size in map(str, SIZES):
        real, every, one = (figures[kind][size] for kind in ("real", "all_generated", "one_generated"))
        limits = f"({real['low']:.4f} to {real['high']:.4f}, {real['sources']} sources)"
        recall = f"{every['recall']:.3f}  {every['recall_same_sources']:.3f}"
        lines.append(
            f"{size:>4}  {real['flagged']:.4f} {limits}  {recall}  {one['recall']:.3f}  {one['named_exactly']:.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reference", type=Path, default=Path("models/photos/reference.npz"))
    parser.add_argument("--model", type=Path, default=Path("models/photos"), help="folder with the card")
    parser.add_argument("--report", type=Path, default=Path("reports/listings.json"))
    parser.add_argument("--splits", type=int, default=5, help="times that the sources fall into five folds")
    parser.add_argument("--draws", type=int, default=20, help="listings of each source, size, kind and split")
    options = parser.parse_args()
    card = read_card(options.model)
    with np.load(options.reference, allow_pickle=False) as stored:
        arrays: dict[str, np.ndarray] = {name: stored[name] for name in stored.files}
    if "source" not in arrays:  # a release of before references had it
        arrays["source"] = sources_of(arrays, ModelPaths(card.name).dataset)

    def at(alpha: float, **more: bool) -> dict[str, Any]:
        figures = Bench(arrays, card, Plan(alpha, options.splits, options.draws, **more)).figures()
        print(table(figures), flush=True)
        return figures

    report = {
        "model": card.name,
        "version": card.version,
        "real": {"photos": int((arrays["label"] == 0).sum())},
        "generated": {"photos": int((arrays["label"] == 1).sum())},
        "splits": options.splits,
        "draws": options.draws,
        "by_alpha": {f"{alpha:g}": at(alpha) for alpha in sorted(card.thresholds.flag, reverse=True) if alpha >= LEAST},
        "without_sources": at(0.01, grouped=False),
    }
    write_json(options.report, rounded(report))


if __name__ == "__main__":
    run_command(main)
