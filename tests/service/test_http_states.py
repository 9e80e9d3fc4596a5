"""The service's states: no model, a fresh log, a killed worker."""

import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.http import in_process, is_error
from tests.support.photos import GOOD
from tests.support.server import is_ready, serving
from tests.support.waiting import wait_for


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_without_a_model_the_service_lives_and_says_so(
    tmp_path: Path, tiny: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.onnx"
    if damage == "truncated":
        path.write_bytes(tiny.read_bytes()[:1000])
    with in_process(tmp_path, model_path=path) as client:
        for route, field in (("/predict", "file"), ("/predict/explain", "file"), ("/predict/batch", "files")):
            assert is_error(client.post(route, files={field: GOOD["png"]}), 503, "model_not_loaded")
        assert is_error(client.get("/model"), 503, "model_not_loaded")
        assert is_error(client.get("/drift"), 503, "monitor_off")
        body = client.get("/health").json()
        assert (body["status"], body["model_loaded"], body["model_version"]) == ("unhealthy", False, "unknown")
    (line,) = (record for record in caplog.records if str(path) in record.getMessage())
    assert "MODELS" in line.getMessage()
    assert line.exc_info is None


@pytest.mark.serve
def test_probes_tell_a_service_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with (
        serving(tmp_path, lambda answer: answer.status_code == 503, MODEL_PATH=str(path)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert is_error(client.get("/readyz"), 503)
        assert client.get("/livez").status_code == 200
        assert 'aidetect_model_loaded{model="MODEL_PATH"} 0.0' in client.get("/metrics").text
        lines = [line for line in server.printed().splitlines() if str(path) in line]
        assert len(lines) == 2, lines  # one a worker
        assert "Traceback" not in server.printed()


@pytest.mark.serve
def test_a_killed_worker_comes_back_and_leaves_no_ghost(tmp_path: Path) -> None:
    with serving(tmp_path, is_ready, MONITOR="true") as server:
        workers = server.workers()
        assert len(workers) == 2
        before = httpx.get(f"{server.url}/health", timeout=60).json()["predictions_total"]
        os.kill(workers[0], signal.SIGKILL)
        wait_for(lambda: server.starts() == 3)
        for _ in range(10):
            assert httpx.post(f"{server.url}/predict", files={"file": GOOD["png"]}, timeout=60).status_code == 200
        body = httpx.get(f"{server.url}/health", timeout=60).json()
        assert body["active_requests"] == 1
        assert body["predictions_total"] == before + 10
