"""A tiny labelled image set made from a seed: for tests and a first look without a network, never for a claim."""

import numpy as np

from stages.data.image_sets import ImageSet


def synthetic_images(count: int, size: int, seed: int) -> ImageSet:
    """Return `count` images uint8 [count, size, size, 3] in two classes, with a `test` flag on one in five.

    Both classes are smooth colour fields with a bright disc; the "generated" ones carry a faint checkerboard, the
    trace that upsampling layers leave (Odena et al. 2016, doi 10.23915/distill.00003). A few images are repeated,
    some across train and test, so that the handling of duplicates and leaks is exercised too.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.empty((count, size, size, 3), np.uint8)
    labels = (np.arange(count) % 2).astype(np.uint8)
    checkerboard = 1.0 - 2.0 * (np.indices((size, size)).sum(0) % 2)
    for row in range(count):
        corner, slope, disc = rng.uniform(60, 160, 3), rng.uniform(-60, 60, (2, 3)), rng.uniform(-60, 60, 3)
        centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3)
        field = corner + x[..., None] * slope[0] + y[..., None] * slope[1]
        field += ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)[..., None] * disc
        field += rng.normal(0, 6, field.shape)
        if labels[row]:
            field += 10 * checkerboard[..., None]
        images[row] = field.round().clip(0, 255).astype(np.uint8)
    test = (np.arange(count) % 10 >= 8).astype(np.uint8)
    images[21], images[31], images[29], images[39] = (
        images[1],
        images[1],
        images[1],
        images[9],
    )  # generated, all
    return ImageSet(images, labels, {"test": test})
