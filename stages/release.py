"""Stage release: gates on validation; a candidate that passes is scored on test once and becomes models/<name>."""

import json
from collections.abc import Callable
from pathlib import Path

from service.models.card import Card
from service.models.detector import Detector
from stages.common import load_params, run_stage
from stages.data.image_sets import load_images
from stages.data.raw import IMAGES
from stages.evaluation.ood import large_answers, large_photos
from stages.evaluation.runner import evaluate
from stages.evaluation.scoring import score
from stages.evaluation.slices import cifar_classes
from stages.evaluation.types import EvaluationParams
from stages.paths import ModelPaths
from stages.releasing.gates import Gates, Measured, refusals
from stages.releasing.procedure import Figures, Recipe, run
from stages.releasing.swap import repair


class ReleaseParams(Gates, EvaluationParams):
    """Section `release` of params.yaml."""

    enabled: bool


def recipe(params: ReleaseParams, paths: ModelPaths) -> Recipe:
    """Return the gates and the reading of test of a network.

    Args:
        params: gates, and how much is measured on test.
        paths: the model's files.
    """

    def refused(detector: Detector, released: Card | None) -> list[str]:
        validation = json.loads(paths.metrics.read_text(encoding="utf-8"))["validation"]
        measured = json.loads(paths.assessment.read_text(encoding="utf-8"))  # on validation, too
        large = large_photos()  # a fault of theirs must not cost a reading of test
        if large is not None and "ood" in measured:
            measured["ood"]["large_photos"] = large_answers(detector, large)
        size = paths.candidate.model.stat().st_size / 1e6
        return refusals(params, Measured(detector.card, validation, measured, size), released)

    def open_test(detector: Detector) -> Callable[[Path], tuple[Figures, Figures]]:
        test = load_images(paths.test / "test.safetensors")
        classes = cifar_classes(test.images, paths.raw / IMAGES, paths.names)
        own = test.flags["own"] == 1
        once = (test.flags["duplicate"] == 0) & (test.flags["leaked"] == 0)
        rows = {"test": ~own, "test_without_duplicates_and_leaks": ~own & once, "test_own_photos": own}

        def read(plots: Path) -> tuple[Figures, Figures]:
            scored = score(detector, test, "test")
            large = large_photos()
            assessment = evaluate(
                detector, test, scored, rows, params, plots=plots, seed=1, classes=classes, large_photos=large
            )
            return assessment.pop("figures"), assessment

        return read

    return Recipe(refused, open_test)


def main(paths: ModelPaths) -> None:
    """Decide about the candidate as params.yaml says; a refusal is an answer, not an error."""
    params = load_params("release", ReleaseParams, paths.name)
    repair(paths)
    run(paths, recipe(params, paths), enabled=params.enabled)


if __name__ == "__main__":
    run_stage(main)
