"""Stage export: calibrate the trained model and write it as ONE self-describing file, build/model.onnx."""

import json
from pathlib import Path

from stages.common import load_params, run_stage
from stages.data.image_sets import load_images
from stages.exporting.exporter import ExportParams, export

CHECKPOINT = Path("models/cifake/checkpoint.safetensors")
DATASET = Path("build/dataset")
REPORT = Path("reports/cifake/dataset.json")
OUT = Path("build/model.onnx")


def main() -> None:
    """Export the checkpoint as params.yaml says."""
    params = load_params("export", ExportParams)
    train_set, calibration = (load_images(DATASET / f"{name}.safetensors") for name in ("train", "calibration"))
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    card = export(params, "cifake", CHECKPOINT, train_set, calibration, report, OUT)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB, version {card.version}")


if __name__ == "__main__":
    run_stage(main)
