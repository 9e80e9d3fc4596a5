"""A tiny labelled image set made from a seed: for tests and a first look without a network, never for a claim."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.data.image_sets import ImageSet, Spool, Uint8, content_order


_COPIES = {21: 1, 31: 1, 29: 1, 39: 9}  # row -> the row before that it repeats; generated, all


def synthetic_images(count: int, size: int, seed: int) -> ImageSet:
    """Return `count` images uint8 [count, size, size, 3] in two classes, with a `test` flag on one in five.

    Both classes are smooth colour fields with a bright disc; the "generated" ones carry a faint checkerboard, the
    trace that upsampling layers leave (Odena et al. 2016, doi 10.23915/distill.00003). A few images are repeated,
    some across train and test, so that the handling of duplicates and leaks is exercised too.
    """
    return ImageSet(np.stack(list(_photos(count, size, seed))), *_columns(count))


def synthetic_set(count: int, size: int, seed: int, folder: Path) -> ImageSet:
    """Return `synthetic_images` in the order of their digests; they lie in an unnamed file in `folder`."""
    spool = Spool(folder)
    for photo in _photos(count, size, seed):
        spool.add(photo)
    labels, flags = _columns(count)
    return ImageSet(spool.images(), labels, flags).take(content_order(spool.digests, labels, flags["test"]))


def _columns(count: int) -> tuple[Uint8, dict[str, Uint8]]:
    rows = np.arange(count)
    return (rows % 2).astype(np.uint8), {"test": (rows % 10 >= 8).astype(np.uint8)}


def _photos(count: int, size: int, seed: int) -> Iterator[Uint8]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    checkerboard = 1.0 - 2.0 * (np.indices((size, size)).sum(0) % 2)
    kept: dict[int, Uint8] = {}
    for row in range(count):
        corner, slope, disc = rng.uniform(60, 160, 3), rng.uniform(-60, 60, (2, 3)), rng.uniform(-60, 60, 3)
        centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3)
        field = corner + x[..., None] * slope[0] + y[..., None] * slope[1]
        field += ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)[..., None] * disc
        field += rng.normal(0, 6, field.shape)
        if row % 2:
            field += 10 * checkerboard[..., None]
        photo = field.round().clip(0, 255).astype(np.uint8)
        if row in _COPIES.values():
            kept[row] = photo
        yield kept[_COPIES[row]] if row in _COPIES else photo
