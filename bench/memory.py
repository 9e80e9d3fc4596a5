"""Peak memory of each stage on an image set that is larger than it: 10,000 photos of 512 x 512 pixels.

python bench/memory.py [--images 10000] [--size 512] [--report reports/bench_memory.json]

The photos are synthetic and lie in a temporary folder (some 15 GB); a small network is trained on them for one epoch.
Memory is what a process has of its own (`RssAnon` and `RssShmem` of /proc/PID/status), looked at twenty times a second.
Pages of files that it reads do not count: they are the system's cache, which gives way as soon as others need the room.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.workspace import MODEL, REPO, Workspace
from stages.paths import ModelPaths

STAGES = ("download", "preprocess", "train", "export", "evaluate")
PACKAGES = ("numpy", "pillow", "safetensors", "timm", "torch")
# Not narrower: on some processors torch 2.13 crashes in the backward pass of such convolutions in channels_last.
BACKBONE = {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32], "stem_type": "deep", "stem_width": 8}
MOST_MB = 2000


def parameters(images: int, size: int) -> dict[str, dict[str, Any]]:
    """Return what differs from params.yaml: the data, and as little work for each photo as can be."""
    return {
        "download": {"dataset": "synthetic", "synthetic_images": images, "synthetic_size": size},
        "preprocess": {"image_size": size},
        "train": {"backbone": "resnet18", "backbone_args": BACKBONE, "stem": "stock", "epochs": 1, "batch_size": 16,
                  "precision": "fp32"},
        "export": {"flip_average": False, "domain_images": 1000, "domain_drawings": 50},
        "evaluate": {"evaluators": ["figures", "slices"]},
    }  # fmt: skip


def own_megabytes(pid: int) -> float:
    """Return the memory that a process has of its own; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields.get(name, "0").split()[0]) for name in ("RssAnon", "RssShmem")) / 1024


def measure(space: Workspace, stage: str) -> dict[str, Any]:
    """Run one stage; return its peak memory in MB."""
    peak = 0.0
    process = subprocess.Popen(**space.process(stage))
    while process.poll() is None:
        peak = max(peak, own_megabytes(process.pid))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"error: the stage {stage} failed")
    return {"stage": stage, "peak_mb": round(peak)}


def main() -> None:
    """Run the stages and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--report", type=Path, default=REPO / "reports" / "bench_memory.json")
    options = parser.parse_args()
    paths = ModelPaths(MODEL)
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        space = Workspace(Path(name), **parameters(options.images, options.size))
        rows = []
        for stage in STAGES:
            rows.append(measure(space, stage))
            print(json.dumps(rows[-1]), flush=True)
        sets = [file for folder in (paths.raw, paths.dataset, paths.test) for file in (space.folder / folder).iterdir()]
        on_disk = sum(path.stat().st_size for path in sets)
    report = {
        "images": options.images,
        "size": options.size,
        "pixels_mb": round(2 * options.images * options.size**2 * 3 / 1e6),  # of raw and split photos
        "on_disk_mb": round(on_disk / 1e6),
        "target_mb": MOST_MB,
        "rows": rows,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
    }
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if (most := max(row["peak_mb"] for row in rows)) > MOST_MB:
        sys.exit(f"error: {most} MB are more than {MOST_MB} MB")


if __name__ == "__main__":
    main()
