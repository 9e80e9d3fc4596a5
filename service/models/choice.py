"""Which model answers for a photo: a pure function of the models' cards."""

import math
from collections.abc import Mapping

from service.models.card import Card, Geometry


def choose(cards: Mapping[str, Card], width: int, height: int) -> str:
    """Return the name of the model that answers for a photo: the one that knows its size, else the nearest one.

    Near is what differs least in the logarithms of width and height; of two that are as near, the first by name.

    Args:
        cards: by name, at least one.
        width: of the upright photo, in pixels.
        height: likewise.
    """

    def away(name: str) -> tuple[float, str]:
        known = cards[name].domain.geometry
        across = _gap(width, known.min_width, known.max_width)
        return math.hypot(across, _gap(height, known.min_height, known.max_height)), name

    return min(cards, key=away)


def _gap(side: int, least: int, most: int) -> float:
    """Return how far a side is from a range, as a difference of logarithms; 0: inside."""
    return math.log(max(least / side, side / most, 1))


def overlap(one: Geometry, other: Geometry) -> bool:
    """Tell whether there is a size of photo that both know."""
    return (
        max(one.min_width, other.min_width) <= min(one.max_width, other.max_width)
        and max(one.min_height, other.min_height) <= min(one.max_height, other.max_height)
    )  # fmt: skip
