"""The HTTP contract over real HTTP against two workers on the released model."""

import base64
import io
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from service import metrics
from service.models.card import Card
from service.models.detector import Detector
from service.photo import decode
from tests.service.conftest import ROOT, Server, read_answer
from tests.service.photos import BAD, GOOD, encode, photo
from tests.service.test_prediction_log import wait_for

pytestmark = pytest.mark.serve

PREDICT = "/predict"
ROUTES = ["/predict", "/predict/explain"]


def is_error(answer: httpx.Response, status: int, error: str | None = None) -> bool:
    """Check the one shape of errors; return True."""
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error", "detail", "request_id", "status_code", "error_class"}
    assert body["status_code"] == status
    assert body["error_class"] == ("server_error" if status >= 500 else "client_error")
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["detail"]
    assert error is None or body["error"] == error
    return True


@pytest.fixture
def then_good(client: httpx.Client, server: Server) -> Iterator[None]:
    """After the test's bad request, both workers still live and a good one succeeds."""
    before = server.workers()
    yield
    assert client.post(PREDICT, files={"file": GOOD["jpeg"]}).status_code == 200
    assert server.workers() == before
    assert len(before) == 2


def raw_form(name: bytes, content: bytes, field: bytes = b"file") -> dict[str, Any]:
    """Return a request whose file has a name that no client library would send."""
    head = b'--edge\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n' % (field, name)
    return {
        "content": head + content + b"\r\n--edge--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=edge"},
    }


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_photo_is_answered(client: httpx.Client, server: Server, name: str) -> None:
    answer = client.post(PREDICT, files={"file": ("photo.gif", GOOD[name], "image/gif")})  # the content decides
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {
        *("prediction", "probability", "confidence", "inference_time_ms", "model_version", "request_id"),
        *("decision", "decided_by", "in_domain", "domain", "provenance", "notes"),
    }
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", body["request_id"])
    assert body["prediction"] == ("ai_generated" if body["probability"] >= 0.5 else "real")
    assert body["confidence"] in {"low", "medium", "high"}
    assert body["in_domain"] == all(body["domain"].values())
    assert set(body["domain"]) == {"embedding", "geometry"}
    assert body["provenance"] == {"c2pa": None, "marks": [], "ai_markers": [], "trust": "none"}
    assert body["decided_by"] == "pixels"
    detector = Detector(server.model)
    pixels = detector.prepare(decode(GOOD[name]).image)[np.newaxis]
    assert body["probability"] == pytest.approx(float(detector.score(pixels).probability[0]), abs=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("then_good")
def test_every_bad_photo_is_refused_by_name(client: httpx.Client, route: str, name: str) -> None:
    data, status, error = BAD[name]
    answer = client.post(route, files={"file": ("photo.jpg", data, "image/jpeg")})
    assert is_error(answer, status, error)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("then_good")
def test_every_bad_photo_fails_alone_in_a_batch(client: httpx.Client, name: str) -> None:
    data, _, error = BAD[name]
    answer = client.post("/predict/batch", files=[("files", GOOD["png"]), ("files", data), ("files", GOOD["webp"])])
    assert answer.status_code == 200
    assert [item["error_type"] for item in answer.json()["results"]] == [None, error, None]


def _chunks(size: int) -> Iterator[bytes]:
    yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    for _ in range(size // 65536):
        yield b"0" * 65536
    yield b"\r\n--edge--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=edge"}
BODIES: dict[str, tuple[Callable[[], dict[str, Any]], int, str]] = {
    "none": (dict, 422, "validation_error"),
    "other_field": (lambda: {"files": {"photo": GOOD["jpeg"]}}, 422, "validation_error"),
    "two_files": (lambda: {"files": [("file", GOOD["jpeg"]), ("file", GOOD["png"])]}, 422, "validation_error"),
    "url_in_form": (lambda: {"files": {"file": (None, "http://127.0.0.1:9/a.jpg")}}, 422, "validation_error"),
    "url_encoded": (lambda: {"data": {"file": "http://127.0.0.1:9/a.jpg"}}, 422, "validation_error"),
    "json": (lambda: {"json": {"file": "x"}}, 415, "unsupported_media_type"),
    "pickle": (
        lambda: {"content": b"x", "headers": {"Content-Type": "application/vnd.bentoml+pickle"}},
        415,
        "unsupported_media_type",
    ),
    "raw_photo": (
        lambda: {"content": GOOD["jpeg"], "headers": {"Content-Type": "image/jpeg"}},
        415,
        "unsupported_media_type",
    ),
    "gzip": (
        lambda: {"files": {"file": GOOD["jpeg"]}, "headers": {"Content-Encoding": "gzip"}},
        415,
        "unsupported_media_type",
    ),
    "no_boundary": (
        lambda: {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        422,
        "validation_error",
    ),
    "no_form": (lambda: {"content": b"nothing of the sort", "headers": FORM}, 422, "validation_error"),
    "unfinished_form": (
        lambda: {
            "content": b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nabc',
            "headers": FORM,
        },
        422,
        "validation_error",
    ),
    "large_file": (lambda: {"files": {"file": b"0" * (10 * 2**20 + 1)}}, 413, "file_too_large"),
    "large_body": (lambda: {"files": {"file": b"0" * (11 * 2**20)}}, 413, "content_too_large"),
    "large_stream": (lambda: {"content": _chunks(12 * 2**20), "headers": FORM}, 413, "content_too_large"),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.usefixtures("then_good")
def test_every_bad_body_is_refused_by_name(client: httpx.Client, route: str, name: str) -> None:
    make, status, error = BODIES[name]
    assert is_error(client.post(route, **make()), status, error)


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
@pytest.mark.usefixtures("then_good")
def test_what_is_no_http_gets_the_error_shape_too(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        answer = read_answer(connection)
    assert is_error(answer, 400, "bad_request")
    assert server.request(answer)["error"] == "bad_request"


@pytest.mark.usefixtures("then_good")
def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
            b"Content-Length: 99999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.usefixtures("then_good")
def test_a_client_that_leaves_in_the_middle_does_no_harm(server: Server) -> None:
    for _ in range(4):
        with server.connect() as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
                b"Content-Length: 5000\r\n\r\n--edge\r\n"
            )


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        (b"../../etc/photo.jpg", "photo.jpg"),
        (b"C:\\\\photos\\\\photo.jpg", "photo.jpg"),
        (b"pho\x00to.jpg", "photo.jpg"),
        (b"..", ".."),
        ("größe.jpg".encode(), "größe.jpg"),
        (b"a" * 300, "a" * 255),
        (b"\x1b[31m.jpg", "[31m.jpg"),
    ],
)
@pytest.mark.usefixtures("then_good")
def test_file_names_are_only_echoed_and_cleaned(client: httpx.Client, sent: bytes, echoed: str) -> None:
    assert client.post(PREDICT, **raw_form(sent, GOOD["png"])).status_code == 200
    batch = client.post("/predict/batch", **raw_form(sent, GOOD["png"], b"files"))
    assert batch.status_code == 200, batch.text
    assert batch.json()["results"][0]["filename"] == echoed


def test_a_batch_keeps_its_order_and_one_bad_file_fails_alone(client: httpx.Client) -> None:
    photos = [encode(photo(seed=seed)) for seed in range(4)]
    names = ["d.png", "a.png", "bad.png", "c.png"]
    contents = [photos[0], photos[1], BAD["truncated_png"][0], photos[3]]
    files = [("files", pair) for pair in zip(names, contents, strict=True)]
    answer = client.post("/predict/batch", files=files, headers={"X-Request-ID": "batch-1"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["total"], body["successful"], body["failed"]) == (4, 3, 1)
    assert body["request_id"] == "batch-1"
    assert [item["filename"] for item in body["results"]] == names
    assert [item["request_id"] for item in body["results"]] == [f"batch-1:{place}" for place in range(4)]
    alone = client.post(PREDICT, files={"file": photos[3]}).json()
    for field in ("prediction", "confidence", "decision", "decided_by", "in_domain", "domain", "provenance"):
        assert body["results"][3][field] == alone[field]
    assert body["results"][3]["probability"] == pytest.approx(alone["probability"], abs=1e-5)
    bad = body["results"][2]
    assert bad["error_type"] == "corrupt_image"
    assert bad["error"]
    assert bad["prediction"] is bad["probability"] is bad["confidence"] is None
    assert all(item["error"] is None for item in body["results"] if item is not bad)


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([("files", GOOD["jpeg"])] * 20, 200),
        ([("files", GOOD["jpeg"])] * 21, 422),
        ([("files", GOOD["jpeg"])] * 1100, 422),
        ([("files", (None, "http://127.0.0.1:9/a.jpg"))], 422),
        ([("file", GOOD["jpeg"])], 422),
        ([("files", b"0" * (9 * 2**20))] * 6, 413),
        ([("files", b"0" * (10 * 2**20 + 1)), ("files", GOOD["jpeg"])], 200),
        ([("files", b"")], 200),
    ],
    ids=["most", "too_many", "far_too_many", "text", "other_field", "large", "one_large", "one_empty"],
)
@pytest.mark.usefixtures("then_good")
def test_the_batch_rules(client: httpx.Client, files: list[Any], status: int) -> None:
    answer = client.post("/predict/batch", files=files)
    assert answer.status_code == status, answer.text
    assert status == 200 or is_error(answer, status)


@pytest.mark.parametrize("size", [(32, 32), (640, 480), (300, 1200)])
def test_an_explanation_has_the_photos_aspect_ratio(client: httpx.Client, size: tuple[int, int]) -> None:
    data = encode(photo(*size), "JPEG")
    body = client.post("/predict/explain", files={"file": data}).json()
    picture = Image.open(io.BytesIO(base64.b64decode(body.pop("heatmap_base64"))))
    assert picture.format == "JPEG"
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.01)
    assert 256 <= max(picture.size) <= 1024
    plain = client.post(PREDICT, files={"file": data}).json()
    for field in ("inference_time_ms", "request_id"):
        del plain[field], body[field]
    assert body == plain


def test_a_turned_photo_scores_as_the_upright_one(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(photo(60, 40).transpose(Image.Transpose.ROTATE_90), exif=exif)
    scores = [
        client.post(PREDICT, files={"file": data}).json()["probability"] for data in (turned, encode(photo(60, 40)))
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("sane", ["mine-1", "A.b_c-9", "x" * 128])
def test_a_sane_request_id_is_kept(client: httpx.Client, sane: str) -> None:
    answer = client.post(PREDICT, files={"file": GOOD["png"]}, headers={"X-Request-ID": sane})
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == sane
    assert client.get("/livez", headers={"X-Request-ID": sane}).headers["X-Request-ID"] == sane


@pytest.mark.parametrize("insane", [b"", b"x" * 129, b"a b", b"<script>", b"a:1", "ä".encode()])
def test_another_request_id_is_replaced(client: httpx.Client, insane: bytes) -> None:
    answer = client.post(PREDICT, files={"file": GOOD["png"]}, headers={b"X-Request-ID": insane})
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", answer.headers["X-Request-ID"])
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/predict/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/predict", 405),
        ("PUT", "/predict/batch", 405),
        ("POST", "/health", 405),
        ("POST", "/healthz", 405),
        ("DELETE", "/metrics", 405),
        ("POST", "/", 405),
        ("HEAD", "/nothing", 404),
        ("GET", "/feedback", 405),
        ("GET", "/predict/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/static_content/../../service.py", 404),
        ("GET", "/static_content/%2e%2e/%2e%2e/service.py", 404),
        ("TRACE", "/predict", 405),
        ("PROPFIND", "/predict", 405),
        ("POST", "/predict/", 404),
    ],
)
@pytest.mark.usefixtures("then_good")
def test_unknown_paths_and_methods_have_the_error_shape(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert method == "HEAD" or is_error(answer, status, "not_found" if status == 404 else "method_not_allowed")
    assert answer.status_code == status
    assert status == 404 or answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/docs", "/model", "/livez", "/nothing", "/static_content/swagger-ui.css"])
def test_every_answer_says_what_browsers_and_caches_may_do(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    assert "Server" not in headers


def test_the_probes_of_bentoml_stay(client: httpx.Client) -> None:
    for path in ("/readyz", "/livez", "/healthz"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["X-Request-ID"]


def test_health(client: httpx.Client) -> None:
    before = client.get("/health").json()
    assert client.post(PREDICT, files={"file": GOOD["png"]}).status_code == 200
    answer = client.get("/health")
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] == "healthy"
    assert body["model_loaded"] is True
    assert body["uptime_seconds"] > 0
    assert body["active_requests"] == 1
    assert isinstance(body["drift_detected"], bool)
    assert body["predictions_total"] == before["predictions_total"] + 1


def test_model_serves_the_files_own_card(client: httpx.Client, server: Server) -> None:
    detector = Detector(server.model)
    body = client.get("/model").json()
    assert Card.model_validate(body["model"]) == detector.card.of_file
    assert body["version"] == detector.version
    assert body["thresholds"]["ai_prior"] == 0.5
    assert body["thresholds"]["flag"] == detector.card.thresholds.flag[0.01]
    assert body["license"] == "MIT"
    assert body["data"]["digest"]
    released = server.model.with_name("card.json").exists()
    assert (body["metrics"] is not None) == released
    assert (body["note"] is None) == released


def test_the_models_plots_are_pictures(client: httpx.Client, server: Server) -> None:
    plots = client.get("/model").json()["plots"]
    assert bool(plots) == server.model.with_name("plots").exists()
    for url in plots:
        answer = client.get(url)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
    for name in ("nothing.png", "..%2Fcard.json", "%2e%2e%2fcard.json", "roc.png%00"):
        assert is_error(client.get(f"/model/plots/{name}"), 404, "not_found")


def test_metrics_add_up_over_both_workers(client: httpx.Client, server: Server) -> None:
    def value(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(client.get("/metrics").text)
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
        assert httpx.post(server.url + PREDICT, files={"file": GOOD["png"]}, timeout=60).status_code == 200
    for _ in range(5):  # any worker tells the whole
        for name, labels in counted.items():
            assert value(name, **labels) == before[name] + 20, name
    refused = value("aidetect_image_validation_errors_total", error_type="corrupt_image")
    client.post(PREDICT, files={"file": BAD["png_crc"][0]})
    assert value("aidetect_image_validation_errors_total", error_type="corrupt_image") == refused + 1
    batches = value("aidetect_batch_size_count")
    client.post("/predict/batch", files=[("files", GOOD["png"])])
    assert value("aidetect_batch_size_count") == batches + 1
    assert value("aidetect_model_info") == 1
    assert value("aidetect_model_loaded") == 1
    assert value("aidetect_active_requests") == 1
    others = value("aidetect_http_requests_total", endpoint="other")
    client.get("/one-of-many-paths")
    assert value("aidetect_http_requests_total", endpoint="other") == others + 1
    assert "one-of-many-paths" not in client.get("/metrics").text
    wait_for(lambda: value("aidetect_prediction_log_rows_total") >= before["aidetect_predictions_total"] + 21)
    assert value("aidetect_prediction_log_lost_total") == 0


def test_the_openapi_page_is_complete_and_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 2
    for link in [*links, "/openapi.json"]:
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        *(
            "/predict",
            "/predict/batch",
            "/predict/explain",
            "/predictions/{prediction_id}",
            "/feedback",
            "/health",
            "/model",
            "/model/plots/{name}",
        ),
        *("/drift", "/drift/report", "/drift/reports", "/metrics", "/healthz", "/livez", "/readyz"),
    }
    assert [path for path in schema["paths"] if metrics.endpoint_of(path) != path] == []
    for path in ("/predict", "/predict/batch", "/predict/explain"):
        responses = schema["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "401", "408", "413", "415", "422", "429", "503"}
        for status, response in responses.items():
            content = response["content"]["application/json"]["schema"]["$ref"]
            assert content.endswith("/Error") == (status != "200")
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_bare_bentoml_serve_runs_two_workers(server: Server) -> None:
    assert server.starts() == 2


def test_the_bento_holds_what_serving_needs() -> None:
    whole, api = (yaml.safe_load((ROOT / name).read_text()) for name in ("bentofile.yaml", "ops/bentofile.api.yaml"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bentoml, *others = sorted(project["dependencies"])
    assert bentoml.startswith("bentoml")
    assert sorted(api["python"]["packages"]) == others
    assert sorted(whole["python"]["packages"]) == sorted(others + project["optional-dependencies"]["monitor"])
    assert api.pop("docker").pop("env") == whole.pop("docker").pop("env") | {"MONITOR": "off"}
    assert api | {"python": None} == whole | {"python": None}
