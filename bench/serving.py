"""The service against the floor and against what people write today: photos a second and latencies, in one run.

python bench/serving.py [--rounds 3] [--seconds 3] [--sides 32 240 1000] [--report reports/bench_serving.json]

`ours`: the service with log, metrics and API keys, two workers. `floor`: floor.py, one process a core. `plain`:
rival.py as a README starts it, `uvicorn bench.rival:app`; `tuned`: the same with two workers and one thread each.
What a round compares lies side by side in time; a ratio is the median of the rounds' ratios.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.floor import floor
from bench.load import KEY, Connection, connect, exchange, request
from tests.support.photos import encode, photo
from tests.support.server import ROOT, await_answer, free_port, is_ready, serving
from tools.report.render import block

CONCURRENCIES = (1, 8, 64)
BATCH = 20
WORKERS = 2
HEADLINE = {"side": 32, "concurrency": 8}  # the released model's own photos
TARGETS = {"batch_over_floor": 0.9, "single_over_floor": 0.6, "single_over_fastapi_torch": 4.0}
PACKAGES = ("bentoml", "fastapi", "onnxruntime", "pillow", "torch", "uvicorn", "uvloop")


@dataclass(frozen=True)
class Side:
    """A running service: its address and the processes that answer."""

    url: str
    workers: Sequence[int]


@dataclass(frozen=True)
class Measured:
    """One load on one service: photos a second, milliseconds a request, refusals by status."""

    rate: float
    latencies: list[float]
    refused: Counter[int]


@contextmanager
def rival(folder: Path, workers: int, **settings: str) -> Iterator[Side]:
    """Run rival.py until the block ends."""
    port, output = free_port(), folder / f"rival-{workers}.txt"
    command = [sys.executable, "-m", "uvicorn", "bench.rival:app", "--port", str(port), "--log-level", "warning"]
    command += ["--workers", str(workers)] if workers > 1 else []
    with output.open("w") as file:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | settings
        process = subprocess.Popen(  # noqa: S603 - our own
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{url}/docs", process, output)
        time.sleep(10 if workers > 1 else 0)  # the second worker, too; nothing of uvicorn's tells
        children = [child for child in psutil.Process(process.pid).children() if "spawn_main" in str(child.cmdline())]
        yield Side(url, [child.pid for child in children] or [process.pid])
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


async def load(side: Side, sent: bytes, photos: int, concurrency: int, seconds: float) -> Measured:
    """Ask as many at a time as `concurrency` says, each anew once it is answered."""
    connections = await connect(side.url, side.workers, concurrency)
    latencies: list[float] = []
    refused: Counter[int] = Counter()

    async def ask(connection: Connection, until: float) -> None:
        while (began := time.perf_counter()) < until:
            status = await exchange(connection, sent)
            if status == 200:
                latencies.append((time.perf_counter() - began) * 1000)
            else:
                refused[status] += 1
        connection[1].close()

    started = time.perf_counter()
    await asyncio.gather(*(ask(connection, started + seconds) for connection in connections))
    return Measured(len(latencies) * photos / (time.perf_counter() - started), latencies, refused)


def row(found: Sequence[Measured], floors: list[float]) -> dict[str, Any]:
    """Return a row's figures: medians of the rounds' rates, quantiles of all their latencies."""
    latencies = [each for measured in found for each in measured.latencies]
    quantiles = np.percentile(latencies, [50, 95, 99]).round(2).tolist() if latencies else [None] * 3
    refused: Counter[int] = sum((each.refused for each in found), Counter())
    return {
        "images_per_second": round(statistics.median(each.rate for each in found), 1),
        "over_floor": round(statistics.median(each.rate / low for each, low in zip(found, floors, strict=True)), 3),
        **dict(zip(("p50_ms", "p95_ms", "p99_ms"), quantiles, strict=True)),
        "answers": len(latencies),
        "refused": {str(status): count for status, count in refused.items()},
    }


def measure(sides: dict[str, Side], pixels: int, kind: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure everything with photos of one size, singly or in batches."""
    photos = [encode(photo(pixels, pixels, seed), "JPEG") for seed in range(BATCH)]
    single = kind == "single"
    sent = request("/predict", "file", photos[:1]) if single else request("/predict/batch", "files", photos)
    asked = {name: side for name, side in sides.items() if single or name == "ours"}  # rivals have no batches
    floors: list[float] = []
    found: dict[tuple[int, str], list[Measured]] = {}
    for _ in tqdm(range(rounds), desc=f"{pixels} px, {kind}", unit=" rounds"):
        floors.append(floor(photos[:1] if single else photos, 1 if single else BATCH, seconds))
        for concurrency in CONCURRENCIES:
            for name, side in asked.items():
                measured = uvloop.run(load(side, sent, 1 if single else BATCH, concurrency, seconds))
                found.setdefault((concurrency, name), []).append(measured)
    base = {"side": pixels, "kind": kind}
    bottom = {
        "concurrency": None,
        "who": "floor",
        "images_per_second": round(statistics.median(floors), 1),
        "over_floor": 1,
    }
    return [base | bottom] + [
        base | {"concurrency": concurrency, "who": who} | row(each, floors)
        for (concurrency, who), each in found.items()
    ]


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that are asked for."""

    def of(kind: str, who: str, field: str) -> float:
        wanted = HEADLINE | {"kind": kind, "who": who}
        return float(next(each[field] for each in rows if wanted.items() <= each.items()))

    single = of("single", "ours", "images_per_second")
    return {
        "batch_over_floor": of("batch", "ours", "over_floor"),
        "single_over_floor": of("single", "ours", "over_floor"),
        "single_over_fastapi_torch": round(single / of("single", "plain", "images_per_second"), 3),
        "single_over_tuned_fastapi_torch": round(single / of("single", "tuned", "images_per_second"), 3),
    }


def main() -> None:
    """Print a table and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 240, 1000])
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_serving.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="serving-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = {"API_KEYS": f"bench:{KEY}", "RATE_LIMITS": "false", "WORKERS": str(WORKERS)}
        server = stack.enter_context(serving(folder, is_ready, **settings))
        sides = {
            "ours": Side(server.url, server.workers()),
            "plain": stack.enter_context(rival(folder, 1)),
            "tuned": stack.enter_context(rival(folder, WORKERS, OMP_NUM_THREADS="1")),
        }
        for pixels in options.sides:
            for kind in ("single", "batch"):
                rows += measure(sides, pixels, kind, options.rounds, options.seconds)
        log = folder / "predictions.db"
        with closing(sqlite3.connect(log)) as database:
            logged = database.execute("SELECT COUNT(*) FROM predictions").fetchone()[0]
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        log_bytes = log.stat().st_size / logged
    report: dict[str, Any] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": WORKERS,
        "batch": BATCH,
        "cores": os.cpu_count(),
        "targets": TARGETS,
        "ratios": ratios(rows),
        "log_bytes_per_prediction": round(log_bytes),
        "rows": rows,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{block('serving', report)}\n{block('ratios', report)}")


if __name__ == "__main__":
    main()
