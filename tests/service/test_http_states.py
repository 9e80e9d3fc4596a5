"""The service's states over real HTTP: no model, a fresh log, a killed worker."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.http import is_error
from tests.support.photos import GOOD
from tests.support.server import Server, is_ready, released_model, serving
from tests.support.waiting import wait_for

pytestmark = pytest.mark.serve


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_without_a_model_the_service_lives_and_says_so(tmp_path: Path, tiny: Path, damage: str) -> None:
    path = tmp_path / "model.onnx"
    if damage == "truncated":
        path.write_bytes(tiny.read_bytes()[:1000])
    with (
        serving(tmp_path, lambda answer: answer.status_code == 503, MODEL_PATH=str(path)) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert is_error(client.get("/readyz"), 503)
        for route, field in (("/predict", "file"), ("/predict/explain", "file"), ("/predict/batch", "files")):
            assert is_error(client.post(route, files={field: GOOD["png"]}), 503, "model_not_loaded")
        assert is_error(client.get("/model"), 503, "model_not_loaded")
        assert is_error(client.get("/drift"), 503, "monitor_off")
        assert client.get("/livez").status_code == 200
        assert "aidetect_model_loaded 0.0" in client.get("/metrics").text
        body = client.get("/health").json()
        assert (body["status"], body["model_loaded"], body["model_version"]) == ("unhealthy", False, "unknown")
        lines = [line for line in server.printed().splitlines() if str(path) in line]
        assert len(lines) == 2, lines  # one a worker
        assert all("MODEL_PATH" in line for line in lines)
        assert "Traceback" not in server.printed()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The released model with an empty log."""
    with serving(tmp_path_factory.mktemp("fresh"), is_ready, MONITOR="true") as server:
        yield server


def test_a_killed_worker_comes_back_and_leaves_no_ghost(fresh: Server) -> None:
    workers = fresh.workers()
    assert len(workers) == 2
    before = httpx.get(f"{fresh.url}/health", timeout=60).json()["predictions_total"]
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: fresh.starts() == 3)
    for _ in range(10):
        assert httpx.post(f"{fresh.url}/predict", files={"file": GOOD["png"]}, timeout=60).status_code == 200
    body = httpx.get(f"{fresh.url}/health", timeout=60).json()
    assert body["active_requests"] == 1
    assert body["predictions_total"] == before + 10


def test_the_released_model_is_what_is_served() -> None:
    assert released_model().is_file()
