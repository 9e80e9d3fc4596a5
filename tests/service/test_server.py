"""One real server: BentoML's own routes, two workers, and what only a connection can send."""

import re
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.http.middleware import HEADERS
from service.http.routing import PROBES
from tests.support.http import is_error
from tests.support.photos import BAD, GOOD
from tests.support.server import Server, read_answer, released_models
from tests.support.waiting import wait_for

pytestmark = pytest.mark.serve


@pytest.fixture
def unharmed(remote: httpx.Client, server: Server) -> Iterator[None]:
    """After the test's bad request, both workers still live and a good one succeeds."""
    before = server.workers()
    yield
    assert remote.post("/predict", files={"file": GOOD["jpeg"]}).status_code == 200
    assert server.workers() == before
    assert len(before) == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: five\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"\x00" * 100,
    ],
    ids=["method", "header", "negative", "no_number", "two_lengths", "two_ways", "chunk", "space", "tls", "zeros"],
)
@pytest.mark.usefixtures("unharmed")
def test_what_is_no_http_gets_the_error_shape_too(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        answer = read_answer(connection)
    assert is_error(answer, 400, "bad_request")
    assert server.request(answer)["error"] == "bad_request"


@pytest.mark.usefixtures("unharmed")
def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
            b"Content-Length: 99999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.usefixtures("unharmed")
def test_a_client_that_leaves_in_the_middle_does_no_harm(server: Server) -> None:
    for _ in range(4):
        with server.connect() as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
                b"Content-Length: 5000\r\n\r\n--edge\r\n"
            )


def test_bentomls_own_routes_keep_the_contract_too(remote: httpx.Client) -> None:
    for path in (*PROBES, "/static_content/swagger-ui.css"):
        answer = remote.get(path, headers={"X-Request-ID": "mine"})
        assert answer.status_code == 200
        assert answer.headers["X-Request-ID"] == "mine"
        assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
        assert "Server" not in answer.headers
        assert is_error(remote.post(path), 405, "method_not_allowed")
    for path in ("/static_content/../../service.py", "/static_content/%2e%2e/%2e%2e/service.py", "/livez/"):
        assert is_error(remote.get(path), 404, "not_found")


def test_the_openapi_page_needs_no_other_host(remote: httpx.Client) -> None:
    page = remote.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 2
    for link in [*links, "/openapi.json"]:
        assert link.startswith("/")
        assert remote.get(link).status_code == 200


@pytest.mark.usefixtures("unharmed")
def test_a_large_body_in_chunks_is_refused(remote: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        for _ in range(12 * 16):
            yield b"0" * 65536

    answer = remote.post("/predict", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=edge"})
    assert is_error(answer, 413, "content_too_large")


@pytest.mark.parametrize("label", ["real", "ai_generated"])
def test_feedback_is_taken_by_either_worker_right_after_the_answer(server: Server, label: str) -> None:
    for _ in range(4):  # either worker may answer, before the other has written the prediction
        told = httpx.post(f"{server.url}/predict", files={"file": GOOD["png"]}, timeout=60).json()
        said = {"request_id": told["request_id"], "label": label}
        answer = httpx.post(f"{server.url}/feedback", json=said, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["prediction_id"] == told["request_id"]


def test_metrics_add_up_over_both_workers(remote: httpx.Client, server: Server) -> None:
    def value(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(remote.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    counted = {
        "aidetect_predictions_total": {"status": "success"},
        "aidetect_prediction_probability_count": {},
        "aidetect_http_requests_total": {"endpoint": "/predict", "method": "POST", "status": "200"},
        "aidetect_decisions_total": {},
        "aidetect_prediction_latency_seconds_count": {},
        "aidetect_image_size_bytes_count": {},
    }
    before = {name: value(name, **labels) for name, labels in counted.items()}
    for _ in range(20):  # a connection each, so that both workers answer
        assert httpx.post(server.url + "/predict", files={"file": GOOD["png"]}, timeout=60).status_code == 200
    for _ in range(5):  # any worker tells the whole
        for name, labels in counted.items():
            assert value(name, **labels) == before[name] + 20, name
    refused = value("aidetect_image_validation_errors_total", error_type="corrupt_image")
    remote.post("/predict", files={"file": BAD["png_crc"][0]})
    assert value("aidetect_image_validation_errors_total", error_type="corrupt_image") == refused + 1
    batches = value("aidetect_batch_size_count")
    remote.post("/predict/batch", files=[("files", GOOD["png"])])
    assert value("aidetect_batch_size_count") == batches + 1
    models = len(list(released_models().glob("*/card.json"))) or 1  # one, where MODEL_PATH names it
    assert value("aidetect_model_info") == value("aidetect_model_loaded") == models
    assert value("aidetect_active_requests") == 1
    others = value("aidetect_http_requests_total", endpoint="other")
    remote.get("/one-of-many-paths")
    assert value("aidetect_http_requests_total", endpoint="other") == others + 1
    assert "one-of-many-paths" not in remote.get("/metrics").text
    wait_for(lambda: value("aidetect_prediction_log_rows_total") >= before["aidetect_predictions_total"] + 21)
    assert value("aidetect_prediction_log_lost_total") == 0


def test_bare_bentoml_serve_runs_two_workers(server: Server) -> None:
    assert server.starts() == 2
