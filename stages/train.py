"""Stage train: fit the detector on build/dataset/train.safetensors, watched on validation."""

import csv
from pathlib import Path

from stages.common import load_params, only_one, run_stage, sha256_file, whole_file
from stages.data.image_sets import load_images
from stages.data.inbox import check_import
from stages.training.model import save_checkpoint
from stages.training.trainer import TrainParams, train

DATASET = Path("build/dataset")
STATE = Path("build/train_state.pt")  # what a killed run needs to go on; removed at the end
CHECKPOINT = Path("models/cifake/checkpoint.safetensors")
CURVES = Path("reports/cifake/training.csv")


def main() -> None:
    """Train as params.yaml says; MLflow keeps the run."""
    from stages.tracking import tracked_run  # here: the core above runs where MLflow is not installed

    params = load_params("train", TrainParams)
    check_import()  # where photos joined the inbox alone, preprocess does not run
    train_set, validation_set = (load_images(DATASET / f"{name}.safetensors") for name in ("train", "validation"))
    # Killing dvc leaves its child alive: a second training beside it would fight for the cores and the state.
    with only_one(STATE.with_suffix(".lock"), "another training"), tracked_run("train") as run:
        run.log_params(params.model_dump())
        model, config, history = train(params, train_set, validation_set, STATE, run.log_epoch)
        config["data_sha256"] = sha256_file(DATASET / "train.safetensors")
        save_checkpoint(CHECKPOINT, model, config)
        with whole_file(CURVES) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, history[0])
            writer.writeheader()
            writer.writerows(history)
        run.log_artifact(CHECKPOINT)
        run.set_tag("checkpoint_sha256", sha256_file(CHECKPOINT))
        STATE.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main)
