"""The network as it is exported, and the ONNX file that holds it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.common import StageError, whole_file
from stages.model import Detector

Float = npt.NDArray[np.float64]

# Steps between neighbouring pixels' luma (0..1), from none at all to an edge: a photo has all sizes of them; a drawing,
# a text or a plain colour has flat places and edges, noise has no small ones. The network's pooled features tell little
# of that: the model card shows what they alone take for photos. No step of 8-bit pixels falls on one of these borders.
STEPS = (0.002001, 0.006001, 0.012001, 0.024001, 0.050001, 0.100001, 0.200001)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def texture(pixels: Tensor) -> Tensor:
    """Return the share of steps below each of `STEPS`: float32 [N, 3, H, W] in 0..1 -> float32 [N, 7]."""
    luma = (pixels * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(1)
    across, down = luma[:, :, 1:] - luma[:, :, :-1], luma[:, 1:] - luma[:, :-1]
    steps = torch.cat([across.flatten(1), down.flatten(1)], 1).abs()
    return torch.stack([(steps < step).float().mean(1) for step in STEPS], 1)


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
        self.register_buffer("centre", torch.zeros(channels + len(STEPS)))
        self.register_buffer("whitening", torch.eye(channels + len(STEPS)))

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
        description = torch.cat([embedding, texture(pixels)], 1)
        distance = ((description - self.centre) @ self.whitening).square().sum(1).sqrt()
        return torch.sigmoid(logit), embedding, heatmap, distance


@torch.no_grad()
def run(model: Exported, images: npt.NDArray[np.uint8], what: str) -> tuple[Float, Float]:
    """Return logit float64 [N] and description float64 [N, D + 7] of uint8 [N, H, W, 3], in torch.

    The logit comes from the heat map: a probability near 1 has lost it. The description is the embedding and the
    texture, which `distance` compares with the training photos'.
    """
    logits, descriptions = [], []
    for start in tqdm(range(0, len(images), 256), desc=what, mininterval=2):
        photos = torch.from_numpy(images[start : start + 256])
        _, embedding, heatmap, _ = model(photos)
        logits.append(heatmap.double().mean((1, 2)) + model.head_bias)
        descriptions.append(torch.cat([embedding, texture(photos.permute(0, 3, 1, 2).float() / 255)], 1))
    return torch.cat(logits).numpy(), torch.cat(descriptions).double().numpy()


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
