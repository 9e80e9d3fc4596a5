"""Time and peak memory of the pipeline's stages as the data grow, and how long a training step waits for its photos.

python bench/pipeline.py CIFAKE.tar.xz [--images 1000 10000 100000 120000] [--report reports/bench_pipeline.json]

Each stage runs as `dvc repro` runs it, in a folder of its own, on the first images of the archive; `train` for one
epoch. With more images than 100,000 only download and preprocess run. Release never runs: it reads test.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.workspace import MODEL, REPO, Workspace
from stages.common import sha256_file
from stages.data.cifake import collect
from stages.data.image_sets import load_images, save_images
from stages.data.sources import LAYOUT, from_archive, members
from stages.training import trainer
from tools.report.render import block

SETS = ("train", "validation")
STAGES = ("download", "preprocess", "train", "export", "evaluate")
TARGETS = {"download_and_preprocess_seconds": 90, "data_share_of_step": 0.05}
# Linux counts to a process's peak what its parent held when it began: so the parent must be a small one.
_LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"seconds": round(time.perf_counter() - started, 1), "peak_mb": round(peak)}))
"""
PACKAGES = ("numpy", "pillow", "scikit-learn", "timm", "torch")


def cut(archive: Path, out: Path, images: int) -> str:
    """Write a zip of the first images, a sixth of them test, and return the digest that the download stage expects."""
    quota = {("train", label): (images * 5 // 6) // 2 for label in ("REAL", "FAKE")}
    quota |= {("test", label): images // 2 - quota["train", label] for label in ("REAL", "FAKE")}
    with zipfile.ZipFile(out, "w") as file:
        for name, data in tqdm(members(archive), desc=f"{images:,} images", mininterval=2):
            if (match := LAYOUT.search(name)) and quota[key := (match[1].lower(), match[2].upper())]:
                quota[key] -= 1
                file.writestr(name, data)
    if any(quota.values()):
        sys.exit(f"error: {archive} holds too few images: {quota} are missing")
    digest = out.with_suffix(".safetensors")
    save_images(digest, collect(from_archive(out))[0])
    return sha256_file(digest)


def measure(folder: Path, *command: str, **settings: str) -> dict[str, float]:
    """Run a module in a workspace; return its seconds and peak memory in MB."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    whole = [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", *command]
    run = subprocess.run(whole, cwd=folder, env=environment | settings, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    return dict(json.loads(run.stdout.splitlines()[-1]))


def data_share(folder: Path, params: dict[str, Any]) -> float:
    """Return the share of an epoch's steps in which training waits for photos."""
    waited = whole = 0.0

    def timed(items: Iterable[Any]) -> Iterator[Any]:
        nonlocal waited, whole
        iterator, began = iter(real(items)), time.perf_counter()
        while True:
            started = time.perf_counter()
            item = next(iterator, None)
            waited += time.perf_counter() - started
            if item is None:
                whole = time.perf_counter() - began
                return
            yield item

    real, trainer.prefetch = trainer.prefetch, timed  # type: ignore[attr-defined]  # not re-exported, but there
    train_set, validation_set = (load_images(folder / f"build/cifake/dataset/{name}.safetensors") for name in SETS)
    chosen = trainer.TrainParams.model_validate(params | {"epochs": 1})
    trainer.train(chosen, train_set, validation_set, folder / "state.pt")
    return waited / whole


def main() -> None:
    """Print a table and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000, 120_000])
    parser.add_argument("--report", type=Path, default=REPO / "reports" / "bench_pipeline.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        for images in options.images:
            part = Path(name) / f"{images}.zip"
            digest = cut(options.archive, part, images)
            space = Workspace(Path(name) / str(images), download={"sha256": digest}, train={"epochs": 1})
            (space.folder / "data").mkdir()
            for stage in STAGES[: 2 if images > 100_000 else None]:
                found = measure(space.folder, f"stages.{stage}", MODEL, CIFAKE_ARCHIVE=str(part))
                rows.append({"images": images, "stage": stage} | found)
                print(json.dumps(rows[-1]), flush=True)
        middle = sorted(options.images)[len(options.images) // 2 - 1]
        share = data_share(Path(name) / str(middle), space.params["train"])
    last = max(options.images)
    figures = {
        "download_and_preprocess_seconds": sum(row["seconds"] for row in rows[-2:]),
        "download_and_preprocess_images": last,
        "data_share_of_step": round(share, 4),
    }
    report = {
        "cores": os.cpu_count(),
        "targets": TARGETS,
        "figures": figures,
        "rows": rows,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
    }
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{block('stages', report)}\n{json.dumps(figures, indent=2)}")


if __name__ == "__main__":
    main()
