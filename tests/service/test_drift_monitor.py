"""The monitor: answers from a cache, checks on windows that share nothing, a memory that outlives it; then live."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import ImageFilter

from service import metrics
from service.drift import model_monitor
from service.drift.model_monitor import BusyError, ModelMonitor
from service.drift.monitor import DriftMonitor
from service.log.prediction_log import PredictionLog
from service.log.tables import now
from service.settings import Settings
from tests.service.conftest import Server, is_ready, serving
from tests.service.photos import encode, photo
from tests.service.test_drift import rows, shop
from tests.service.test_http import is_error
from tests.service.test_prediction_log import wait_for

__all__ = ["shop"]  # a fixture

WINDOW = 100


def watch(**changed: Any) -> DriftMonitor:
    """Return a monitor with the settings of the fixture `shop`."""
    settings = {"drift_window": WINDOW, "drift_check_seconds": 1, "drift_max_age_seconds": 1, **changed}
    return DriftMonitor(Settings(**settings))


def fill(log: PredictionLog, count: int, seed: int, **shift: float) -> None:
    """Write predictions of this moment."""
    before = log.newest("cifake", "0.0.1")
    log.add([one | {"time": now()} for one in rows(count, seed, **shift)])
    wait_for(lambda: log.newest("cifake", "0.0.1") == before + count)


@pytest.fixture
def running() -> Iterator[Callable[[DriftMonitor], threading.Event]]:
    """Run monitors until the test ends, or until the event that is returned is set."""
    threads: list[tuple[threading.Thread, threading.Event]] = []

    def start(monitor: DriftMonitor) -> threading.Event:
        stop = threading.Event()
        thread = threading.Thread(target=monitor.run, args=(stop,))
        thread.start()
        threads.append((thread, stop))
        return stop

    yield start
    for _, stop in threads:
        stop.set()
    for thread, _ in threads:
        thread.join(60)


def test_answers_come_from_a_cache_and_say_their_age(shop: PredictionLog) -> None:
    fill(shop, 150, 3)
    monitor = watch(drift_max_age_seconds=60)
    first = monitor.look()
    fill(shop, 50, 4)
    assert monitor.look() is first
    time.sleep(1.1)
    assert monitor.answer()["age_seconds"] >= 1
    assert monitor.answer()["window_size"] == WINDOW
    ranged = monitor.look("1h")
    assert ranged.answer["window_size"] == 200
    assert monitor.look("1h") is ranged
    for hours in range(2, 10):  # others push it out, so that nobody fills the memory with ranges
        monitor.look(f"{hours}h")
    assert monitor.look("1h") is not ranged
    assert monitor.look() is first
    assert monitor.look("1h", "30m").answer["window_size"] == 0
    with pytest.raises(ValueError, match="is no time"):
        monitor.look("soon")


@pytest.mark.slow
def test_checks_never_share_a_prediction_and_outlive_the_monitor(
    shop: PredictionLog, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    first = watch()
    stop = running(first)
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: first.answer()["checks_in_a_row"] == 1)
    fill(shop, WINDOW - 1, 4, sharpness=0.5)
    time.sleep(2.5)  # time enough for a check, but one prediction is missing
    assert first.answer()["checks_in_a_row"] == 1
    assert first.answer()["drift_detected"]
    fill(shop, 1, 5, sharpness=0.5)
    wait_for(lambda: first.answer()["checks_in_a_row"] == 2)
    kept = first.kept()
    wait_for(lambda: len(kept.names()) == 2)
    stop.set()
    assert kept.answer(kept.names()[0])["last_row"] == 2 * WINDOW
    assert all(name.endswith("-drift") for name in kept.names())
    assert "<html" in kept.page(kept.names()[0])

    for gauge in (metrics.DRIFT, metrics.DRIFT_CHECKS, metrics.DRIFT_LOOKED):
        gauge.set(0)
    second = watch()
    second._restore()
    assert metrics.DRIFT._value.get() == 1
    assert metrics.DRIFT_CHECKS._value.get() == 2
    checked = datetime.fromisoformat(kept.answer(kept.names()[0])["timestamp"])
    assert metrics.DRIFT_LOOKED._value.get() == checked.timestamp()
    running(second)
    fill(shop, WINDOW, 6)  # as the reference: the row of alarms ends
    wait_for(lambda: second.answer()["checks_in_a_row"] == 0 and len(second.kept().names()) == 3)
    assert second.kept().names()[0].endswith("-ok")


def test_without_a_reference_nothing_is_counted(
    shop: PredictionLog, tmp_path: Path, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    reference = tmp_path / "model" / "reference.npz"
    whole = reference.read_bytes()
    monitor = watch()
    running(monitor)
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: monitor.answer()["checks_in_a_row"] == 1)
    reference.unlink()
    before = metrics.DRIFT_ERRORS._value.get()
    fill(shop, WINDOW, 4, sharpness=0.5)
    wait_for(lambda: metrics.DRIFT_ERRORS._value.get() > before)
    assert monitor.answer()["status"] == "insufficient_data"
    assert monitor.answer()["checks_in_a_row"] == 1
    reference.write_bytes(whole)
    wait_for(lambda: monitor.answer()["checks_in_a_row"] == 2)


def test_a_report_that_cannot_be_written_is_written_later(
    shop: PredictionLog, tmp_path: Path, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    (tmp_path / "drift").write_text("a file where the folder belongs")
    monitor = watch()
    before = metrics.DRIFT_ERRORS._value.get()
    running(monitor)
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: metrics.DRIFT_ERRORS._value.get() > before)
    (tmp_path / "drift").unlink()
    wait_for(lambda: len(monitor.kept().names()) == 1)
    assert monitor.answer()["checks_in_a_row"] == 1


def test_what_fails_is_counted_and_tried_again(
    shop: PredictionLog,
    tmp_path: Path,
    running: Callable[[DriftMonitor], threading.Event],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = tmp_path / "model" / "model.onnx"
    whole = model.read_bytes()
    model.unlink()
    before = metrics.DRIFT_ERRORS._value.get()
    monitor = watch()
    running(monitor)
    wait_for(lambda: metrics.DRIFT_ERRORS._value.get() >= before + 2)
    assert caplog.text.count("cannot do its work and tries again") == 1
    model.write_bytes(whole)
    wait_for(lambda: monitor.look().answer["status"] == "insufficient_data")


def test_one_time_range_is_looked_at_at_a_time(shop: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.drift.monitor._RANGE_SECONDS", 0.1)
    monitor = watch()
    with monitor._ranging, pytest.raises(BusyError, match="try again"):
        monitor.look("1h")
    assert monitor.look("1h").answer["window_size"] == 0


def test_a_damaged_report_is_no_reason_not_to_watch(shop: PredictionLog, tmp_path: Path) -> None:
    folder = tmp_path / "drift" / "reports"
    folder.mkdir(parents=True)
    (folder / "20261122T180000Z-drift.json").write_text("{")
    monitor = watch()
    monitor._restore()
    assert monitor.answer()["checks_in_a_row"] == 0


def files(count: int, seed: int, blur: float = 0) -> list[tuple[str, bytes]]:
    """Return drawn photos, some of them blurred."""
    drawn = (photo(seed=seed + number) for number in range(count))
    return [("files", encode(image.filter(ImageFilter.GaussianBlur(blur)) if blur else image)) for image in drawn]


def send(server: Server, photos: list[tuple[str, bytes]]) -> list[str]:
    """Have photos answered; return the ids of their predictions."""
    told = []
    for start in range(0, len(photos), 20):
        answer = httpx.post(f"{server.url}/predict/batch", files=photos[start : start + 20], timeout=60).json()
        told += [item["request_id"] for item in answer["results"]]
    return told


def drift(server: Server, query: str = "") -> dict[str, Any]:
    """Return what /drift answers."""
    answer = httpx.get(f"{server.url}/drift{query}", timeout=60)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.serve
@pytest.mark.slow
def test_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: PLR0915 - one story, a start each saved
    """Two workers: too little, drift against CIFAKE, an own reference, calm, blur, two alarms, kills, a restart."""
    settings = {"MONITOR": "true", "DRIFT_WINDOW": "200", "DRIFT_CHECK_SECONDS": "2"}
    settings |= {"LOG_URL": f"sqlite:///{tmp_path / 'log.db'}", "DRIFT_URL": str(tmp_path / "drift")}
    (tmp_path / "first").mkdir()
    with serving(tmp_path / "first", is_ready, **settings) as server:
        body = drift(server)
        assert (body["status"], body["window_size"], body["report_url"]) == ("insufficient_data", 0, None)
        assert body["reference"]["rows"] >= 10_000
        assert is_error(httpx.get(f"{server.url}/drift/report", timeout=60), 404, "no_report")

        told = send(server, files(520, 0))
        wait_for(lambda: drift(server)["status"] == "drift")  # drawn photos are not CIFAKE
        body = drift(server)
        assert body["alerts"]
        assert 0.5 <= body["estimated_accuracy_interval"][0] <= body["estimated_accuracy"] <= 1
        assert sum(body["prediction_ratio"].values()) == pytest.approx(1)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["drift", "baseline", "--since", "1h"])
        from service.drift.__main__ import main

        wait_for(lambda: main() == 0)  # once all predictions are in the log
        wait_for(lambda: drift(server)["status"] == "ok")
        assert drift(server)["reference"]["adopted"] is not None
        told = send(server, files(200, 600))
        wait_for(lambda: drift(server)["checks_in_a_row"] == 0)  # whatever they were against CIFAKE
        assert {"size", "jpeg_quality"} <= {column["name"] for column in drift(server)["columns"]}

        for place, request_id in enumerate(told[-60:]):
            verdict = {"request_id": request_id, "label": ("real", "ai_generated")[place % 2]}
            assert httpx.post(f"{server.url}/feedback", json=verdict, timeout=60).status_code == 200
        wait_for(lambda: (drift(server)["reviewed"] or {}).get("photos") == 60)
        page = httpx.get(f"{server.url}/drift/report?of=reviewed", timeout=60)
        assert "<html" in page.text

        for checks in (1, 2):
            send(server, files(200, 1000 * checks, blur=1.5))
            wait_for(lambda checks=checks: drift(server)["checks_in_a_row"] == checks)
        body = drift(server)
        assert (body["status"], body["drift_detected"]) == ("drift", True)
        assert any("blurrier" in alert for alert in body["alerts"])
        assert 0 < body["drift_score"] <= 1
        page = httpx.get(f"{server.url}{body['report_url']}", timeout=60)
        assert page.headers["Content-Type"].startswith("text/html")
        assert "sandbox allow-scripts" in page.headers["Content-Security-Policy"]
        assert "sharpness" in page.text
        kept = httpx.get(f"{server.url}/drift/reports", timeout=60).json()["reports"]
        assert [report["status"] for report in kept[:2]] == ["drift", "drift"]
        assert httpx.get(f"{server.url}{kept[0]['report_url']}", timeout=60).text.startswith(page.text[:200])
        assert is_error(httpx.get(f"{server.url}/drift/report?name=../references/active", timeout=60), 404, "no_report")
        ranged = drift(server, "?since=1h")
        assert ranged["window_size"] == 1120
        assert httpx.get(f"{server.url}{ranged['report_url']}", timeout=60).status_code == 200
        assert is_error(httpx.get(f"{server.url}/drift?since=soon", timeout=60), 422, "validation_error")
        assert httpx.get(f"{server.url}/health", timeout=60).json()["drift_detected"] is True
        assert "aidetect_drift_checks_in_a_row 2.0" in httpx.get(f"{server.url}/metrics", timeout=60).text

        os.kill(server.monitor(), signal.SIGSTOP)  # a monitor that is there and says nothing
        assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        assert len(send(server, files(20, 0))) == 20
        assert is_error(httpx.get(f"{server.url}/drift", timeout=60), 503, "monitor_unavailable")
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()

    (tmp_path / "second").mkdir()
    with serving(tmp_path / "second", is_ready, **settings) as server:
        wait_for(lambda: "aidetect_drift_checks_in_a_row 2.0" in httpx.get(f"{server.url}/metrics", timeout=60).text)
        body = drift(server)
        assert (body["status"], body["window_size"]) == ("drift", 200)
        os.kill(server.monitor(), signal.SIGKILL)
        assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        assert len(send(server, files(20, 0))) == 20
        wait_for(lambda: httpx.get(f"{server.url}/drift", timeout=60).status_code == 200)  # another one was started
