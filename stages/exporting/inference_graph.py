"""The network as it is exported, and the ONNX file that holds it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from tqdm import tqdm

from service.models.card import Card
from stages.common import StageError, whole_file
from stages.training.model import Detector

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


class InferenceGraph(nn.Module):
    """uint8 photos -> probability, embedding, heat map and OOD score, all out of one forward pass."""

    slope: Tensor
    intercept: Tensor
    centre: Tensor
    whitening: Tensor
    unit: Tensor
    drawn: Tensor
    drawn_bias: Tensor

    def __init__(self, model: Detector, flip_average: bool) -> None:
        """Wrap a trained detector; `calibrate` sets what is learned after training."""
        super().__init__()
        self.model, self.flip_average = model, flip_average
        self.middle = len(model.maps) // 2
        size = model.head.in_features + 2 * model.maps[self.middle][0] + len(STEPS)
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("whitening", torch.eye(size))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("drawn", torch.zeros(size))
        self.register_buffer("drawn_bias", torch.zeros(()))

    @property
    def head_bias(self) -> float:
        """What the heat map's mean lacks to the calibrated logit."""
        return float((self.slope * self.model.head.bias + self.intercept).detach())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] -> float32 probability [N], embedding [N, D], heatmap [N, h, w], OOD score [N]."""
        features, description = self.described(images)
        embedding = features.mean((2, 3))
        weight = self.slope * self.model.head.weight[0]
        heatmap = (features * weight[:, None, None]).sum(1)
        logit = heatmap.mean((1, 2)) + self.slope * self.model.head.bias + self.intercept
        away = (description - self.centre) @ self.whitening
        ood_score = torch.maximum(away.square().sum(1).sqrt() / self.unit, away @ self.drawn + self.drawn_bias)
        return torch.sigmoid(logit), embedding, heatmap, ood_score

    def described(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map float32 [N, D, h, w], and the description float32 [N, E] that the OOD score judges.

        The description is the embedding, mean and standard deviation of each channel of the backbone's middle map, and
        the texture: the deeper a map, the less it tells of what has nothing to do with the two classes.
        """
        pixels = images.permute(0, 3, 1, 2).float() / 255
        features, middle = self._maps(pixels)
        if self.flip_average:  # mean of the photo's map and its mirror image's, mirrored back
            mirrored, mirrored_middle = self._maps(pixels.flip(3))
            features, middle = (features + mirrored.flip(3)) / 2, (middle + mirrored_middle) / 2
        return features, torch.cat([features.mean((2, 3)), middle, texture(pixels)], 1)

    def _maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        last, (middle,) = self.model.backbone.forward_intermediates(  # type: ignore[operator]
            self.model.normalised(pixels), indices=[self.middle]
        )
        flat = middle.flatten(2)
        return self.model.as_map(last), torch.cat([flat.mean(2), flat.std(2)], 1)


@torch.no_grad()
def run(model: InferenceGraph, batches: Iterable[npt.NDArray[np.uint8]], what: str) -> tuple[Float, Float]:
    """Return logit float64 [N] and description float64 [N, E] of batches uint8 [M, H, W, 3], in torch.

    The logit comes from the heat map's mean: a probability near 1 has lost it.
    """
    logits, descriptions = [], []
    for batch in tqdm(batches, desc=what, unit=" batches", mininterval=2, delay=1):
        features, description = model.described(torch.from_numpy(batch))
        pooled = features.double().mean((2, 3)) @ model.model.head.weight[0].double()
        logits.append(model.slope.double() * pooled + model.head_bias)
        descriptions.append(description)
    return torch.cat(logits).numpy(), torch.cat(descriptions).double().numpy()


def write_onnx(path: Path, model: InferenceGraph, card: Card) -> None:
    """Write the model with its card as its metadata, whole or not at all; the same inputs give the same bytes."""
    example = torch.zeros(2, card.input.height, card.input.width, 3, dtype=torch.uint8)
    proto = export_program(model, example, ["probability", "embedding", "heatmap", "ood_score"])
    write_proto(path, proto, card)


def export_program(model: nn.Module, example: Tensor, outputs: list[str]) -> onnx.ModelProto:
    """Return a module as ONNX: uint8 `images` [N, H, W, 3] -> `outputs`; the same weights give the same bytes.

    Raises:
        StageError: ONNX lacks an operation of the network.
    """
    program = torch.onnx.export(
        model, (example,), dynamo=True, input_names=["images"], verbose=False, optimize=True,
        output_names=outputs, dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
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
    onnx.checker.check_model(proto)
    return proto


def write_proto(path: Path, proto: onnx.ModelProto, card: Card) -> None:
    """Write an ONNX file with the card as its metadata, whole or not at all."""
    onnx.helper.set_model_props(proto, {"card": card.of_file.to_json()})
    with whole_file(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
