"""Stage release of the recipe `frozen`: gates on held-out sources, then the test sources once, through the file."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.models.card import Card
from service.models.detector import Detector
from stages.common import load_params, run_stage, whole_file
from stages.evaluation.runner import rounded
from stages.frozen import judging
from stages.frozen.dataset import PHOTOS, Rows, load, read_photos
from stages.frozen.encoder import encoder_file
from stages.frozen.export import place_encoder
from stages.frozen.features import opened_photo
from stages.frozen.gates import refusals
from stages.frozen.head import source_weights
from stages.frozen.params import PreprocessParams, ReleaseParams
from stages.paths import ModelPaths
from stages.releasing.procedure import Figures, Recipe, run
from stages.releasing.swap import repair


def recipe(params: ReleaseParams, paths: ModelPaths) -> Recipe:
    """Return the gates and the reading of test of a frozen encoder's head.

    Args:
        params: the gates.
        paths: the model's files.
    """

    def refused(detector: Detector, released: Card | None) -> list[str]:
        metrics, assessment = (
            json.loads(path.read_text(encoding="utf-8")) for path in (paths.metrics, paths.assessment)
        )
        return refusals(params, detector.card, metrics, assessment, released)

    def open_test(detector: Detector) -> Callable[[Path], tuple[Figures, Figures]]:
        photos = load(paths.test)
        files = read_photos(paths.test / PHOTOS, photos.rows.sha256.tolist())
        held_out = json.loads(paths.assessment.read_text(encoding="utf-8"))
        as_found = json.loads(paths.metrics.read_text(encoding="utf-8"))["as_found"]

        def read(plots: Path) -> tuple[Figures, Figures]:
            figures, sources = _read(detector, photos.rows, files)
            for picture in paths.candidate.plots.glob("*.png"):  # of held-out sources: test draws none
                with whole_file(plots / picture.name) as temporary:
                    shutil.copyfile(picture, temporary)
            return figures, {"held_out": held_out, "as_found": as_found, "test_sources": sources}

        return read

    return Recipe(refused, open_test)


def _read(detector: Detector, rows: Rows, files: Mapping[str, bytes]) -> tuple[Figures, Figures]:
    """Score photos as they were found, through the service's own code; return figures, and those of each source."""
    bar = tqdm(rows.sha256.tolist(), "test", unit=" photos", mininterval=2)
    scores = [detector.score(detector.prepare(opened_photo(files[digest], digest).image)[None]) for digest in bar]
    probability = np.array([float(each.probability[0]) for each in scores])
    in_domain = np.array([float(each.ood_score[0]) for each in scores]) <= detector.card.domain.threshold
    limit = detector.card.thresholds.flag[judging.ALPHA]
    sources = {}
    for name in np.unique(rows.source).tolist():
        mask = rows.source == name
        sources[name] = {"images": int(mask.sum()), "flagged": float((probability[mask] >= limit).mean())}
    figures = judging.figures(detector.card, rows, probability, in_domain, source_weights(rows))
    return rounded({"test": figures}), rounded(sources)


def main(paths: ModelPaths) -> None:
    """Decide about the candidate as params.yaml says; a refusal is an answer, not an error."""
    params = load_params("release", ReleaseParams, paths.name)
    repair(paths)
    encoder = load_params("preprocess", PreprocessParams, paths.name).encoder
    if paths.candidate.model.exists():
        place_encoder(encoder_file(paths, encoder), paths.candidate.path)
    run(paths, recipe(params, paths), enabled=params.enabled)


if __name__ == "__main__":
    run_stage(main)
