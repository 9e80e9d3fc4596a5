"""A catalogue by `python -m tools.score`: two workers against one and against the floor, and a run that is killed.

python bench/bulk.py CIFAKE.tar.xz [--photos 20000] [--catalogue 100000] [--report reports/bench_bulk.json]

The archive's `train` photos are unpacked and scored as files. Rates are of whole runs, Ray's start included. The last
run is ended by SIGKILL in its middle and started again: its rows must be those of an undisturbed one.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.floor import floor
from stages.data.sources import members
from tools.report.render import block

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32
TARGETS = {"two_workers_over_one": 1.7, "over_floor": 0.85}
PACKAGES = ("numpy", "onnxruntime", "pillow", "pyarrow", "ray")


def unpack(archive: Path, folder: Path, count: int) -> None:
    """Write the first `count` training photos of CIFAKE in Kaggle's layout, both classes alike."""
    left = {"REAL": count - count // 2, "FAKE": count // 2}
    for name, data in members(archive):
        if (match := re.search(r"train/(REAL|FAKE)/([^/]+\.jpg)$", name)) and left[match[1]]:
            left[match[1]] -= 1
            path = folder / match[1] / match[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    if any(left.values()):
        sys.exit(f"error: {archive} lacks {left} training photos")


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start the command as a user does; its progress bar is seen."""
    command = [sys.executable, "-m", "tools.score", source, out, "--workers", str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours


def rate(source: Path, out: Path, workers: int, photos: int) -> float:
    """Return the photos a second of one whole run."""
    started = time.perf_counter()
    if start(source, out, workers).wait():
        sys.exit("error: tools.score.__main__ failed")
    return photos / (time.perf_counter() - started)


def checksum(out: Path) -> tuple[int, str]:
    """Return how many rows there are, and a digest of all names with their scores."""
    table = pq.read_table(out, columns=["name", "probability"]).sort_by("name")
    digest = hashlib.sha256()
    for name, probability in zip(table["name"].to_pylist(), table["probability"].to_pylist(), strict=True):
        digest.update(f"{name} {probability:.6f}\n".encode())
    return len(table), digest.hexdigest()


def main() -> None:
    """Print a table and write the report; exit 1 where a killed run lost or doubled anything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--photos", type=int, default=20_000, help="of the runs that are compared")
    parser.add_argument("--catalogue", type=int, default=100_000, help="of the run that is killed")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_bulk.json")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bulk-") as name:
        folder = Path(name)
        unpack(options.archive, folder / "few", options.photos)
        unpack(options.archive, folder / "many", options.catalogue)
        sample = [file.read_bytes() for file in sorted((folder / "few").rglob("*.jpg"))[:: options.photos // 500]]
        floors = [floor(sample, BATCH, 10)]
        for workers in (1, 2):
            rows.append({"workers": workers, "photos": options.photos})
            rows[-1]["photos_per_second"] = rate(folder / "few", folder / f"few-{workers}", workers, options.photos)
            floors.append(floor(sample, BATCH, 10))
        whole = rate(folder / "many", folder / "whole", 2, options.catalogue)
        floors.append(floor(sample, BATCH, 10))
        rows.append({"workers": 2, "photos": options.catalogue, "photos_per_second": whole})

        run = start(folder / "many", folder / "killed", 2)
        while len(list((folder / "killed").glob("part-*"))) < options.catalogue / 2000:  # half of the parts of 1000
            if run.poll() is not None:
                sys.exit("error: tools.score.__main__ ended before its middle")
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        there = len(list((folder / "killed").glob("part-*")))
        rate(folder / "many", folder / "killed", 2, options.catalogue)
        undisturbed, killed = checksum(folder / "whole"), checksum(folder / "killed")
    bottom = statistics.median(floors)
    for row in rows:
        row |= {"photos_per_second": round(row["photos_per_second"], 1)}
        row |= {"over_floor": round(row["photos_per_second"] * cores / (bottom * row["workers"]), 3)}
    ratios = {
        "two_workers_over_one": round(rows[1]["photos_per_second"] / rows[0]["photos_per_second"], 3),
        "over_floor": rows[2]["over_floor"],
    }
    report = {
        "cores": cores,
        "batch": BATCH,
        "floor_photos_per_second": round(bottom, 1),
        "floors": [round(each, 1) for each in floors],
        "targets": TARGETS,
        "ratios": ratios,
        "rows": rows,
        "kill": {
            "parts_before": there, "rows": killed[0], "checksum": killed[1],
            "undisturbed_rows": undisturbed[0], "undisturbed_checksum": undisturbed[1],
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }  # fmt: skip
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{block('bulk', report)}\n{block('ratios', report)}")
    print(f"killed after {there} parts: {killed[0]:,} rows, checksum {killed[1][:16]}…")
    if killed != undisturbed:
        sys.exit(f"error: an undisturbed run has {undisturbed[0]:,} rows, checksum {undisturbed[1][:16]}…")


if __name__ == "__main__":
    main()
