"""What the service prints: JSON lines, one a request, with nothing in them that does not belong there."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.support.photos import BAD, GOOD
from tests.support.server import Server, is_ready, serving

pytestmark = pytest.mark.serve

KEY = "the-key-of-the-shop"
SECRET_NAME = "the-name-of-a-seller.png"


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a key."""
    with serving(tmp_path_factory.mktemp("logged"), is_ready, API_KEYS=f"shop:{KEY}") as server:
        yield server


Send = Callable[[httpx.Client], httpx.Response]
REQUESTS: dict[str, tuple[Send, dict[str, Any]]] = {
    "prediction": (
        lambda client: client.post("/predict?token=hush", files={"file": (SECRET_NAME, GOOD["png"])}),
        {"method": "POST", "path": "/predict", "status": 200, "key": "shop"},
    ),
    "explanation": (
        lambda client: client.post("/predict/explain", files={"file": GOOD["png"]}),
        {"path": "/predict/explain", "status": 200},
    ),
    "batch": (
        lambda client: client.post("/predict/batch", files=[("files", GOOD["png"]), ("files", BAD["text"][0])]),
        {"path": "/predict/batch", "status": 200, "photos": 2, "failed": 1},
    ),
    "refusal": (
        lambda client: client.post("/predict", files={"file": BAD["png_crc"][0]}),
        {"status": 422, "error": "corrupt_image"},
    ),
    "unknown_path": (
        lambda client: client.get("/no/such/path"),
        {"path": "/no/such/path", "status": 404, "error": "not_found"},
    ),
    "no_key": (
        lambda client: client.get("/model", headers={"X-API-Key": ""}),
        {"path": "/model", "status": 401, "error": "unauthorized", "key": None},
    ),
    "probe": (lambda client: client.get("/livez"), {"path": "/livez", "status": 200}),
    "long_path": (lambda client: client.get("/" + "x" * 5000), {"path": "/" + "x" * 199, "status": 404}),
    "line_end_in_path": (lambda client: client.get("/a%0Ab"), {"path": "/a\nb", "status": 404}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_one_line(logged: Server, name: str) -> None:
    send, expected = REQUESTS[name]
    started = datetime.now(UTC)
    with httpx.Client(base_url=logged.url, headers={"X-API-Key": KEY}, timeout=60) as client:
        answer = send(client)
    line = logged.request(answer)
    assert line["level"] == "info"
    assert started <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)
    assert line["duration_ms"] > 0
    assert line["bytes"] >= 0
    assert line["client"] == "127.0.0.1"
    assert expected.items() <= line.items()
    if name in {"prediction", "explanation"}:
        assert line["decision"] == answer.json()["decision"]
        assert line["prediction"] == answer.json()["prediction"]


def test_every_line_is_json_and_none_tells_a_secret(logged: Server) -> None:
    with httpx.Client(base_url=logged.url, headers={"X-API-Key": KEY}, timeout=60) as client:
        for send, _ in REQUESTS.values():
            send(client)
    lines = logged.printed().splitlines()
    assert all({"event", "level", "timestamp"} <= set(json.loads(line)) for line in lines)
    for secret in (KEY, SECRET_NAME, "hush", "PNG", "IDAT"):
        assert secret not in logged.printed()
