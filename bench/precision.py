"""Whether a score depends on the arithmetic: the released file of `photos` as it is served, and in two other ways.

python bench/precision.py [--photos 200] [--report reports/bench_precision.json]

It needs build/photos/dataset (dvc repro preprocess@photos). The same photos are scored by the file with ONNX Runtime's
usual options; with `session.x64quantprecision`, which keeps eight-bit products of processors without VNNI from
saturating; and by PyTorch in float32, from the encoder's file and the head's.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.models.detector import Detector
from service.photo import decode
from stages.common import load_params, write_json
from stages.frozen.dataset import PHOTOS, load, read_photos
from stages.frozen.encoder import ENCODER, load_encoder
from stages.frozen.evaluate import calibrated, sample
from stages.frozen.head import load_head
from stages.frozen.params import PreprocessParams
from stages.paths import ModelPaths

NAME = "photos"
AS_SERVED, PRECISE, FLOAT = "as served", "session.x64quantprecision", "PyTorch, float32"


@contextlib.contextmanager
def precise() -> Iterator[None]:
    """Let every session be made with `session.x64quantprecision`."""
    usual = onnxruntime.SessionOptions

    def options() -> Any:
        made = usual()
        made.add_session_config_entry("session.x64quantprecision", "1")
        return made

    with mock.patch("onnxruntime.SessionOptions", options):
        yield


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--report", type=Path, default=Path("reports/bench_precision.json"))
    options = parser.parse_args()
    paths = ModelPaths(NAME)
    encoder = load_params("preprocess", PreprocessParams, NAME).encoder
    head, _ = load_head(paths.released.checkpoint)
    served = Detector(paths.released.path)
    with precise():
        other = Detector(paths.released.path)
    model = load_encoder(paths.released.path / ENCODER, encoder).ready("fp32")
    photos = load(paths.dataset)
    digests = photos.rows.sha256[sample(photos, options.photos)].tolist()
    files = read_photos(paths.dataset / PHOTOS, digests)
    found: dict[str, list[float]] = {name: [] for name in (AS_SERVED, PRECISE, FLOAT)}
    for digest in tqdm(digests, "photos"):
        pixels = served.prepare(decode(files[digest], min_side=1, max_pixels=200_000_000).image)[None]
        found[AS_SERVED].append(float(served.score(pixels).probability[0]))
        found[PRECISE].append(float(other.score(pixels).probability[0]))
        with torch.no_grad():
            features = model(torch.from_numpy(pixels)).numpy()
        found[FLOAT].append(float(calibrated(served.card, head.logit(features))[0]))
    table = {name: np.array(values) for name, values in found.items()}
    rows = {
        name: {
            "largest_difference": round(float(np.abs(values - table[AS_SERVED]).max()), 7),
            "decisions_changed": int(
                ((values >= served.thresholds.flag) != (table[AS_SERVED] >= served.thresholds.flag)).sum()
            ),
        }
        for name, values in table.items()
        if name != AS_SERVED
    }
    for name, row in rows.items():
        print(name, row)
    write_json(options.report, {"model": served.version, "photos": len(digests), "ways": rows})


if __name__ == "__main__":
    main()
