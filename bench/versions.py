"""This version of the service beside an earlier one, in turns in one run: photos a second, and the workers' memory.

python bench/versions.py [--against REVISION] [--rounds 15] [--seconds 3] [--report reports/bench_versions.json]

Both run with two workers, log, metrics and API keys, and are asked on 8 connections. Photos are 32 and 240 pixels
wide. A ratio is the median of the rounds' ratios, with their quartiles; above 1 this version is faster, or needs more
memory.
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import uvloop
from tqdm import trange

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.load import KEY, request
from bench.revisions import checked_out
from bench.serving import BATCH, Side, load
from tests.support.photos import encode, photo
from tests.support.server import ROOT, is_ready, serving

CONNECTIONS = 8
SIDES = (32, 240)
SETTINGS = {"API_KEYS": f"bench:{KEY}", "RATE_LIMITS": "false", "WORKERS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


def memory(side: Side) -> float:
    """Return what the workers hold alone and their part of what they share, in 10^6 bytes."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in side.workers) / 1e6


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="REVISION", default="dcf9068", help="of git")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_versions.json")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="versions-") as name, ExitStack() as stack:
        folder = Path(name)
        trees = {"before": stack.enter_context(checked_out(options.against, folder / "tree")), "now": ROOT}
        sides = {}
        for which, tree in trees.items():
            (folder / which).mkdir()
            settings = SETTINGS | {"PYTHONPATH": str(tree)}
            server = stack.enter_context(serving(folder / which, is_ready, tree=tree, **settings))
            sides[which] = Side(server.url, server.workers())
        for pixels in SIDES:
            photos = [encode(photo(pixels, pixels, seed), "JPEG") for seed in range(BATCH)]
            single, batch = request("/predict", "file", photos[:1]), request("/predict/batch", "files", photos)
            for kind, sent, count in (("single", single, 1), ("batch", batch, BATCH)):
                rates: dict[str, list[float]] = {"before": [], "now": []}
                for turn in trange(options.rounds + 1, desc=f"{pixels} px, {kind}", unit=" rounds"):
                    for which in ("before", "now") if turn % 2 else ("now", "before"):
                        measured = uvloop.run(load(sides[which], sent, count, CONNECTIONS, options.seconds))
                        if turn:  # the first round warms up
                            rates[which].append(measured.rate)
                ratios = [a / b for a, b in zip(rates["now"], rates["before"], strict=True)]
                low, middle, high = (round(value, 3) for value in statistics.quantiles(ratios, method="inclusive"))
                found[f"{pixels} px, {kind}"] = {
                    "images_per_second": round(statistics.median(rates["now"]), 1),
                    "times_before": middle,
                    "times_before_quartiles": [low, high],
                }
        megabytes = {which: memory(side) for which, side in sides.items()}
    report = {
        "against": options.against,
        "connections": CONNECTIONS,
        "batch": BATCH,
        "rows": found,
        "workers_mb": round(megabytes["now"], 1),
        "workers_mb_times_before": round(megabytes["now"] / megabytes["before"], 3),
    }
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
