"""Time and peak memory of the pipeline's stages as the data grow, and how long a training step waits for its photos.

python bench/stages.py CIFAKE.tar.xz [--images 1000 10000 100000 120000] [--report reports/bench_stages.json]

Each stage runs as `dvc repro` runs it, in a folder of its own, on the first images of the archive; `train` for one
epoch. With more images than 100,000 only download and preprocess run. Release never runs: it reads test.
"""

import argparse
import json
import os
import platform
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

from bench.workspace import REPO, Workspace
from stages import train as training
from stages.common import sha256_file
from stages.data import load_images, save_images
from stages.download import collect
from stages.sources import LAYOUT, from_archive, members

SETS = ("train", "validation")
STAGES = ("download", "preprocess", "train", "export", "evaluate")
TARGETS = {"download_and_preprocess_seconds": 90, "data_share_of_step": 0.05}
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


def measure(folder: Path, stage: str, archive: Path) -> dict[str, float]:
    """Run a stage; return its seconds and peak memory in MB."""
    environment = os.environ | {
        "PYTHONPATH": str(REPO),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "CIFAKE_ARCHIVE": str(archive),
    }
    started = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-m", f"stages.{stage}"], environment)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"error: stage {stage} failed")
    return {"seconds": round(time.perf_counter() - started, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


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

    real, training.ahead = training.ahead, timed  # type: ignore[attr-defined]  # not re-exported, but there
    train_set, validation_set = (load_images(folder / f"build/dataset/{name}.safetensors") for name in SETS)
    chosen = training.TrainParams.model_validate(params | {"epochs": 1})
    training.train(chosen, train_set, validation_set, folder / "state.pt")
    return waited / whole


def main() -> None:
    """Print a table and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000, 120_000])
    parser.add_argument("--report", type=Path, default=REPO / "reports" / "bench_stages.json")
    options = parser.parse_args()
    archive = options.archive.resolve()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        for images in options.images:
            part = Path(name) / f"{images}.zip"
            digest = cut(archive, part, images)
            space = Workspace(Path(name) / str(images), download={"sha256": digest}, train={"epochs": 1})
            (space.folder / "data").mkdir()
            os.chdir(space.folder)
            for stage in STAGES[: 2 if images > 100_000 else None]:
                rows.append({"images": images, "stage": stage} | measure(space.folder, stage, part))
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
    print("\n| stage | " + " | ".join(f"{images:,} images" for images in options.images) + " |")
    print("|---|" + "---:|" * len(options.images))
    for stage in STAGES:
        found = {row["images"]: f"{row['seconds']} s, {row['peak_mb']} MB" for row in rows if row["stage"] == stage}
        print(f"| {stage} | " + " | ".join(found.get(images, "") for images in options.images) + " |")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
