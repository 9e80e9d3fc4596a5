"""Stage train: fit the detector on the split train, watched on validation."""

import csv

from stages.common import load_params, only_one, run_stage, sha256_file, whole_file
from stages.data.image_sets import load_images
from stages.data.inbox import check_import
from stages.paths import ModelPaths
from stages.training.model import save_checkpoint
from stages.training.released import take_released
from stages.training.trainer import TrainParams, train


def main(paths: ModelPaths) -> None:
    """Train as params.yaml says; MLflow keeps the run."""
    from stages.tracking import tracked_run  # here: the core above runs where MLflow is not installed

    params = load_params("train", TrainParams, paths.name)
    check_import()  # where photos joined the inbox alone, preprocess does not run
    if take_released(paths):
        return
    state, checkpoint = paths.training_state, paths.candidate.checkpoint
    train_set, validation_set = (load_images(paths.dataset / f"{name}.safetensors") for name in ("train", "validation"))
    # Killing dvc leaves its child alive: a second training beside it would fight for the cores and the state.
    with only_one(state.with_suffix(".lock"), "another training"), tracked_run("train", paths.name) as run:
        run.log_params(params.model_dump())
        model, config, history = train(params, train_set, validation_set, state, run.log_epoch)
        config["data_sha256"] = sha256_file(paths.dataset / "train.safetensors")
        save_checkpoint(checkpoint, model, config)
        with whole_file(paths.curves) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, history[0])
            writer.writeheader()
            writer.writerows(history)
        run.log_artifact(checkpoint)
        run.set_tag("checkpoint_sha256", sha256_file(checkpoint))
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main)
