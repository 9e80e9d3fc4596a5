"""Make the file of a frozen encoder, as `preprocess.encoder` of params.yaml describes it.

python -m tools.encoder photos                 the weights come from the Hugging Face hub, by timm's name
python -m tools.encoder photos --onnx FILE     or out of an ONNX file of a CLIPVisionModel whose matrices are int8
"""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from stages.common import StageError, load_params, model_paths, run_command, sha256_file
from stages.frozen.encoder import ENCODER, EncoderParams, Float32, Int8, write_encoder
from stages.frozen.params import PreprocessParams
from stages.with_timm import import_timm

Weights = dict[str, Float32 | tuple[Int8, Float32]]

_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)$")
_IN_A_BLOCK = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
               "mlp.fc2": "mlp.fc2"}  # fmt: skip
_BEFORE = {
    "embeddings.class_embedding": "cls_token", "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.position_embedding.weight": "pos_embed", "pre_layrnorm.weight": "norm_pre.weight",
    "pre_layrnorm.bias": "norm_pre.bias",
}  # fmt: skip


def from_hub(params: EncoderParams) -> Weights:
    """Return the weights that timm's hub has under `params.timm`.

    Raises:
        StageError: the hub is out of reach, or has none of this name.
    """
    try:
        vit = import_timm().create_model(params.timm, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client, timm and the network each have their own
        raise StageError(f"{params.timm} did not come from the hub ({' '.join(str(error).split())[:200]})") from error
    return {name: tensor.numpy() for name, tensor in vit.state_dict().items()}


def from_onnx(path: Path) -> Weights:
    """Return the weights of a CLIPVisionModel, by timm's names, out of an ONNX file with dynamic int8 matrices.

    Its matrices stay in eight bits, so nothing is lost.

    Raises:
        StageError: the file is missing, truncated, or of another kind.
    """
    try:
        graph = onnx.load(path).graph
        tensors = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
        found: dict[str, Any] = {name.removeprefix("vision_model."): value for name, value in tensors.items()}
        for node in (node for node in graph.node if node.op_type == "MatMulInteger"):
            base = node.input[1].removesuffix("_quantized")
            if tensors[f"{base}_zero_point"].any():
                message = f"{node.name} has a zero point, and only matrices without one are read"
                raise ValueError(message)  # noqa: TRY301 - told with the path below
            name = node.name.strip("/").rpartition("/")[0].removeprefix("vision_model/").replace("/", ".")
            found[f"{name}.weight"] = tensors[f"{base}_quantized"].T.copy(), tensors[f"{base}_scale"]
        return _by_timms_names(found)
    except (OSError, KeyError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise StageError(f"{path} is missing, truncated, or holds no CLIPVisionModel ({error})") from error
    except Exception as error:  # protobuf's own
        if type(error).__name__ != "DecodeError":
            raise
        raise StageError(f"{path} is truncated or no ONNX file") from error


def _by_timms_names(found: dict[str, Any]) -> Weights:
    weights: Weights = {ours: found[theirs] for theirs, ours in _BEFORE.items()}
    weights["cls_token"] = found["embeddings.class_embedding"].reshape(1, 1, -1)
    weights["pos_embed"] = found["embeddings.position_embedding.weight"][None]
    blocks = sorted({int(match[1]) for name in found if (match := _BLOCK.match(name))})
    for block in blocks:
        theirs, ours = f"encoder.layers.{block}", f"blocks.{block}"
        for part, name in _IN_A_BLOCK.items():
            for kind in ("weight", "bias"):
                weights[f"{ours}.{name}.{kind}"] = found[f"{theirs}.{part}.{kind}"]
        three = [found[f"{theirs}.self_attn.{which}_proj.weight"] for which in "qkv"]
        biases = [found[f"{theirs}.self_attn.{which}_proj.bias"] for which in "qkv"]
        weights[f"{ours}.attn.qkv.bias"] = np.concatenate(biases)
        weights[f"{ours}.attn.qkv.weight"] = (
            np.concatenate([matrix for matrix, _ in three]), np.concatenate([scale for _, scale in three]),
        )  # fmt: skip
    return weights


def main() -> None:
    """Write build/<model>/encoder.safetensors, and print the digest that belongs into params.yaml."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a key of `models` in params.yaml")
    parser.add_argument("--onnx", type=Path, help="take the weights out of this file")
    given = parser.parse_args()
    params, paths = load_params("preprocess", PreprocessParams, given.model).encoder, model_paths(given.model)
    out = paths.build / ENCODER
    write_encoder(out, params, from_onnx(given.onnx) if given.onnx else from_hub(params))
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB\nmodels.{given.model}.preprocess.encoder.sha256: {sha256_file(out)}"
    )


if __name__ == "__main__":
    run_command(main)
