"""Fixtures of the service's tests: the real service on the released model, and a tiny model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from tests.support import signing, tiny_model
from tests.support.http import in_process
from tests.support.photos import GOOD
from tests.support.server import Server, is_ready, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The released model behind two workers; none may die or fail while the tests run."""
    folder = tmp_path_factory.mktemp("service")
    anchors = str(signing.anchors_file(folder))
    with serving(folder, is_ready, MONITOR="true", C2PA_TRUST_ANCHORS=anchors) as running:
        yield running
        printed, starts = running.printed(), running.starts()
    assert starts == 2, f"a worker was restarted:\n{printed}"
    assert "Traceback" not in printed, printed


@pytest.fixture
def remote(server: Server) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prediction log of the service in this process."""
    return tmp_path_factory.mktemp("in-process") / "predictions.db"


@pytest.fixture(scope="session")
def client(log_file: Path) -> Iterator[TestClient]:
    """A client of the service in this process, on the released model."""
    with in_process(log_file.parent, c2pa_trust_anchors=signing.anchors_file(log_file.parent)) as http:
        yield http


@pytest.fixture
def then_good(client: TestClient) -> Iterator[None]:
    """After the test's bad request, a good one succeeds."""
    yield
    assert client.post("/predict", files={"file": GOOD["jpeg"]}).status_code == 200


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model file."""
    return tiny_model.build(tmp_path_factory.mktemp("tiny") / "model.onnx")


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of Prometheus' promtool."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing; on Debian: apt-get install prometheus")
    return found
