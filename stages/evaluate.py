"""Stage evaluate: run build/model.onnx through the service's own code on validation; test is not touched."""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from service.models.images import statistics
from stages.common import load_params, run_stage, sha256_file, whole_file, write_json
from stages.data.image_sets import load_images
from stages.evaluation.assessment import AssessmentParams, assess
from stages.evaluation.figures import draw_training
from stages.evaluation.scoring import figures_of, open_detector, score

CANDIDATE = Path("build/model.onnx")
CHECKPOINT = Path("models/cifake/checkpoint.safetensors")
CURVES = Path("reports/cifake/training.csv")
DATASET = Path("build/dataset")
METRICS = Path("reports/cifake/metrics.json")  # what `dvc exp show` and `dvc metrics diff` compare
ASSESSMENT = Path("reports/cifake/assessment.json")  # the rest: too much for a table
PLOTS = Path("reports/cifake/plots")
REFERENCE = Path("build/reference.npz")  # what traffic is compared with: photos the model was never trained on


FEW = 100  # photos; with fewer an accuracy of .9 is known to .06 at best


class EvaluateParams(AssessmentParams):
    """Section `evaluate` of params.yaml."""

    reference_components: Annotated[int, Field(ge=1, le=64)]  # embedding components kept for drift detection


def main() -> None:
    """Write metrics, plots and the reference for drift detection."""
    from stages.tracking import tracked_run

    params = load_params("evaluate", EvaluateParams)
    detector = open_detector(CANDIDATE)
    validation = load_images(DATASET / "validation.safetensors")
    calibration = load_images(DATASET / "calibration.safetensors")
    scored = score(detector, validation, "validation")
    scored_calibration = score(detector, calibration, "calibration")

    own = validation.flags["own"] == 1
    results = figures_of(detector, validation, scored, {"validation": ~own, "own_photos": own})
    if own.any() and "own_photos" not in results:
        print(f"own_photos: {own.sum()} in validation, not of both classes: no slice of their own; add more groups")
    for name, found in results.items():
        few = "; too few to tell anything" if found["images"] < FEW else ""
        print(f"{name}: accuracy {found['accuracy']:.4f} on {found['images']:,} photos{few}")
    with CURVES.open(encoding="utf-8", newline="") as file:
        curves = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assessment = assess(detector, validation, scored, params, PLOTS, seed=0)
    draw_training(PLOTS / "training.png", curves)
    with whole_file(PLOTS / "predictions.csv") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("actual,predicted\n")
        names = detector.card.labels
        for label, p in zip(validation.labels[~own], scored.probability[~own], strict=True):
            file.write(f"{names[label]},{names[int(p >= 0.5)]}\n")

    images = np.concatenate([validation.images, calibration.images])
    embedding = np.concatenate([scored.embedding, scored_calibration.embedding])
    with whole_file(REFERENCE) as temporary, temporary.open("wb") as file:
        columns = {
            "probability": np.concatenate([scored.probability, scored_calibration.probability]),
            "distance": np.concatenate([scored.distance, scored_calibration.distance]),
            "embedding": embedding[:, : params.reference_components],
            **statistics(images),
        }
        # Rounded, so that the last bits of another processor's arithmetic do not make another file.
        rounded = {name: values.round(5).astype(np.float32) for name, values in columns.items()}
        np.savez(file, allow_pickle=False, label=np.concatenate([validation.labels, calibration.labels]), **rounded)
    write_json(METRICS, results | {"file": {"mb": round(CANDIDATE.stat().st_size / 1e6, 2)}})
    write_json(ASSESSMENT, assessment)
    with tracked_run("evaluate", sha256_file(CHECKPOINT)) as run:
        run.log_metrics(results | assessment)
        run.log_artifact(CANDIDATE)
        for picture in sorted(PLOTS.glob("*.png")):
            run.log_artifact(picture)


if __name__ == "__main__":
    run_stage(main)
