"""A tiny, deterministic model file that honours the contract of models/cifake/model.onnx.

python tests/support/tiny_model.py model.onnx
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
HEAD_BIAS = -0.25

CARD: dict[str, Any] = {
    "format": 1,
    "name": "ai-product-photo-detector",
    "version": "0.0.1",
    "license": "MIT",
    "labels": ["real", "ai_generated"],
    "input": {
        "height": SIZE,
        "width": SIZE,
        "resize": "squash-bicubic",
        "layout": "NHWC uint8 RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
    "head_bias": HEAD_BIAS,
    "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0, "prior_ai": 0.5, "images": 100, "reals": 50},
    "thresholds": {
        "flag": {"0.05": 0.7, "0.01": 0.8, "0.005": 0.85, "0.001": 0.9},
        "clear": 0.2,
        "clear_miss": 0.05,
    },
    "domain": {
        "method": "mahalanobis",
        "threshold": 6.0,
        "out_share": 0.02,
        "geometry": {"min_width": SIZE, "max_width": SIZE, "min_height": SIZE, "max_height": SIZE},
    },
    "data": {"dataset": "synthetic", "digest": "0" * 64},
    "checkpoint_sha256": "0" * 64,
    "params": {},
}


def build(
    path: Path, card: dict[str, Any] | None = None, size: tuple[int, int] = (SIZE, SIZE), **metadata: str
) -> Path:
    """Write the model: 8 random 8x8-patch features, a linear head, the class activation map; return `path`.

    Args:
        path: where the file goes.
        card: another card than `CARD`.
        size: height and width of the photos that it takes, in pixels; multiples of 8.
        metadata: metadata written instead of the card, for files that are no detector.
    """
    random = np.random.default_rng(0)
    weights = {
        "scale": np.float32(1 / 127.5),
        "one": np.float32(1),
        "kernel": random.normal(0, 0.1, (8, 3, 8, 8)).astype(np.float32),
        "head": random.normal(0, 4, (1, 8, 1, 1)).astype(np.float32),
        "bias": np.float32(HEAD_BIAS),
        "channel_axis": np.array([1], dtype=np.int64),
        "map_axes": np.array([1, 2], dtype=np.int64),
        "place_axes": np.array([2, 3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["normal"]),
        helper.make_node("Transpose", ["normal"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["patches"], strides=[8, 8]),
        helper.make_node("Tanh", ["patches"], ["features"]),
        helper.make_node("Conv", ["features", "head"], ["map"]),
        helper.make_node("Squeeze", ["map", "channel_axis"], ["heatmap"]),
        helper.make_node("ReduceMean", ["heatmap", "map_axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("ReduceMean", ["features", "place_axes"], ["embedding"], keepdims=0),
        helper.make_node("ReduceL2", ["embedding", "channel_axis"], ["norm"], keepdims=0),
        helper.make_node("Mul", ["norm", "ten"], ["distance"]),
    ]
    weights["ten"] = np.float32(10)

    def tensor(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, list(shape))

    graph = helper.make_graph(
        nodes,
        "detector",
        [tensor("images", TensorProto.UINT8, "N", *size, 3)],
        [
            tensor("probability", TensorProto.FLOAT, "N"),
            tensor("embedding", TensorProto.FLOAT, "N", 8),
            tensor("heatmap", TensorProto.FLOAT, "N", size[0] // 8, size[1] // 8),
            tensor("distance", TensorProto.FLOAT, "N"),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {"card": json.dumps(card or CARD)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def release(folder: Path, version: str, **changes: Any) -> Path:
    """Write the model with its card.json, and return the folder; `changes` are parts of another card than `CARD`."""
    folder.mkdir(parents=True, exist_ok=True)
    inside = CARD | changes | {"version": version}
    size = inside["input"]["height"], inside["input"]["width"]
    data = build(folder / "model.onnx", inside, size).read_bytes()
    card = {
        "version": version,
        "sha256": hashlib.sha256(data).hexdigest(),
        "git_commit": "abc",
        "released_at": "2026-01-01T00:00:00+00:00",
        "validation": {"accuracy": 0.9},
        "metrics": {"test": {"accuracy": 0.9, "auc": 0.95, "ece": 0.01}},
        "assessment": {},
        "model": inside,
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


if __name__ == "__main__":
    build(Path(sys.argv[1]))
