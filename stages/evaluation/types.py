"""What an evaluator is: a module of this package with a class `Evaluator`, named as the module.

params.yaml lists under `evaluators` which of them run. So a new one is a file here and a line there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from service.models.detector import Detector
from stages.common import Params
from stages.data.image_sets import ImageSet
from stages.evaluation.scoring import Scored


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    from stages.evaluation.runner import find

    for name in names:
        find(name)
    if "figures" not in names:
        raise ValueError("'figures' must be among them: metrics.json and the gates of a release are made of it")
    return names


class EvaluationParams(Params):
    """Which evaluators run, and how many photos the slow ones take.

    They take the first photos: an image set is sorted by digest, so these are a random choice.
    """

    evaluators: Annotated[tuple[str, ...], AfterValidator(_known)]
    robustness_images: Annotated[int, Field(ge=20)]
    explained_images: Annotated[int, Field(ge=1)]
    ood_images: Annotated[int, Field(ge=1)]  # pictures of each kind


@dataclass(frozen=True)
class Data:
    """What a model is measured on.

    Attributes:
        images: N photos of both classes, your own not among them.
        scores: their scores, of N photos.
        selections: scores of further selections by name, your own photos among them; each of both classes.
        params: how many photos the slow evaluators take.
        plots: the folder for pictures.
        seed: for everything that is drawn at random; a release takes another one than the evaluations before it.
        classes: str [N], the subject of each photo, "" where it is not known; None: no subject is known.
        large_photos: a folder, zip or tar of photos as shops have them.
        alpha: share of real photos that may be flagged, one of the levels in the card.
    """

    images: ImageSet
    scores: Scored
    selections: Mapping[str, Scored]
    params: EvaluationParams
    plots: Path
    seed: int = 0
    classes: npt.NDArray[np.str_] | None = None
    large_photos: Path | None = None
    alpha: float = 0.01

    def first(self, count: int) -> ImageSet:
        """Return the first `count` photos, or all where there are fewer."""
        return self.images.take(np.arange(min(count, len(self.images))))


class Evaluator(Protocol):
    """Measures one thing of a model, and may draw it.

    Attributes:
        name: the module's; the figures stand under it in the reports and in the card.
    """

    name: str

    def __call__(self, detector: Detector, data: Data) -> Mapping[str, Any]:
        """Return the figures: nested mappings of JSON values; floats are rounded by the caller."""
