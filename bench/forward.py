"""One photo through the released model on one core: ONNX Runtime against eager torch, in one run.

python bench/forward.py [build/cifake/candidate/model.onnx]     without a name: the released one
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from service.models.detector import Detector
from stages.common import sha256_file
from stages.exporting.inference_graph import InferenceGraph
from stages.training.model import load_checkpoint

CHECKPOINT = Path("models/cifake/checkpoint.safetensors")
ROUNDS = 200


def milliseconds(work: Callable[[], object]) -> list[float]:
    """Time `work` `ROUNDS` times, after a warm-up."""
    for _ in range(10):
        work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return times


def main() -> None:
    """Print a table of medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=Path("models/cifake/model.onnx"))
    path = parser.parse_args().file
    torch.set_num_threads(1)
    detector = Detector(path, threads=1)
    photo = np.random.default_rng(0).integers(0, 255, (1, detector.height, detector.width, 3), np.uint8)
    rows = {"ONNX Runtime": milliseconds(lambda: detector.score(photo))}
    if CHECKPOINT.exists() and sha256_file(CHECKPOINT) == detector.card.checkpoint_sha256:
        network, _ = load_checkpoint(CHECKPOINT)
        twin = InferenceGraph(network, detector.card.params["export"]["flip_average"]).eval()
        with torch.inference_mode():
            rows["eager torch"] = milliseconds(lambda: twin(torch.from_numpy(photo)))
    else:
        print(f"{CHECKPOINT} is not what {path} was exported from: eager torch is left out")
    base = statistics.median(rows["ONNX Runtime"])
    print(f"{'one photo, one core':<20} {'median ms':>10} {'best ms':>8} {'ratio':>6}")
    for name, times in rows.items():
        print(
            f"{name:<20} {statistics.median(times):>10.2f} {min(times):>8.2f} {statistics.median(times) / base:>6.2f}"
        )


if __name__ == "__main__":
    main()
