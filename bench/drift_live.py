"""A drift seen live: two workers, 600 real photos of CIFAKE, then 600 blurred ones, a report, kills, and a restart.

python bench/drift_live.py [--report reports/drift_live.json] [--page build/drift_live.html]

Takes CIFAKE's validation and calibration photos from build/cifake/dataset (`dvc repro preprocess`). Answers are looked
at as an operator would: over HTTP alone.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stages.data.image_sets import load_images
from stages.evaluation.robustness import CHANGES
from tests.support.photos import encode
from tests.support.server import Server, is_ready, serving

MODEL = "cifake"
PHOTOS = 600
ROUNDS = 6
ROUND_SECONDS = 10
CONNECTIONS = 4
SETTINGS = {"MONITOR": "true", "DRIFT_MAX_AGE_SECONDS": "2", "DRIFT_CHECK_SECONDS": "5"}


def files(images: np.ndarray[Any, np.dtype[np.uint8]]) -> list[bytes]:
    """Return photos as PNG files."""
    return [encode(Image.fromarray(image)) for image in images]


def send(server: Server, photos: list[bytes], what: str) -> list[float]:
    """Have photos answered, some at a time; return the seconds that each took."""
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(CONNECTIONS) as pool:

        def one(photo: bytes) -> float:
            started = time.perf_counter()
            client.post("/predict", files={"file": photo}).raise_for_status()
            return time.perf_counter() - started

        return list(tqdm(pool.map(one, photos), total=len(photos), desc=what, mininterval=2, leave=False))


def ask(server: Server, path: str = f"/drift?model={MODEL}") -> Any:
    """Return what a route answers."""
    return httpx.get(f"{server.url}{path}", timeout=60).raise_for_status().json()


def until(server: Server, condition: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
    """Ask /drift until its answer is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        answer: dict[str, Any] = ask(server)
        if condition(answer):
            return answer
        if time.monotonic() > deadline:
            sys.exit(f"error: /drift never came to it: {json.dumps(answer)[:2000]}")
        time.sleep(0.5)


def gauges(server: Server) -> dict[str, float]:
    """Return the model's drift metrics."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=60).text)
    samples = (sample for family in families if family.name.startswith("aidetect_drift") for sample in family.samples)
    return {sample.name: sample.value for sample in samples if sample.labels.get("model", MODEL) == MODEL}


def short(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what the report keeps of an answer."""
    kept = ("status", "window_size", "drift_score", "checks_in_a_row", "alerts", "estimated_accuracy")
    return {name: answer[name] for name in kept}


@contextmanager
def reporting(server: Server) -> Iterator[list[float]]:
    """Have reports computed, one after the other, while the block runs; yield the seconds that each took."""
    stop, took = threading.Event(), list[float]()

    def work() -> None:
        while not stop.is_set():
            started = time.perf_counter()
            new = {
                "model": MODEL,
                "since": f"{3600 + len(took)}s",
            }  # a new range: no cache has it
            httpx.get(f"{server.url}/drift/report", params=new, timeout=60).raise_for_status()
            took.append(time.perf_counter() - started)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def compare_p99(server: Server, photos: list[bytes]) -> dict[str, Any]:
    """Measure predictions with and without a report being computed, in rounds that alternate."""

    def one_round(what: str) -> list[float]:
        deadline, took = time.monotonic() + ROUND_SECONDS, []
        while time.monotonic() < deadline:
            took += send(server, photos[:200], what)
        return took

    without, beside, reports = list[float](), list[float](), list[float]()
    for number in range(ROUNDS):
        without += one_round(f"round {number + 1}, no report")
        with reporting(server) as took:
            beside += one_round(f"round {number + 1}, reports")
        reports += took
    p99 = {name: float(np.percentile(values, 99)) for name, values in (("without", without), ("beside", beside))}
    return {
        "requests": {"without": len(without), "beside": len(beside)},
        "reports": len(reports),
        "p99_over_without": round(p99["beside"] / p99["without"], 3),
        "p50_over_without": round(float(np.median(beside) / np.median(without)), 3),
    }


def watch(folder: Path, page: Path) -> dict[str, Any]:
    """Run all of it; return what was seen."""
    photos = load_images(Path("build/cifake/dataset/validation.safetensors")).images[:]
    chosen = photos[np.random.default_rng(0).permutation(len(photos))[: 2 * PHOTOS]]
    plain, blurred = files(chosen[:PHOTOS]), files(CHANGES["blur"][0](chosen[PHOTOS:], 0.6))
    settings = SETTINGS | {"DRIFT_URL": str(folder / "drift"), "LOG_URL": f"sqlite:///{folder / 'predictions.db'}"}
    seen: dict[str, Any] = {}

    first = folder / "first"
    first.mkdir()
    with serving(first, is_ready, "service.service:PhotoDetector", **settings) as server:
        seen["at_the_start"] = short(ask(server))
        send(server, plain, "real photos")
        seen["after_600_photos"] = short(until(server, lambda answer: answer["window_size"] == 500))
        until(server, lambda _: gauges(server).get("aidetect_drift_window_size") == 500)
        time.sleep(float(SETTINGS["DRIFT_CHECK_SECONDS"]))
        send(server, blurred, "blurred photos")
        seen["after_600_blurred"] = short(until(server, lambda answer: answer["status"] == "drift"))
        until(server, lambda answer: answer["checks_in_a_row"] == 1)
        until(server, lambda _: gauges(server).get("aidetect_drift_detected") == 1)
        seen["gauges"] = gauges(server)
        page.parent.mkdir(parents=True, exist_ok=True)
        report = httpx.get(f"{server.url}/drift/report?model={MODEL}", timeout=60).raise_for_status()
        page.write_text(report.text, encoding="utf-8")
        seen["kept_reports"] = [report["status"] for report in ask(server, f"/drift/reports?model={MODEL}")["reports"]]
        seen["predictions_beside_reports"] = compare_p99(server, blurred)

        os.kill(server.monitor(), signal.SIGKILL)
        slowest = max(send(server, plain[:200], "monitor dead"))
        ready = httpx.get(f"{server.url}/readyz")
        dead = httpx.get(f"{server.url}/drift", timeout=60)
        seen["monitor_killed"] = {
            "readyz": ready.status_code,
            "drift": dead.status_code,  # 503, or 200 where a new monitor was there within the wait
            "slowest_prediction_ms": round(slowest * 1000),
        }
        send(server, blurred[:PHOTOS], "blurred photos")
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()

    second = folder / "second"
    second.mkdir()
    with serving(second, is_ready, "service.service:PhotoDetector", **settings) as server:
        until(server, lambda _: gauges(server).get("aidetect_drift_detected") == 1)
        seen["gauges_after_restart"] = gauges(server)
        seen["after_restart"] = short(until(server, lambda answer: answer["window_size"] == 500))
    return seen


def main() -> None:
    """Write the report; end with 1 where something is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("reports/drift_live.json"))
    parser.add_argument("--page", type=Path, default=Path("build/drift_live.html"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = watch(Path(folder), arguments.page)
    statuses = [
        seen[name]["status"] for name in ("at_the_start", "after_600_photos", "after_600_blurred", "after_restart")
    ]
    conditions = {
        "insufficient_data, ok, drift, and drift after the restart": statuses
        == ["insufficient_data", "ok", "drift", "drift"],
        "the metric follows, also after the restart": seen["gauges"]["aidetect_drift_detected"] == 1
        and seen["gauges_after_restart"]["aidetect_drift_detected"] == 1,
        "p99 beside reports under 1.5 times the p99 without": seen["predictions_beside_reports"]["p99_over_without"]
        < 1.5,
        "a dead monitor degrades /drift alone": seen["monitor_killed"]["readyz"] == 200,
    }
    seen["conditions"] = conditions
    arguments.report.write_text(json.dumps(seen, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(seen, indent=2))
    sys.exit(not all(conditions.values()))


if __name__ == "__main__":
    main()
