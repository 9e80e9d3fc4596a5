"""Stage export: calibrate the trained model and write it as ONE self-describing file, build/detector.onnx."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from pydantic import AfterValidator, Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm

from stages.common import LABELS, Params, StageError, load_params, run_stage, sha256_file, whole_file
from stages.data import ImageSet, load_images
from stages.model import Detector, load_checkpoint

CHECKPOINT = Path("models/checkpoint.safetensors")
DATASET = Path("build/dataset")
REPORT = Path("reports/dataset.json")
OUT = Path("build/detector.onnx")

Float = npt.NDArray[np.float64]


def _with_default(alphas: list[float]) -> list[float]:
    if 0.01 not in alphas:
        raise ValueError("0.01 must be among them: it is the service's default")
    return alphas


class ExportParams(Params):
    """Section `export` of params.yaml."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    flip_average: bool
    flag_alphas: Annotated[list[Annotated[float, Field(gt=0, lt=0.5)]], AfterValidator(_with_default)]
    clear_miss: Annotated[float, Field(gt=0, lt=0.5)]
    domain_out_share: Annotated[float, Field(gt=0, lt=0.5)]
    domain_images: Annotated[int, Field(ge=50)]


class Exported(nn.Module):
    """uint8 photos -> probability, embedding, heat map and distance, all out of one forward pass."""

    slope: Tensor
    intercept: Tensor
    centre: Tensor
    whitening: Tensor

    def __init__(self, model: Detector, flip_average: bool) -> None:
        super().__init__()
        self.model, self.flip_average = model, flip_average
        channels = model.head.in_features
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("whitening", torch.eye(channels))

    @property
    def head_bias(self) -> float:
        """What the heat map's mean lacks to the calibrated logit."""
        return float(self.slope * self.model.head.bias + self.intercept)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] -> float32 probability [N], embedding [N, D], heatmap [N, h, w], distance [N]."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        features = self.model.features(pixels)
        if self.flip_average:  # mean of the photo's map and its mirror image's, mirrored back
            features = (features + self.model.features(pixels.flip(3)).flip(3)) / 2
        embedding = features.mean((2, 3))
        weight = self.slope * self.model.head.weight[0]
        heatmap = (features * weight[:, None, None]).sum(1)
        logit = heatmap.mean((1, 2)) + self.slope * self.model.head.bias + self.intercept
        distance = ((embedding - self.centre) @ self.whitening).square().sum(1).sqrt()
        return torch.sigmoid(logit), embedding, heatmap, distance


@torch.no_grad()
def run(model: Exported, images: npt.NDArray[np.uint8], what: str) -> tuple[Float, Float]:
    """Return logit float64 [N] and embedding float64 [N, D] of uint8 [N, H, W, 3], in torch.

    The logit comes from the heat map: a probability near 1 has lost it.
    """
    logits, embeddings = [], []
    for start in tqdm(range(0, len(images), 256), desc=what, mininterval=2):
        _, embedding, heatmap, _ = model(torch.from_numpy(images[start : start + 256]))
        logits.append(heatmap.double().mean((1, 2)) + model.head_bias)
        embeddings.append(embedding)
    return torch.cat(logits).numpy(), torch.cat(embeddings).double().numpy()


def conformal_threshold(scores: Float, alpha: float) -> float:
    """Split-conformal bound (Vovk et al. 2005; Lei et al. 2018): a new score exceeds it with probability <= alpha.

    Args:
        scores: float [N], exchangeable with the new one.
        alpha: the share that may exceed it.

    Returns:
        The ceil((N + 1)(1 - alpha))-th smallest score; infinity where N is too small to promise anything.
    """
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def above(threshold: float) -> float:
    """Return the next number of 6 decimals above a probability, so that reaching it means exceeding `threshold`.

    Above 1, and so out of every photo's reach, where nothing is promised.
    """
    return (math.floor(min(threshold, 1.0) * 1e6) + 1) / 1e6


def calibrate(
    model: Exported, params: ExportParams, calibration: ImageSet, train_images: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Set the model's calibration and domain statistics; return them and the thresholds as parts of the card."""
    logit, embedding = run(model, calibration.images, "calibration")
    # Platt 1999: a logistic regression on the logit; C large because two parameters need no shrinking.
    platt = LogisticRegression(C=1e6).fit(logit[:, None], calibration.labels)
    # Rounded, so that the last bits of another processor's arithmetic do not make another file.
    slope, intercept = round(float(platt.coef_[0, 0]), 4), round(float(platt.intercept_[0]), 4)
    model.slope.fill_(slope)
    model.intercept.fill_(intercept)
    probability = 1 / (1 + np.exp(-(slope * logit + intercept)))
    reals, generated = probability[calibration.labels == 0], probability[calibration.labels == 1]

    # Mahalanobis distance (Lee et al. 2018, arXiv 1807.03888) to the training photos of both classes as one cloud;
    # a little of the identity keeps directions that the training photos hardly use from deciding alone.
    _, known = run(model, train_images, "domain")
    covariance = np.cov(known.T) + 1e-3 * np.trace(np.cov(known.T)) / known.shape[1] * np.eye(known.shape[1])
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    model.centre.copy_(torch.from_numpy(known.mean(0).round(4)))
    model.whitening.copy_(torch.from_numpy(whitening.round(4)))
    distance = np.linalg.norm((embedding - known.mean(0).round(4)) @ whitening.round(4), axis=1)
    return {
        "calibration": {
            "method": "platt", "slope": slope, "intercept": intercept, "prior_ai": 0.5, "images": len(calibration),
        },
        "thresholds": {
            "flag": {str(alpha): above(conformal_threshold(reals, alpha)) for alpha in params.flag_alphas},
            "clear": round(max(0.0, 1 - conformal_threshold(1 - generated, params.clear_miss)), 6),
            "clear_miss": params.clear_miss,
        },
        "domain": {
            "method": "mahalanobis",
            "threshold": round(conformal_threshold(distance, params.domain_out_share), 4),
            "out_share": params.domain_out_share,
        },
    }  # fmt: skip


def write_onnx(path: Path, model: Exported, card: dict[str, Any]) -> None:
    """Write the model with its card as its metadata, whole or not at all; the same inputs give the same bytes."""
    size = (card["input"]["height"], card["input"]["width"])
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        model, (example,), dynamo=True, input_names=["images"], verbose=False, optimize=True,
        output_names=["probability", "embedding", "heatmap", "distance"],
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
    )  # fmt: skip
    if program is None:
        raise StageError("torch.onnx.export made no program: the backbone uses an operation that ONNX lacks")
    proto = program.model_proto
    for node in proto.graph.node:  # file paths and line numbers of this machine: they would change the bytes
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        value.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, {"card": json.dumps(card, sort_keys=True)})
    onnx.checker.check_model(proto)
    with whole_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    """Export the checkpoint as params.yaml says."""
    params = load_params("export", ExportParams)
    detector, config = load_checkpoint(CHECKPOINT)
    model = Exported(detector, params.flip_average).eval()
    train_set = load_images(DATASET / "train.safetensors")
    # All own photos and, as they come, others: those are in the order of their digests, which is a random one.
    chosen = np.argsort(train_set.flags["own"] == 0, kind="stable")[: params.domain_images]
    known = train_set.images[np.sort(chosen)]
    parts = calibrate(model, params, load_images(DATASET / "calibration.safetensors"), known)
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    parts["domain"]["geometry"] = report["geometry"]
    size = config["image_size"]
    card = {
        "format": 1, "name": "ai-product-photo-detector", "version": params.version, "license": "MIT",
        "labels": list(LABELS),
        "input": {"height": size, "width": size, "resize": "squash-bicubic", "layout": "NHWC uint8 RGB",
                  "mean": config["mean"], "std": config["std"]},
        "head_bias": model.head_bias,
        **parts,
        "data": {"dataset": report["dataset"], "digest": config["data_sha256"]},
        "checkpoint_sha256": sha256_file(CHECKPOINT),
        "params": {"train": config, "export": params.model_dump(mode="json")},
    }  # fmt: skip
    write_onnx(OUT, model, card)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB, version {params.version}")


if __name__ == "__main__":
    run_stage(main)
