"""One photo through the released model on one core: ONNX Runtime against eager torch, in one run.

python bench/forward.py [models/detector.onnx]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from service.detector import Detector
from stages.common import sha256_file
from stages.exported import Exported
from stages.model import load_checkpoint

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
    torch.set_num_threads(1)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "models/detector.onnx")
    detector = Detector(path, threads=1)
    checkpoint = path.with_name("checkpoint.safetensors")
    if sha256_file(checkpoint) != detector.card["checkpoint_sha256"]:
        sys.exit(f"{checkpoint} is not the one {path} was exported from: 'git checkout models/'")
    network, _ = load_checkpoint(checkpoint)
    twin = Exported(network, detector.card["params"]["export"]["flip_average"]).eval()
    photo = np.random.default_rng(0).integers(0, 255, (1, detector.height, detector.width, 3), np.uint8)
    tensor = torch.from_numpy(photo)
    with torch.inference_mode():
        rows = {
            "ONNX Runtime": milliseconds(lambda: detector.score(photo)),
            "eager torch": milliseconds(lambda: twin(tensor)),
        }
    base = statistics.median(rows["ONNX Runtime"])
    print(f"{'one photo, one core':<20} {'median ms':>10} {'best ms':>8} {'ratio':>6}")
    for name, times in rows.items():
        print(
            f"{name:<20} {statistics.median(times):>10.2f} {min(times):>8.2f} {statistics.median(times) / base:>6.2f}"
        )


if __name__ == "__main__":
    main()
