"""What it brings that the C library keeps freed memory while features are made (`encoder.keep_memory`).

python bench/features.py [--rounds 5] [--report reports/bench_features.json]

Both ways run in processes of their own, in turns: each sees the same 64 photos of noise, in the pipeline's precision.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.common import load_params, write_json
from stages.frozen import encoder
from stages.frozen.encoder import encoder_file, load_encoder
from stages.frozen.features import features_of
from stages.frozen.params import PreprocessParams
from stages.paths import ModelPaths

NAME, KEEP = "photos", "BENCH_KEEP_MEMORY"
PHOTOS, BATCH = 64, 16


def photos_per_second() -> float:
    """Return how many photos this process sees in a second."""
    if os.environ[KEEP] == "0":
        encoder.keep_memory = lambda: None
    params = load_params("preprocess", PreprocessParams, NAME)
    model = load_encoder(encoder_file(ModelPaths(NAME), params.encoder), params.encoder).ready(params.precision)
    side = params.encoder.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (PHOTOS, side, side, 3), np.uint8)
    features_of(model, pixels[:BATCH])
    start = time.perf_counter()
    features_of(model, pixels, BATCH)
    return PHOTOS / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report", type=Path, default=Path("reports/bench_features.json"))
    options = parser.parse_args()
    if KEEP in os.environ:
        print(photos_per_second())
        return
    ratios = []
    for _ in range(options.rounds):
        each = {}
        for keep in ("0", "1"):
            run = subprocess.run(  # noqa: S603 - this file itself
                [sys.executable, __file__], env=os.environ | {KEEP: keep}, capture_output=True, text=True, check=True
            )
            each[keep] = float(run.stdout)
        ratios.append(each["1"] / each["0"])
        print(f"{each['0']:.2f} and {each['1']:.2f} photos/s: {ratios[-1]:.2f} times as fast", flush=True)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    write_json(options.report, {
        "what": "photos a second with freed memory kept, divided by those without",
        "rounds": options.rounds, "quartiles": [round(value, 3) for value in quartiles],
    })  # fmt: skip


if __name__ == "__main__":
    main()
