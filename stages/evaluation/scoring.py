"""Score image sets through the very file and code that serve."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from service.models.card import ModelError
from service.models.detector import Detector
from stages.common import StageError
from stages.data.image_sets import ImageSet
from stages.evaluation.figures import figures

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A set's scores: probability float64 [N], distance float64 [N], embedding float32 [N, D]."""

    probability: Float
    distance: Float
    embedding: npt.NDArray[np.float32]

    def take(self, rows: npt.NDArray[np.int64]) -> "Scored":
        """Return the scores of the given rows."""
        return Scored(self.probability[rows], self.distance[rows], self.embedding[rows])


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
    """Score every image of `data`, with a progress bar named `what`."""
    parts = [
        detector.score(data.images[start : start + 256])
        for start in tqdm(range(0, len(data), 256), desc=what, mininterval=2, delay=1)
    ]
    return Scored(
        np.concatenate([p.probability for p in parts]).astype(np.float64),
        np.concatenate([p.ood_score for p in parts]).astype(np.float64),
        np.concatenate([p.embedding for p in parts]),
    )


def figures_of(
    detector: Detector, data: ImageSet, scored: Scored, rows: dict[str, npt.NDArray[np.bool_]]
) -> dict[str, Any]:
    """Return the figures of each named selection of rows that holds both classes.

    The photos' geometry is that of the training photos by construction, so embedding and texture decide the domain.
    """
    inside = scored.distance <= detector.card.domain.threshold
    return {
        name: figures(data.labels[chosen], scored.probability[chosen], inside[chosen], detector.card)
        for name, chosen in rows.items()
        if len(set(data.labels[chosen].tolist())) == 2
    }
