"""A tiny model on a frozen encoder, whose weights lie beside its ONNX file, as `stages.frozen` writes it.

python tests/support/tiny_frozen.py FOLDER
"""

import hashlib
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from PIL import Image

from service.models.card import Card, Release
from stages.common import sha256_file
from stages.exporting.inference_graph import write_proto
from stages.frozen.encoder import ENCODER, EncoderParams, load_encoder, write_encoder
from stages.frozen.graph import Domain, InferenceGraph, write_onnx
from stages.with_timm import import_timm
from tests.support import tiny_model

REPO = Path(__file__).resolve().parents[2]
SIZE = 32
LIMITS = {"min_width": 40, "max_width": 400, "min_height": 40, "max_height": 400}  # of the photos that it knows
PARAMS = EncoderParams(timm="vit_tiny_patch16_224", blocks=1, image_size=SIZE, class_tokens=(1,), patch_means=(1,))
CARD: dict[str, Any] = {
    **tiny_model.CARD,
    "format": 2,
    "name": "photos",
    "version": "1.0.0",
    "input": tiny_model.CARD["input"] | {"resize": "crop"},
    "heatmap": {"kind": "windows", "across": 3, "down": 3, "share": 0.5},
    "domain": {"threshold": 1000.0, "geometry": LIMITS},
}
del CARD["head_bias"]
_ENCODER = {
    "timm": "vit_tiny_patch16_224", "blocks": 2, "image_size": 64, "smaller_sizes": [32], "class_tokens": [1, 2],
    "patch_means": [1], "sha256": "",
}  # fmt: skip
SECTIONS: dict[str, dict[str, Any]] = {  # of params.yaml, with which the stages take seconds
    "download": {"dataset": "synthetic", "synthetic_images": 120, "synthetic_size": 96},
    "preprocess": {"encoder": _ENCODER, "precision": "fp32", "views": 1, "drawings": 12, "test_ai_share": 0.2},
    "train": {"draws": 1, "folds": 2, "penalties": [0.01, 0.1], "inverse_penalty": 0.1},
    "export": {"domain_components": 8, "min_side": 60},
    "evaluate": {"rewritten_photos": 8, "served_photos": 4, "graphics": 2},
    "release": {
        "dataset": "synthetic", "min_auc": 0, "min_recall": 0, "max_false_positive_rate_excess": 1, "max_ece": 1,
        "max_worst_source": 1, "max_render_flagged": 1, "max_out_of_domain": 1, "min_agreement": 0,
        "max_own_flagged": 1, "max_auc_loss": 1,
    },
}  # fmt: skip


def release(folder: Path, version: str = "1.0.0", seed: int = 0, **changes: Any) -> Path:
    """Write the model with its card.json and its encoder, and return the folder.

    Args:
        folder: where they go.
        version: of the model.
        seed: of the encoder's random weights.
        changes: parts of another card than `CARD`.
    """
    encoder, model = _made(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENCODER).write_bytes(encoder)
    card = card_of(encoder).model_copy(update={"version": version})
    card = Card.model_validate(card.model_dump(exclude_none=True) | changes)
    write_proto(folder / "model.onnx", onnx.load_from_string(model), card)
    said = Release(
        git_commit="abc",
        released_at="2026-01-01T00:00:00+00:00",
        validation={"accuracy": 0.9},
        metrics={"test": {"accuracy": 0.9, "auc": 0.95, "ece": 0.01}},
    )
    whole = card.model_copy(update={"sha256": sha256_file(folder / "model.onnx"), "release": said})
    (folder / "card.json").write_text(whole.to_json())
    return folder


def make_encoder(path: Path, **changes: Any) -> EncoderParams:
    """Write the file of a tiny encoder with random weights."""
    params = EncoderParams.model_validate(_ENCODER | changes)
    torch.manual_seed(0)
    vit = import_timm().create_model(params.timm, num_classes=0)
    weights = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_encoder(path, params, weights)
    return params


def small_sections(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return the params of the model `photos` with `SECTIONS`, and with the given keys of sections."""
    text = (REPO / "params.yaml").read_text(encoding="utf-8")
    sections: dict[str, Any] = yaml.safe_load(text)["models"]["photos"]
    for source in (SECTIONS, changes):
        for section, values in source.items():
            sections[section] |= values
    return sections


def card_of(encoder: bytes) -> Card:
    """Return the card of a model with this encoder's file."""
    return Card.model_validate(CARD | {"encoder": {"file": ENCODER, "sha256": hashlib.sha256(encoder).hexdigest()}})


def red_patch(width: int, height: int) -> Image.Image:
    """Return a photo of noise; the quarter at its lower left is red, which speaks for generated."""
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[height // 2 :, : width // 2, 1:] //= 4
    return Image.fromarray(noise)


@cache
def _made(seed: int) -> tuple[bytes, bytes]:
    """Return an encoder's file of random weights, and the ONNX file of a head that takes red noise for generated."""
    generator = torch.Generator().manual_seed(seed)
    vit = import_timm().create_model(PARAMS.timm, num_classes=0)
    weights = {name: 0.05 * torch.randn(tensor.shape, generator=generator) for name, tensor in vit.state_dict().items()}
    noise = np.random.default_rng(seed).integers(0, 256, (2, 64, SIZE, SIZE, 3), dtype=np.uint8)
    noise[0, ..., 1:] //= 4
    with tempfile.TemporaryDirectory() as temporary:
        file, model = Path(temporary) / ENCODER, Path(temporary) / "model.onnx"
        write_encoder(file, PARAMS, {name: tensor.numpy() for name, tensor in weights.items()})
        encoder = load_encoder(file, PARAMS)
        with torch.no_grad():
            red, grey = (encoder(torch.from_numpy(images)).double().numpy().mean(0) for images in noise)
        weight = 6 * (red - grey) / np.square(red - grey).sum()  # of the logit: 3 for red, -3 for grey
        whitening = np.random.default_rng(seed).normal(0, 0.1, (len(weight), 8))
        domain = Domain(grey, whitening, 1.0, np.zeros(8), 0.0)
        graph = InferenceGraph(encoder, weight, float(-weight @ (red + grey) / 2), domain).eval()
        write_onnx(model, graph, card_of(file.read_bytes()), file)
        return file.read_bytes(), model.read_bytes()


if __name__ == "__main__":
    release(Path(sys.argv[1]))
