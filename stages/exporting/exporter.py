"""Calibrates a trained network and writes it as one file that describes itself."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from service.models.card import Card, Data, Input
from stages.common import LABELS, Params, height_width, sha256_file
from stages.data.image_sets import ImageSet
from stages.exporting.calibration import calibrate
from stages.exporting.inference_graph import InferenceGraph, write_onnx
from stages.training.model import load_checkpoint


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


def export(
    params: ExportParams,
    name: str,
    *,
    checkpoint: Path,
    train_set: ImageSet,
    calibration_set: ImageSet,
    dataset_report: dict[str, Any],
    out: Path,
) -> Card:
    """Write an ONNX file with its card inside; return the card.

    Args:
        params: how to calibrate.
        name: the model's.
        checkpoint: the trained weights.
        train_set: photos that say what is known, at least `params.domain_images` of them if there are so many.
        calibration_set: photos that neither taught nor watched the training.
        dataset_report: what the stage preprocess returned.
        out: the ONNX file.

    Raises:
        StageError: the checkpoint cannot be read, or ONNX lacks an operation of the network.
    """
    detector, config = load_checkpoint(checkpoint)
    model = InferenceGraph(detector, params.flip_average).eval()
    # All own photos and, as they come, others: those are in the order of their digests, which is a random one.
    chosen = np.argsort(train_set.flags["own"] == 0, kind="stable")[: params.domain_images]
    parts = calibrate(
        model,
        calibration_set,
        train_set.take(np.sort(chosen)),
        flag_alphas=params.flag_alphas,
        clear_miss=params.clear_miss,
        domain_out_share=params.domain_out_share,
        domain_drawings=params.domain_drawings,
    )
    if (slope := parts["calibration"]["slope"]) <= 0:
        print(f"warning: calibration turned the scores round (slope {slope}): the model cannot tell the classes yet")
    if not np.isfinite(parts["domain"]["threshold"]):
        print("warning: too few calibration photos to say which are unlike the known ones: all will count as known")
    parts["domain"]["geometry"] = dataset_report["geometry"]
    height, width = height_width(config["image_size"])
    card = Card(
        name=name,
        version=params.version,
        license="MIT",
        labels=LABELS,
        input=Input(height=height, width=width, resize="squash", mean=config["mean"], std=config["std"]),
        head_bias=model.head_bias,
        **parts,
        data=Data(dataset=dataset_report["dataset"], digest=config["data_sha256"]),
        checkpoint_sha256=sha256_file(checkpoint),
        params={"train": config, "export": params.model_dump(mode="json")},
    )
    write_onnx(out, model, card)
    return card
