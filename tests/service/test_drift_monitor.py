"""The monitor: answers from a cache, checks on windows that share nothing, a memory that outlives it; then live."""

import os
import shutil
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
from prometheus_client.metrics import MetricWrapperBase
from pydantic import TypeAdapter

from service import metrics
from service.drift import model_monitor
from service.drift.model_monitor import BusyError
from service.drift.monitor import DriftMonitor, UnknownModelError
from service.log.prediction_log import PredictionLog
from service.log.tables import now
from service.settings import Settings
from tests.service.test_drift import add_model, rows, shop
from tests.support.http import is_error
from tests.support.photos import encode, photo
from tests.support.server import Server, is_ready, serving
from tests.support.waiting import wait_for

__all__ = ["shop"]  # a fixture

WINDOW = 100


def watch(**changed: Any) -> DriftMonitor:
    """Return a monitor with the settings of the fixture `shop`."""
    settings = {"drift_window": WINDOW, "drift_check_seconds": 1, "drift_max_age_seconds": 1, **changed}
    return DriftMonitor(Settings(**settings))


def fill(log: PredictionLog, count: int, seed: int, model: str = "cifake", **shift: float) -> None:
    """Write predictions of this moment."""
    before = log.count_after(model, "0.0.1", 0)
    log.add([one | {"model": model, "time": now()} for one in rows(count, seed, **shift)])
    wait_for(lambda: log.count_after(model, "0.0.1", 0) == before + count)


def gauge(metric: MetricWrapperBase, model: str = "cifake") -> float:
    """Return what a metric says of a model."""
    value: float = metric.labels(model)._value.get()
    return value


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
    monitor = watch(drift_max_age_seconds=60).monitor()
    first = monitor.result()
    fill(shop, 50, 4)
    assert monitor.result() is first
    time.sleep(1.1)
    assert monitor.answer()["age_seconds"] >= 1
    assert monitor.answer()["window_size"] == WINDOW
    ranged = monitor.result("1h")
    assert ranged.answer["window_size"] == 200
    assert monitor.result("1h") is ranged
    for hours in range(2, 10):  # others push it out, so that nobody fills the memory with ranges
        monitor.result(f"{hours}h")
    assert monitor.result("1h") is not ranged
    assert monitor.result() is first
    assert monitor.result("1h", "30m").answer["window_size"] == 0
    with pytest.raises(ValueError, match="is not a time"):
        monitor.result("soon")


@pytest.mark.slow
def test_checks_never_share_a_prediction_and_outlive_the_monitor(
    shop: PredictionLog, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    watching = watch()
    stop, first, kept = running(watching), watching.monitor(), watching.reports
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: first.answer()["checks_in_a_row"] == 1)
    fill(shop, WINDOW - 1, 4, sharpness=0.5)
    time.sleep(2.5)  # time enough for a check, but one prediction is missing
    assert first.answer()["checks_in_a_row"] == 1
    assert first.answer()["drift_detected"]
    fill(shop, 1, 5, sharpness=0.5)
    wait_for(lambda: first.answer()["checks_in_a_row"] == 2)
    wait_for(lambda: len(kept.names("cifake")) == 2)
    stop.set()
    newest = kept.names("cifake")[0]
    assert kept.answer(newest)["last_row"] == 2 * WINDOW
    assert all(name.endswith("Z-cifake-drift") for name in kept.names("cifake"))
    assert "<html" in kept.page(newest)

    for metric in (metrics.DRIFT, metrics.DRIFT_CHECKS, metrics.DRIFT_LOOKED):
        metric.labels("cifake").set(0)
    watching = watch()
    second = watching.monitor()
    second._restore()
    assert gauge(metrics.DRIFT) == 1
    assert gauge(metrics.DRIFT_CHECKS) == 2
    assert gauge(metrics.DRIFT_LOOKED) == datetime.fromisoformat(kept.answer(newest)["timestamp"]).timestamp()
    running(watching)
    fill(shop, WINDOW, 6)  # as the reference: the row of alarms ends
    wait_for(lambda: second.answer()["checks_in_a_row"] == 0 and len(kept.names("cifake")) == 3)
    assert kept.names("cifake")[0].endswith("-ok")


def test_the_drift_of_two_models_is_each_its_own(
    shop: PredictionLog, tmp_path: Path, tiny: Path, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    add_model(tmp_path / "models" / "photos", tiny)
    watching = watch()
    running(watching)
    cifake, photos = watching.monitor("cifake"), watching.monitor("photos")
    fill(shop, WINDOW, 3)
    fill(shop, WINDOW, 4, model="photos", sharpness=0.5)
    wait_for(lambda: len(watching.reports.names("photos")) == len(watching.reports.names("cifake")) == 1)
    assert (cifake.answer()["status"], photos.answer()["status"]) == ("ok", "drift")
    assert (cifake.answer()["model"], photos.answer()["model"]) == ("cifake", "photos")
    assert (gauge(metrics.DRIFT), gauge(metrics.DRIFT, "photos")) == (0, 1)
    assert (gauge(metrics.DRIFT_CHECKS), gauge(metrics.DRIFT_CHECKS, "photos")) == (0, 1)
    fill(shop, WINDOW, 5, model="photos", sharpness=0.5)
    wait_for(lambda: gauge(metrics.DRIFT_CHECKS, "photos") == 2)
    assert gauge(metrics.DRIFT_CHECKS) == 0
    assert watching.reports.answers("photos", 10)[0]["model"] == "photos"
    assert len(watching.reports.names("cifake")) == 1

    photos.references.adopt(rows(600, 6, sharpness=0.5), "0.0.1")
    assert photos.evaluate().answer["status"] == "ok"
    assert cifake.references.active() == []
    assert cifake.evaluate().answer["reference"].name == "reference.npz"

    shutil.rmtree(tmp_path / "models" / "photos")
    assert watching.monitor("photos") is photos  # as the workers, which go on answering with it
    assert photos.result("1h").answer["window_size"] == 2 * WINDOW
    with pytest.raises(UnknownModelError, match="no model 'shoes'; there is cifake, photos"):
        watching.monitor("shoes")


def test_a_model_that_cannot_be_watched_is_no_reason_not_to_watch_the_others(
    shop: PredictionLog,
    tmp_path: Path,
    tiny: Path,
    running: Callable[[DriftMonitor], threading.Event],
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_model(tmp_path / "models" / "broken", tiny)
    (tmp_path / "models" / "broken" / "card.json").write_text("{")
    watching = watch()
    running(watching)
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: gauge(metrics.DRIFT_CHECKS) == 1)
    wait_for(lambda: gauge(metrics.DRIFT_ERRORS, "broken") >= 2)
    assert caplog.text.count("cannot watch broken and tries again") == 1


def test_without_a_reference_nothing_is_counted(
    shop: PredictionLog, tmp_path: Path, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    reference = tmp_path / "models" / "cifake" / "reference.npz"
    whole = reference.read_bytes()
    watching = watch()
    running(watching)
    monitor = watching.monitor()
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: monitor.answer()["checks_in_a_row"] == 1)
    reference.unlink()
    before = gauge(metrics.DRIFT_ERRORS)
    fill(shop, WINDOW, 4, sharpness=0.5)
    wait_for(lambda: gauge(metrics.DRIFT_ERRORS) > before)
    wait_for(lambda: monitor.answer()["status"] == "insufficient_data")  # an answer is kept for a second
    assert monitor.answer()["checks_in_a_row"] == 1
    reference.write_bytes(whole)
    wait_for(lambda: monitor.answer()["checks_in_a_row"] == 2)


def test_a_report_that_cannot_be_written_is_written_later(
    shop: PredictionLog, tmp_path: Path, running: Callable[[DriftMonitor], threading.Event]
) -> None:
    (tmp_path / "drift").write_text("a file where the folder belongs")
    watching = watch()
    monitor = watching.monitor()
    before = gauge(metrics.DRIFT_ERRORS)
    running(watching)
    fill(shop, WINDOW, 3, sharpness=0.5)
    wait_for(lambda: gauge(metrics.DRIFT_ERRORS) > before)
    (tmp_path / "drift").unlink()
    wait_for(lambda: len(watching.reports.names("cifake")) == 1)
    assert monitor.answer()["checks_in_a_row"] == 1


def test_what_fails_is_counted_and_tried_again(
    shop: PredictionLog,
    tmp_path: Path,
    running: Callable[[DriftMonitor], threading.Event],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "models").rename(tmp_path / "away")
    watching = watch()
    running(watching)
    wait_for(lambda: gauge(metrics.DRIFT_ERRORS, "") >= 2)
    assert caplog.text.count("has nothing to watch and tries again") == 1
    (tmp_path / "away").rename(tmp_path / "models")
    metrics.DRIFT_LOOKED.labels("cifake").set(0)
    wait_for(lambda: gauge(metrics.DRIFT_LOOKED) > 0)
    assert watching.monitor().result().answer["status"] == "insufficient_data"


def test_one_time_range_is_compared_at_a_time(shop: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.drift.model_monitor._RANGE_SECONDS", 0.1)
    monitor = watch().monitor()
    with model_monitor._ranging, pytest.raises(BusyError, match="try again"):
        monitor.result("1h")
    assert monitor.result("1h").answer["window_size"] == 0


def test_a_damaged_report_is_no_reason_not_to_watch(shop: PredictionLog, tmp_path: Path) -> None:
    folder = tmp_path / "drift" / "reports"
    folder.mkdir(parents=True)
    (folder / "20261122T180000Z-cifake-drift.json").write_text("{")
    monitor = watch().monitor()
    monitor._restore()
    assert monitor.answer()["checks_in_a_row"] == 0


def test_reports_of_before_are_the_first_models(shop: PredictionLog, tmp_path: Path, tiny: Path) -> None:
    add_model(tmp_path / "models" / "photos", tiny)
    fill(shop, WINDOW, 3, sharpness=0.5)
    watching = watch()
    answer = watching.monitor("cifake").evaluate().answer
    state = {"checks_in_a_row": 2, "last_row": WINDOW, "model_version": "0.0.1"}
    old = {key: value for key, value in answer.items() if key != "model"} | state
    folder = tmp_path / "drift" / "reports"
    folder.mkdir(parents=True)
    name = f"{answer['timestamp']:%Y%m%dT%H%M%SZ}-drift"
    (folder / f"{name}.json").write_bytes(TypeAdapter(dict[str, Any]).dump_json(old))
    (folder / f"{name}.html").write_text("an old page")
    assert watching.reports.names("cifake") == [name]
    assert watching.reports.names("photos") == []
    assert watching.reports.answers("cifake", 10)[0]["model"] == "cifake"
    assert watching.reports.page(name) == "an old page"
    for model, checks in (("cifake", 2), ("photos", 0)):
        watching.monitor(model)._restore()
        assert watching.monitor(model).answer()["checks_in_a_row"] == checks


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
        listed = httpx.get(f"{server.url}/drift/reports?model=cifake", timeout=60).json()
        kept = listed["reports"]
        assert listed["model"] == kept[0]["model"] == body["model"] == "cifake"
        assert [report["status"] for report in kept[:2]] == ["drift", "drift"]
        for route in ("/drift", "/drift/report", "/drift/reports"):
            refused = httpx.get(f"{server.url}{route}?model=nosuch", timeout=60)
            assert is_error(refused, 404, "unknown_model")
            assert refused.json()["detail"] == "there is no model 'nosuch'; there is cifake, photos"
        assert httpx.get(f"{server.url}{kept[0]['report_url']}", timeout=60).text.startswith(page.text[:200])
        assert is_error(httpx.get(f"{server.url}/drift/report?name=../references/active", timeout=60), 404, "no_report")
        ranged = drift(server, "?since=1h")
        assert ranged["window_size"] == 1120
        assert httpx.get(f"{server.url}{ranged['report_url']}", timeout=60).status_code == 200
        assert is_error(httpx.get(f"{server.url}/drift?since=soon", timeout=60), 422, "validation_error")
        assert httpx.get(f"{server.url}/health", timeout=60).json()["drift_detected"] is True
        assert (
            'aidetect_drift_checks_in_a_row{model="cifake"} 2.0' in httpx.get(f"{server.url}/metrics", timeout=60).text
        )

        os.kill(server.monitor(), signal.SIGSTOP)  # a monitor that is there and says nothing
        assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        assert len(send(server, files(20, 0))) == 20
        assert is_error(httpx.get(f"{server.url}/drift", timeout=60), 503, "monitor_unavailable")
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.kill()

    (tmp_path / "second").mkdir()
    with serving(tmp_path / "second", is_ready, **settings) as server:
        wait_for(
            lambda: (
                'aidetect_drift_checks_in_a_row{model="cifake"} 2.0'
                in httpx.get(f"{server.url}/metrics", timeout=60).text
            )
        )
        body = drift(server)
        assert (body["status"], body["window_size"]) == ("drift", 200)
        os.kill(server.monitor(), signal.SIGKILL)
        assert httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
        assert len(send(server, files(20, 0))) == 20
        wait_for(lambda: httpx.get(f"{server.url}/drift", timeout=60).status_code == 200)  # another one was started
