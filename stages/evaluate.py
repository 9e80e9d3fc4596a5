"""Stage evaluate: run the candidate through the service's own code on validation; test is not touched."""

import csv
from typing import Annotated

import numpy as np
from pydantic import Field

from stages.common import load_params, run_stage, sha256_file, whole_file, write_json
from stages.data.image_sets import load_images
from stages.evaluation.plots import draw_training
from stages.evaluation.runner import evaluate
from stages.evaluation.scoring import open_detector, score, statistics_of
from stages.evaluation.types import EvaluationParams
from stages.paths import ModelPaths

FEW = 100  # photos; with fewer an accuracy of .9 is known to .06 at best


class EvaluateParams(EvaluationParams):
    """Section `evaluate` of params.yaml."""

    reference_components: Annotated[int, Field(ge=1, le=64)]  # embedding components kept for drift detection


def main(paths: ModelPaths) -> None:
    """Write metrics, plots and the reference for drift detection."""
    from stages.tracking import tracked_run

    params = load_params("evaluate", EvaluateParams, paths.name)
    candidate = paths.candidate
    detector = open_detector(candidate.path)
    validation = load_images(paths.dataset / "validation.safetensors")
    calibration = load_images(paths.dataset / "calibration.safetensors")
    scored = score(detector, validation, "validation")
    scored_calibration = score(detector, calibration, "calibration")

    own = validation.flags["own"] == 1
    selections = {"validation": ~own, "own_photos": own}
    assessment = evaluate(detector, validation, scored, selections, params, plots=candidate.plots, seed=0)
    results = assessment.pop("figures")
    if own.any() and "own_photos" not in results:
        print(f"own_photos: {own.sum()} in validation, not of both classes: no slice of their own; add more groups")
    for name, found in results.items():
        few = "; too few to tell anything" if found["images"] < FEW else ""
        print(f"{name}: accuracy {found['accuracy']:.4f} on {found['images']:,} photos{few}")
    with paths.curves.open(encoding="utf-8", newline="") as file:
        curves = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    draw_training(candidate.plots / "training.png", curves)
    with whole_file(paths.predictions) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("actual,predicted\n")
        names = detector.card.labels
        for label, p in zip(validation.labels[~own], scored.probability[~own], strict=True):
            file.write(f"{names[label]},{names[int(p >= 0.5)]}\n")

    measured = [statistics_of(part) for part in (validation, calibration)]
    embedding = np.concatenate([scored.embedding, scored_calibration.embedding])
    with whole_file(candidate.reference) as temporary, temporary.open("wb") as file:
        columns = {
            "probability": np.concatenate([scored.probability, scored_calibration.probability]),
            "distance": np.concatenate([scored.ood_score, scored_calibration.ood_score]),
            "embedding": embedding[:, : params.reference_components],
            **{name: np.concatenate([part[name] for part in measured]) for name in measured[0]},
        }
        # Rounded, so that the last bits of another processor's arithmetic do not make another file.
        rounded = {name: values.round(5).astype(np.float32) for name, values in columns.items()}
        np.savez(file, allow_pickle=False, label=np.concatenate([validation.labels, calibration.labels]), **rounded)
    write_json(paths.metrics, results | {"file": {"mb": round(candidate.model.stat().st_size / 1e6, 2)}})
    write_json(paths.assessment, assessment)
    with tracked_run("evaluate", paths.name, sha256_file(candidate.checkpoint)) as run:
        run.log_metrics(results | assessment)
        run.log_artifact(candidate.model)
        for picture in sorted(candidate.plots.glob("*.png")):
            run.log_artifact(picture)


if __name__ == "__main__":
    run_stage(main)
