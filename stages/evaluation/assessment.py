"""Everything that is measured of a model on one image set: on validation by evaluate, on test by release."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.models.detector import Detector
from stages.common import Params
from stages.data.image_sets import ImageSet
from stages.evaluation.explanation import draw_curves, faithfulness
from stages.evaluation.figures import draw, worth
from stages.evaluation.ood import outside
from stages.evaluation.robustness import draw_robustness, robustness
from stages.evaluation.scoring import Scored
from stages.evaluation.slices import slice_figures

ALPHA = 0.01  # the service's default


class AssessmentParams(Params):
    """How many photos the slow measurements take, from the first on: they lie in the order of their digests."""

    robustness_images: Annotated[int, Field(ge=20)]
    explained_images: Annotated[int, Field(ge=1)]
    outside_images: Annotated[int, Field(ge=1)]


def assess(
    detector: Detector,
    data: ImageSet,
    scored: Scored,
    params: AssessmentParams,
    plots: Path,
    *,
    seed: int,
    classes: npt.NDArray[np.str_] | None = None,
    large_photos: Path | None = None,
) -> dict[str, Any]:
    """Measure what `figures` does not: the worth of a flag, robustness, the border of the domain, slices, the heat map.

    Args:
        detector: the model.
        data: photos of both classes; your own among them are left out.
        scored: their scores.
        params: how many photos the slow parts take.
        plots: folder for the pictures.
        seed: of the pictures drawn from outside the domain.
        classes: str [N], CIFAR-10's classes as far as they are known.
        large_photos: a folder, zip or tar of photos as shops have them, to join the pictures from outside.
    """
    rows = np.flatnonzero(data.flags["own"] == 0)
    data, scored = data.take(rows), scored.take(rows)
    classes = None if classes is None else classes[rows]
    inside = scored.distance <= detector.card.domain.threshold
    first = data.take(np.arange(min(params.robustness_images, len(data))))
    found = {
        "flag_worth": worth(data.labels, scored.probability, inside, detector.card, ALPHA),
        "slices": slice_figures(detector, data, scored, classes, ALPHA),
        "robustness": robustness(detector, first, ALPHA),
        "outside": outside(
            detector, scored.embedding, params.outside_images, seed=seed, alpha=ALPHA, large_photos=large_photos
        ),
        "explanation": faithfulness(detector, data.images[: params.explained_images]),
    }
    draw(plots, data.labels, scored.probability)
    draw_robustness(plots / "robustness.png", found["robustness"])
    draw_curves(plots / "deletion_insertion.png", found["explanation"])
    return found
