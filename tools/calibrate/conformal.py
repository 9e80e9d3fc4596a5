"""Thresholds with a promise, from real photos alone: split-conformal prediction, with products as what is exchangeable.

Photos of one product are alike, so a second one adds little to the first. Every product weighs the same, however many
photos it has, and it is products that are counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.95  # of `Limit.upper`
FEW = 20  # photos; so many are one product's where they lie in a folder of their own, as a listing has at most 20
_ROUNDING = 1e-9  # of sums of weights
_ROWS = 1024  # of hashes compared at a time


@dataclass(frozen=True)
class Limit:
    """What real photos like the given ones may exceed, and how often.

    Attributes:
        threshold: a photo is flagged above it.
        upper: with a probability of `CONFIDENCE` (over the choice of the given photos) at most this share of such
            photos lies above it.
    """

    threshold: float
    upper: float


def needed(alpha: float) -> int:
    """Return how many products it takes to promise that at most `alpha` of real photos are flagged."""
    return int(np.ceil(1 / alpha - 1 - _ROUNDING))


def limit(scores: Floats, products: Ints, alpha: float) -> Limit | None:
    """Return the least threshold that a photo of a new product exceeds with a probability of at most `alpha`.

    With one photo a product this is split-conformal prediction: the ceil((N + 1)(1 - alpha))-th smallest score (Vovk,
    Gammerman & Shafer 2005). With more it is its form for data in groups, where each product weighs the same (Lee,
    Barber & Willett 2023, "Distribution-free inference with hierarchical data"). The share above it that the given
    photos leave possible follows a beta distribution (Vovk 2012; Angelopoulos & Bates 2021, section 3.2).

    Args:
        scores: float64 [N], of real photos, exchangeable with those to come.
        products: int64 [N], the product of each.
        alpha: the share that may lie above, from 0 to 1.

    Returns:
        None where there are fewer products than `needed`.
    """
    count = len(np.unique(products))
    if count < needed(alpha):
        return None
    weight = weights_of(products)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # Weight of what lies above each score; photos with an equal score lie not above it.
    first = np.searchsorted(-ordered, -ordered, side="left")
    above = np.concatenate([[0.0], np.cumsum(weight[order])])[first]
    allowed = above <= alpha * (count + 1) - 1 + _ROUNDING
    threshold = ordered[allowed][-1]
    return Limit(float(threshold), upper_limit(float(above[allowed][-1]), count))


def weights_of(products: Ints) -> Floats:
    """Return the weight of each photo, float64 [N]: those of a product sum up to 1."""
    _, place, size = np.unique(products, return_inverse=True, return_counts=True)
    weights: Floats = 1 / size[place]
    return weights


def upper_limit(above: float, count: int) -> float:
    """Return which share of photos to come lies above a threshold at most, with a probability of `CONFIDENCE`.

    Args:
        above: how many of the given products lie above it; one of which some photos do counts in part.
        count: of all products.
    """
    return float(beta.ppf(CONFIDENCE, above + 1, count - above)) if above < count else 1.0


def groups_of(names: Sequence[str]) -> list[str]:
    """Return the group of each photo, '' for a photo of none.

    A group is the first folder of a path, where it holds folders or more than `FEW` photos: a smaller one is a product.
    """
    parts = [PurePosixPath(name).parts for name in names]
    size = Counter(part[0] for part in parts if len(part) > 1)
    deep = {part[0] for part in parts if len(part) > 2}
    return [part[0] if len(part) > 1 and (part[0] in deep or size[part[0]] > FEW) else "" for part in parts]


def products_of(names: Sequence[str], hashes: npt.NDArray[np.uint64], bits: int) -> Ints:
    """Return the product of each photo: int64 [N].

    Photos are of one product where they lie in the same folder and that is no group's, as in shoes/4711/front.jpg and
    boots-17/front.jpg, or where they look alike.

    Args:
        names: of N photos, from the folder that holds all of them.
        hashes: uint64 [N], perceptual hashes.
        bits: by so many of 64 the hashes of photos that look alike may differ.
    """
    first: dict[str, int] = {}
    links = []
    for row, (name, group) in enumerate(zip(names, groups_of(names), strict=True)):
        if str(PurePosixPath(name).parent) not in (".", group):
            links.append((row, first.setdefault(str(PurePosixPath(name).parent), row)))
    for start in range(0, len(hashes), _ROWS):
        near = np.bitwise_count(hashes[start : start + _ROWS, None] ^ hashes) <= bits
        links += [(start + int(one), int(other)) for one, other in np.argwhere(near)]
    rows, others = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, others)), (len(names), len(names)))
    _, found = connected_components(graph, directed=False)
    products: Ints = found.astype(np.int64)
    return products


def limits(scores: Floats, products: Ints, alphas: Sequence[float]) -> tuple[dict[float, Limit], dict[float, int]]:
    """Return a limit for each alpha, and of those that cannot be promised how many products it would take."""
    found = {alpha: limit(scores, products, alpha) for alpha in alphas}
    return (
        {alpha: each for alpha, each in found.items() if each is not None},
        {alpha: needed(alpha) for alpha, each in found.items() if each is None},
    )
