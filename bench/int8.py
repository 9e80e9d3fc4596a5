"""What 8-bit weights and activations would do to the released model: time, accuracy on validation, change of scores.

python bench/int8.py [--report reports/bench_int8.json]

ONNX Runtime's static quantization of the convolutions, calibrated on training photos, against the released file in one
run on one core. An experiment: nothing is released. Validation is that of the
last `dvc repro`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import tables
from stages.data.image_sets import load_images

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "cifake" / "model.onnx"
DATASET = ROOT / "build/cifake/dataset"
CALIBRATION = 1024  # training photos
ROUNDS = 60


class Photos(CalibrationDataReader):  # type: ignore[misc]  # untyped there
    """Training photos, in batches."""

    def __init__(self) -> None:
        images = load_images(DATASET / "train.safetensors").images[:CALIBRATION]
        self._batches = iter([{"images": images[start : start + 32]} for start in range(0, CALIBRATION, 32)])

    def get_next(self) -> dict[str, Any] | None:
        """Return a batch, or None after the last."""
        return next(self._batches, None)


def session(path: Path) -> ort.InferenceSession:
    """Return the file at work on one core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Print a table and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_int8.json")
    options = parser.parse_args()
    data = load_images(DATASET / "validation.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(MODEL), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            prepared, quantized, Photos(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["Conv"],
        )  # fmt: skip
        files = {"released": MODEL, "int8": quantized}
        sessions = {name: session(path) for name, path in files.items()}
        megabytes = {name: round(path.stat().st_size / 1e6, 1) for name, path in files.items()}
    times: dict[tuple[str, int], list[float]] = {}
    for batch in (1, 20):
        for turn in range(-5, ROUNDS):  # one after the other, so that what else the machine does meets both
            for name, one in sessions.items():
                started = time.perf_counter()
                one.run(None, {"images": data.images[:batch]})
                if turn >= 0:
                    times.setdefault((name, batch), []).append((time.perf_counter() - started) * 1000 / batch)
    scores = {
        name: np.concatenate(
            [one.run(["probability"], {"images": data.images[i : i + 32]})[0] for i in range(0, len(data), 32)]
        )
        for name, one in sessions.items()
    }
    change = np.abs(scores["int8"] - scores["released"])
    rows = [
        {
            "file": name, "mb": megabytes[name],
            "ms_single": round(statistics.median(times[name, 1]), 2),
            "ms_in_batch": round(statistics.median(times[name, 20]), 2),
            "validation_accuracy": round(float(((scores[name] >= 0.5) == data.labels).mean()), 4),
        }
        for name in files
    ]  # fmt: skip
    report = {
        "ratios": {
            "single_faster": round(rows[0]["ms_single"] / rows[1]["ms_single"], 2),
            "batch_faster": round(rows[0]["ms_in_batch"] / rows[1]["ms_in_batch"], 2),
        },
        "score_change": {"mean": round(float(change.mean()), 4), "largest": round(float(change.max()), 4)},
        "rows": rows,
    }
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(tables.int8(report))


if __name__ == "__main__":
    main()
