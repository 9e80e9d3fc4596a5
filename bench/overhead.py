"""What the prediction log, metrics, request lines and API keys cost: throughput with them over throughput without.

python bench/overhead.py [--rounds 12] [--seconds 4] [--report reports/bench_overhead.json]

Both services run all the time, and one at a time is loaded, in short rounds that alternate (on off, off on, …): what
else the machine does then meets both alike, and only the ratio of two rounds that lie side by side says anything.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.load import KEY, Connection, connect, exchange, request
from tests.support.photos import encode, photo
from tests.support.server import ROOT, Server, is_ready, serving

CONNECTIONS = 8
WORKERS = 2
TARGET = 0.85
SERVICES = {"on": "service.service:PhotoDetector", "off": "bench.bare:PhotoDetector"}
PACKAGES = ("bentoml", "fastapi", "onnxruntime", "prometheus-client", "sqlalchemy", "structlog", "uvicorn")


def start(name: str, folder: Path) -> AbstractContextManager[Server]:
    """Run one of `SERVICES` until the block ends."""
    folder.mkdir()
    settings = {"API_KEYS": f"bench:{KEY}", "OMP_WAIT_POLICY": "PASSIVE", "RATE_LIMITS": "false"}
    return serving(folder, is_ready, SERVICES[name], WORKERS=str(WORKERS), **settings)


PHOTO = encode(photo(), "JPEG")
LOADS = {
    "single": (request("/predict", "file", [PHOTO]), 1),
    "batch": (request("/predict/batch", "files", [PHOTO] * 20), 20),
}


async def throughput(side: Server, load: str, seconds: float) -> float:
    """Return the photos a second that a service answers."""
    sent, photos = LOADS[load]
    connections = await connect(side.url, side.workers(), CONNECTIONS)
    start = time.perf_counter()

    async def ask(connection: Connection) -> int:
        count = 0
        while time.perf_counter() - start < seconds:
            if (status := await exchange(connection, sent)) != 200:
                raise RuntimeError(f"answered {status}")
            count += 1
        connection[1].close()
        return count

    counts = await asyncio.gather(*map(ask, connections))
    return sum(counts) * photos / (time.perf_counter() - start)


def measure(sides: dict[str, Server], load: str, rounds: int, seconds: float) -> list[dict[str, float]]:
    """Return for each round the throughput of both services, measured one right after the other."""
    pairs = []
    for turn in tqdm(range(-1, rounds), desc=load, unit=" rounds"):  # the first warms both up
        order = ["on", "off"] if turn % 2 else ["off", "on"]
        pair = {name: uvloop.run(throughput(sides[name], load, seconds)) for name in order}
        if turn >= 0:
            pairs.append({name: round(pair[name], 2) for name in SERVICES} | {"ratio": pair["on"] / pair["off"]})
    return pairs


def main() -> None:
    """Print a table, write the report; exit 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_overhead.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as name, ExitStack() as stack:
        sides = {side: stack.enter_context(start(side, Path(name) / side)) for side in SERVICES}
        pairs = {load: measure(sides, load, options.rounds, options.seconds) for load in LOADS}
        printed = {side: len(sides[side].requests()) for side in SERVICES}
    if printed["off"] or not printed["on"]:
        sys.exit(f"error: the services printed {printed} lines of requests: what is off is not off")
    rows, ratios = [], {}
    print(f"\n{'photos a second':<18} {'on':>8} {'off':>8} {'on/off':>8} {'quartiles':>15} {'extremes':>15}")
    for load, found in pairs.items():
        low, ratio, high = statistics.quantiles((pair["ratio"] for pair in found), n=4, method="inclusive")
        least, most = min(pair["ratio"] for pair in found), max(pair["ratio"] for pair in found)
        on, off = (statistics.median(pair[side] for pair in found) for side in SERVICES)
        quartiles, extremes = f"{low:.3f}-{high:.3f}", f"{least:.3f}-{most:.3f}"
        print(f"{load:<18} {on:>8.1f} {off:>8.1f} {ratio:>8.3f} {quartiles:>15} {extremes:>15}")
        ratios[f"{load}_on_over_off"] = round(ratio, 4)
        spread = {"quartiles": [round(low, 4), round(high, 4)], "extremes": [round(least, 4), round(most, 4)]}
        rows.append({"load": load, "on": on, "off": off, "ratio": round(ratio, 4), **spread, "rounds": found})
    missed = [name for name, ratio in ratios.items() if ratio < TARGET]
    print(f"medians of {options.rounds} pairs of {options.seconds:g} s; a ratio of at least {TARGET} is asked for")
    report: dict[str, Any] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": CONNECTIONS,
        "workers": WORKERS,
        "cores": os.cpu_count(),
        "target": TARGET,
        "ratios": ratios,
        "rows": rows,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if missed:
        sys.exit(f"error: {', '.join(missed)} below {TARGET}")


if __name__ == "__main__":
    main()
