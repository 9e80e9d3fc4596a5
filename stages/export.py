"""Stage export: calibrate the trained model and write it as ONE self-describing file, build/model.onnx."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from service.models.card import Card, Data, Input
from stages.common import LABELS, Params, load_params, run_stage, sha256_file
from stages.data.image_sets import load_images
from stages.exporting.calibration import calibrate
from stages.exporting.inference_graph import Exported, write_onnx
from stages.training.model import load_checkpoint

CHECKPOINT = Path("models/cifake/checkpoint.safetensors")
DATASET = Path("build/dataset")
REPORT = Path("reports/cifake/dataset.json")
OUT = Path("build/model.onnx")


def _with_default(alphas: list[float]) -> list[float]:
    if 0.01 not in alphas:
        raise ValueError("0.01 must be among them: it is the service's default")
    return alphas


class ExportParams(Params):
    """Section `export` of params.yaml."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$")]
    flip_average: bool
    flag_alphas: Annotated[list[Annotated[float, Field(gt=0, lt=0.5)]], AfterValidator(_with_default)]
    clear_miss: Annotated[float, Field(gt=0, lt=0.5)]
    domain_out_share: Annotated[float, Field(gt=0, lt=0.5)]
    domain_images: Annotated[int, Field(ge=50)]
    domain_drawings: Annotated[int, Field(ge=50)]


def main() -> None:
    """Export the checkpoint as params.yaml says."""
    params = load_params("export", ExportParams)
    detector, config = load_checkpoint(CHECKPOINT)
    model = Exported(detector, params.flip_average).eval()
    train_set = load_images(DATASET / "train.safetensors")
    # All own photos and, as they come, others: those are in the order of their digests, which is a random one.
    chosen = np.argsort(train_set.flags["own"] == 0, kind="stable")[: params.domain_images]
    known = train_set.images[np.sort(chosen)]
    parts = calibrate(
        model,
        load_images(DATASET / "calibration.safetensors"),
        known,
        flag_alphas=params.flag_alphas,
        clear_miss=params.clear_miss,
        domain_out_share=params.domain_out_share,
        domain_drawings=params.domain_drawings,
    )
    if (slope := parts["calibration"]["slope"]) <= 0:
        print(f"warning: calibration turned the scores round (slope {slope}): the model cannot tell the classes yet")
    if not np.isfinite(parts["domain"]["threshold"]):
        print("warning: too few calibration photos to say which are unlike the known ones: all will count as known")
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    parts["domain"]["geometry"] = report["geometry"]
    size = config["image_size"]
    card = Card(
        name="cifake",
        version=params.version,
        license="MIT",
        labels=LABELS,
        input=Input(height=size, width=size, resize="squash", mean=config["mean"], std=config["std"]),
        head_bias=model.head_bias,
        **parts,
        data=Data(dataset=report["dataset"], digest=config["data_sha256"]),
        checkpoint_sha256=sha256_file(CHECKPOINT),
        params={"train": config, "export": params.model_dump(mode="json")},
    )
    write_onnx(OUT, model, card)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB, version {params.version}")


if __name__ == "__main__":
    run_stage(main)
