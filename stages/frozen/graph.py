"""The encoder and its head as they are exported: one ONNX graph, whose large weights lie in the encoder's own file."""

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import external_data_helper
from torch import Tensor, nn

from service.models.card import Card
from stages.common import StageError
from stages.exporting.inference_graph import export_program, write_proto
from stages.frozen.encoder import ENCODER, Encoder

Float = npt.NDArray[np.float64]

_SMALL = 1024  # bytes; a tensor below it stays in the graph
_SHARED = re.compile(r"^encoder\.(vit|smaller\.\d+)\.")  # each size names the weights that all sizes share


@dataclass(frozen=True)
class Domain:
    """What says how unlike the known photos one is.

    Attributes:
        centre: float64 [D], of the known features.
        whitening: float64 [D, K]: (features - centre) @ whitening is the embedding, of variance 1 in each direction.
        unit: the embedding's length that counts as 1.
        drawn: float64 [K], with `drawn_bias` a score of being drawn, on the same scale.
        drawn_bias: likewise.
    """

    centre: Float
    whitening: Float
    unit: float
    drawn: Float
    drawn_bias: float

    def embedding(self, features: npt.NDArray[Any]) -> Float:
        """Return the embeddings of features: float [N, D] -> float64 [N, K]."""
        embedding: Float = (features.astype(np.float64) - self.centre) @ self.whitening
        return embedding

    def score(self, embedding: Float) -> Float:
        """Return the OOD scores of embeddings: float64 [N, K] -> float64 [N]; 99 % of the known have less than 1."""
        length = np.linalg.norm(embedding, axis=1)
        score: Float = np.maximum(length / self.unit, embedding @ self.drawn + self.drawn_bias)
        return score


class InferenceGraph(nn.Module):
    """uint8 photos -> probability, embedding and OOD score, out of one forward pass."""

    weight: Tensor
    bias: Tensor
    centre: Tensor
    whitening: Tensor
    unit: Tensor
    drawn: Tensor
    drawn_bias: Tensor

    def __init__(self, encoder: Encoder, weight: Float, bias: float, domain: Domain) -> None:
        """Put a head on an encoder.

        Args:
            encoder: gives features float32 [N, D].
            weight: float64 [D], of the calibrated logit.
            bias: likewise.
            domain: what is known.
        """
        super().__init__()
        self.encoder = encoder
        for name, value in {"weight": weight, "bias": bias, **vars(domain)}.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] -> float32 probability [N], embedding [N, K], OOD score [N]."""
        features = self.encoder(images)
        embedding = (features - self.centre) @ self.whitening
        length = embedding.square().sum(1).sqrt()
        ood_score = torch.maximum(length / self.unit, embedding @ self.drawn + self.drawn_bias)
        return torch.sigmoid(features @ self.weight + self.bias), embedding, ood_score


def write_onnx(path: Path, model: InferenceGraph, card: Card, encoder: Path) -> None:
    """Write the model with its card as its metadata, whole or not at all; the same inputs give the same bytes.

    Args:
        path: the ONNX file. It names the tensors of the encoder's file by their places in it, and holds the rest.
        model: what is written.
        card: of it.
        encoder: the encoder's file.

    Raises:
        StageError: ONNX lacks an operation of the network.
    """
    size = (card.input.height, card.input.width)
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    proto = export_program(model, example, ["probability", "embedding", "ood_score"])
    places = tensor_places(encoder)
    raw = np.memmap(encoder, mode="r")
    named = 0
    for tensor in proto.graph.initializer:
        start, length = places.get(_SHARED.sub("", tensor.name), (0, 0))
        if length >= _SMALL and tensor.raw_data == raw[start : start + length].tobytes():
            external_data_helper.set_external_data(tensor, ENCODER, start, length)
            tensor.ClearField("raw_data")
            named += length
    if named < 0.9 * sum(length for _, length in places.values()):
        raise StageError(f"{encoder}: the exported graph changed its tensors, so they cannot be taken from there")
    write_proto(path, proto, card)


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each tensor of a safetensors file lies: name -> first byte and length."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {
        name: (8 + length + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
