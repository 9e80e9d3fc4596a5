"""Score image sets through the file and the code that serve."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from service.models import decision
from service.models.card import Card, ModelError
from service.models.detector import Detector
from service.models.images import statistics
from stages.common import StageError
from stages.data.image_sets import ImageSet

Bools = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scored:
    """The scores of N photos whose labels are known.

    Attributes:
        labels: uint8 [N], 1 = AI-generated.
        probability: float64 [N], calibrated P(AI-generated).
        ood_score: float64 [N], how unlike the training photos.
        embedding: float32 [N, D].
    """

    labels: Labels
    probability: Float
    ood_score: Float
    embedding: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> "Scored":
        """Return the given rows, in the given order."""
        return Scored(self.labels[rows], self.probability[rows], self.ood_score[rows], self.embedding[rows])

    def in_domain(self, card: Card) -> Bools:
        """Return bool [N]. The sizes of photos in an image set are those of training, so they are not asked."""
        return self.ood_score <= card.domain.threshold

    def decisions(self, card: Card, alpha: float) -> npt.NDArray[np.str_]:
        """Return the service's decision on each photo, str [N], at equal shares of real photos and AI images."""
        limits = decision.thresholds(card, alpha, card.calibration.prior_ai)
        return decisions(self.probability, self.in_domain(card), limits)


def decisions(probability: Float, in_domain: Bools, limits: decision.Thresholds) -> npt.NDArray[np.str_]:
    """Return the service's decision on each photo: float [N], bool [N] -> str [N]."""
    pairs = zip(probability.tolist(), in_domain.tolist(), strict=True)
    return np.array([decision.decide(p, inside, limits) for p, inside in pairs])


def open_detector(path: Path) -> Detector:
    """Load a model file, to be run on all cores.

    Raises:
        StageError: the file is truncated or of another format.
    """
    try:
        return Detector(path, threads=os.cpu_count() or 1)
    except ModelError as error:
        raise StageError(str(error)) from error


def score(detector: Detector, data: ImageSet, what: str) -> Scored:
    """Score every photo of `data`, with a progress bar named `what`."""
    return score_batches(detector, data.batches(), data.labels, what)


def score_batches(detector: Detector, batches: Iterable[Uint8], labels: Labels, what: str) -> Scored:
    """Score photos that come in batches, uint8 [M, H, W, 3], with a progress bar; one batch at a time is kept.

    Args:
        detector: the model.
        batches: N photos in all, as large as the model takes them.
        labels: uint8 [N].
        what: the bar's name.
    """
    parts = [detector.score(batch) for batch in tqdm(batches, desc=what, unit=" batches", mininterval=2, delay=1)]
    return Scored(
        labels,
        np.concatenate([part.probability for part in parts]).astype(np.float64),
        np.concatenate([part.ood_score for part in parts]).astype(np.float64),
        np.concatenate([part.embedding for part in parts]),
    )


def statistics_of(data: ImageSet) -> dict[str, npt.NDArray[np.float32]]:
    """Return `service.models.images.statistics` of all photos, read in batches."""
    parts = [statistics(batch) for batch in data.batches()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
