"""Run the evaluators that params.yaml names, on validation (stage evaluate) or on test (stage release)."""

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import stages.evaluation
from service.models.detector import Detector
from stages.data.image_sets import ImageSet
from stages.evaluation.scoring import Scored
from stages.evaluation.types import Data, EvaluationParams, Evaluator


def evaluate(
    detector: Detector,
    images: ImageSet,
    scores: Scored,
    selections: Mapping[str, npt.NDArray[np.bool_]],
    params: EvaluationParams,
    *,
    plots: Path,
    seed: int,
    classes: npt.NDArray[np.str_] | None = None,
    large_photos: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the figures of every evaluator in `params.evaluators`, by its name; floats at six decimals.

    Args:
        detector: the model.
        images: N photos, flagged as `own` or not.
        scores: of all N.
        selections: name -> bool [N], what the evaluator `figures` tells apart; one of a single class is left out.
        params: which evaluators, and how many photos the slow ones take.
        plots: folder for the pictures.
        seed: of what is drawn at random.
        classes: str [N] as `slices.cifar_classes` gives them, or None.
        large_photos: a folder, zip or tar of photos as shops have them.
    """
    rows = np.flatnonzero(images.flags["own"] == 0)
    chosen = {name: scores.take(np.flatnonzero(mask)) for name, mask in selections.items()}
    data = Data(
        images.take(rows),
        scores.take(rows),
        {name: part for name, part in chosen.items() if len(np.unique(part.labels)) == 2},
        params,
        plots,
        seed,
        None if classes is None else classes[rows],
        large_photos,
    )
    return {name: rounded(find(name)(detector, data)) for name in params.evaluators}


def find(name: str) -> Evaluator:
    """Return the evaluator of the module `name`.

    Raises:
        ValueError: there is none of this name; the message lists those that there are.
    """
    known = names()
    if name not in known:
        raise ValueError(f"no evaluator is called '{name}'; there are {', '.join(known)}")
    found: Evaluator = _module(name).Evaluator()
    return found


def names() -> list[str]:
    """Return the names of all evaluators: the modules of this package that have a class `Evaluator` of their own."""
    modules = [module.name for module in pkgutil.iter_modules(stages.evaluation.__path__)]
    return [name for name in modules if getattr(getattr(_module(name), "Evaluator", None), "name", None) == name]


def rounded(value: Any) -> Any:
    """Return `value` with every float at six decimals: what follows is noise of the processor's arithmetic."""
    if isinstance(value, Mapping):
        return {key: rounded(part) for key, part in value.items()}
    return round(float(value), 6) if isinstance(value, float) else value


def _module(name: str) -> Any:
    return import_module(f"{stages.evaluation.__name__}.{name}")
