"""How far a photo's description lies from those of the photos that the model knows."""

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def whitened(known: Float) -> tuple[Float, Float]:
    """Return the centre and the whitening matrix of a cloud: |(x - centre) @ whitening| is x's Mahalanobis distance.

    Lee et al. 2018 (arXiv 1807.03888), with both classes as one cloud. A little of the identity, in units of each
    column's own variance (at the least of a hundredth of the middle column's spread), keeps directions that the cloud
    hardly uses from deciding alone.

    Args:
        known: float64 [N, D].

    Returns:
        float64 [D] and [D, D], rounded so that the last bits of another processor's arithmetic make no other file.
    """
    spread = known.std(0)
    scale = np.maximum(spread, 0.01 * np.median(spread))
    correlation = np.cov((known / scale).T) + 1e-3 * np.eye(known.shape[1])
    whitening = np.linalg.cholesky(np.linalg.inv(correlation)) / scale[:, None]
    return known.mean(0).round(5), whitening.round(5)
