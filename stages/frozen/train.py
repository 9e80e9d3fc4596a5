"""Stage train of the recipe `frozen`: fit the linear head, and judge it on held-out sources."""

import csv
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from stages.common import load_params, run_stage, sha256_file, whole_file
from stages.data.inbox import check_import
from stages.frozen.dataset import PHOTOS, RENDER, PhotoSet, load
from stages.frozen.head import HEADS, PLAIN, Reduced, fit, fitted_folds, held_out, reduced, save_head, source_weights
from stages.frozen.params import TrainParams
from stages.paths import ModelPaths
from stages.training.released import take_released


def main(paths: ModelPaths) -> None:
    """Fit as params.yaml says; MLflow keeps the run."""
    from stages.tracking import tracked_run

    params = load_params("train", TrainParams, paths.name)
    check_import()  # where photos joined the inbox alone, preprocess does not run
    if take_released(paths):
        return
    photos = load(paths.dataset)
    with tracked_run("train", paths.name) as run:
        run.log_params(params.model_dump())
        curve, kept = [], paths.build / HEADS
        seen = reduced(photos, params, kept)
        for step, penalty in enumerate(params.penalties, 1):
            row = {"epoch": step, "inverse_penalty": penalty, **judged(photos, seen, params, penalty, kept)}
            print(", ".join(f"{name} {value:g}" for name, value in row.items()))
            curve.append(row)
            run.log_epoch(row)
        config = {"params": params.model_dump(mode="json"), "data_sha256": sha256_file(paths.dataset / PHOTOS)}
        save_head(paths.candidate.checkpoint, fit(photos, params, seen=seen), config)
        with whole_file(paths.curves) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, curve[0])
            writer.writeheader()
            writer.writerows(curve)
        run.log_artifact(paths.candidate.checkpoint)
        run.set_tag("checkpoint_sha256", sha256_file(paths.candidate.checkpoint))


def judged(
    photos: PhotoSet, seen: Reduced, params: TrainParams, inverse_penalty: float, kept: Path
) -> dict[str, float]:
    """Return AUC and loss on held-out sources in one draw of folds, every source with the same weight."""
    once = params.model_copy(update={"draws": 1})
    fitted = fitted_folds(photos, once, inverse_penalty, kept=kept, seen=seen)
    logits = held_out(fitted, photos.seen.features[:, PLAIN])[0]
    rows = np.flatnonzero(photos.rows.label != RENDER)
    labels, weights = photos.rows.label[rows], source_weights(photos.rows)[rows]
    probability = 1 / (1 + np.exp(-logits[rows]))
    return {
        "validation_auc": round(float(roc_auc_score(labels, logits[rows], sample_weight=weights)), 5),
        "validation_loss": round(float(log_loss(labels, probability, sample_weight=weights)), 5),
    }


if __name__ == "__main__":
    run_stage(main)
