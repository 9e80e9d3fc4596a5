"""Stage export: calibrate the trained model and write it as ONE self-describing file, with its card beside it."""

import json

from stages.common import load_params, run_stage, sha256_file, write_text
from stages.data.image_sets import load_images
from stages.exporting.exporter import ExportParams, export
from stages.paths import ModelPaths


def main(paths: ModelPaths) -> None:
    """Export the checkpoint as params.yaml says."""
    params, candidate = load_params("export", ExportParams, paths.name), paths.candidate
    train_set, calibration = (load_images(paths.dataset / f"{name}.safetensors") for name in ("train", "calibration"))
    card = export(
        params,
        paths.name,
        checkpoint=candidate.checkpoint,
        train_set=train_set,
        calibration_set=calibration,
        dataset_report=json.loads(paths.dataset_report.read_text(encoding="utf-8")),
        out=candidate.model,
    )
    whole_card = card.model_copy(update={"sha256": sha256_file(candidate.model)})
    write_text(candidate.card, whole_card.to_json() + "\n")
    print(f"{candidate.model}: {candidate.model.stat().st_size / 1e6:.1f} MB, version {card.version}")


if __name__ == "__main__":
    run_stage(main)
