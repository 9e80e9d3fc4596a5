"""How far a photo's description lies from those of the photos that the model knows."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

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


def drawing_score(known: Float, drawn: Float) -> tuple[float, Float, float]:
    """Return what makes one distance of two: the Mahalanobis distance, and a score of being drawn.

    A Mahalanobis distance alone takes drawings saved as JPEG for photos: they lie within the cloud's reach, in a
    direction of their own. A logistic regression finds it (outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606).
    Both are brought to one scale, on which 99 % of the known photos are below 1.

    Args:
        known: float64 [N, D], whitened descriptions of photos.
        drawn: float64 [M, D], those of drawn pictures.

    Returns:
        `unit`, `weight` float64 [D] and `bias`, rounded: the distance of x is max(|x| / unit, x @ weight + bias).
    """
    labels = np.repeat([0, 1], [len(known), len(drawn)])
    fit = LogisticRegression(C=0.01, max_iter=1000).fit(np.concatenate([known, drawn]), labels)
    score = known @ fit.coef_[0]
    middle, border = np.quantile(score, [0.5, 0.99])
    unit = float(np.quantile(np.linalg.norm(known, axis=1), 0.99))
    weight: Float = fit.coef_[0] / (border - middle)
    return round(unit, 4), weight.round(6), round(float(-middle / (border - middle)), 6)
