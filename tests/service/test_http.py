"""The HTTP contract on the released model."""

import base64
import io
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from starlette.testclient import TestClient

from service.http.routing import PROBES
from service.models.card import Card
from service.models.detector import Detector
from service.photo import decode
from tests.support.http import is_error
from tests.support.photos import BAD, GOOD, encode, photo
from tests.support.server import ROOT, released_model, released_models

PREDICT = "/predict"
ROUTES = ["/predict", "/predict/explain"]


def raw_form(name: bytes, content: bytes, field: bytes = b"file") -> dict[str, Any]:
    """Return a request whose file has a name that no client library would send."""
    head = b'--edge\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\n\r\n' % (field, name)
    return {
        "content": head + content + b"\r\n--edge--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=edge"},
    }


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_photo_is_answered(client: TestClient, name: str) -> None:
    answer = client.post(PREDICT, files={"file": ("photo.gif", GOOD[name], "image/gif")})  # the content decides
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {
        *("prediction", "probability", "confidence", "inference_time_ms", "model", "model_version", "request_id"),
        *("decision", "decided_by", "in_domain", "domain", "provenance", "notes", "calibration"),
    }
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{26}", body["request_id"])
    assert body["prediction"] == ("ai_generated" if body["probability"] >= 0.5 else "real")
    assert body["confidence"] in {"low", "medium", "high"}
    assert body["in_domain"] == all(body["domain"].values())
    assert set(body["domain"]) == {"embedding", "geometry"}
    assert body["provenance"] == {"c2pa": None, "marks": [], "ai_markers": [], "trust": "none"}
    assert body["decided_by"] == "pixels"
    answering = released_models() / body["model"]
    detector = Detector(answering if answering.is_dir() else released_model())
    pixels = detector.prepare(decode(GOOD[name]).image)[np.newaxis]
    assert body["probability"] == pytest.approx(float(detector.score(pixels).probability[0]), abs=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("then_good")
def test_every_bad_photo_is_refused_by_name(client: TestClient, route: str, name: str) -> None:
    data, status, error = BAD[name]
    answer = client.post(route, files={"file": ("photo.jpg", data, "image/jpeg")})
    assert is_error(answer, status, error)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("then_good")
def test_every_bad_photo_fails_alone_in_a_batch(client: TestClient, name: str) -> None:
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
def test_every_bad_body_is_refused_by_name(client: TestClient, route: str, name: str) -> None:
    make, status, error = BODIES[name]
    assert is_error(client.post(route, **make()), status, error)


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
def test_file_names_are_only_echoed_and_cleaned(client: TestClient, sent: bytes, echoed: str) -> None:
    assert client.post(PREDICT, **raw_form(sent, GOOD["png"])).status_code == 200
    batch = client.post("/predict/batch", **raw_form(sent, GOOD["png"], b"files"))
    assert batch.status_code == 200, batch.text
    assert batch.json()["results"][0]["filename"] == echoed


def test_a_batch_keeps_its_order_and_one_bad_file_fails_alone(client: TestClient) -> None:
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
def test_the_batch_rules(client: TestClient, files: list[Any], status: int) -> None:
    answer = client.post("/predict/batch", files=files)
    assert answer.status_code == status, answer.text
    assert status == 200 or is_error(answer, status)


@pytest.mark.parametrize("size", [(32, 32), (640, 480), (300, 1200)])
def test_an_explanation_has_the_photos_aspect_ratio(client: TestClient, size: tuple[int, int]) -> None:
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


def test_a_turned_photo_scores_as_the_upright_one(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(photo(60, 40).transpose(Image.Transpose.ROTATE_90), exif=exif)
    scores = [
        client.post(PREDICT, files={"file": data}).json()["probability"] for data in (turned, encode(photo(60, 40)))
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("sane", ["mine-1", "A.b_c-9", "x" * 128])
def test_a_sane_request_id_is_kept(client: TestClient, sane: str) -> None:
    answer = client.post(PREDICT, files={"file": GOOD["png"]}, headers={"X-Request-ID": sane})
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == sane
    assert client.get("/nothing", headers={"X-Request-ID": sane}).headers["X-Request-ID"] == sane


@pytest.mark.parametrize("insane", [b"", b"x" * 129, b"a b", b"<script>", b"a:1", "ä".encode()])
def test_another_request_id_is_replaced(client: TestClient, insane: bytes) -> None:
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
        ("DELETE", "/metrics", 405),
        ("POST", "/", 405),
        ("HEAD", "/nothing", 404),
        ("GET", "/feedback", 405),
        ("GET", "/predict/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("TRACE", "/predict", 405),
        ("PROPFIND", "/predict", 405),
        ("POST", "/predict/", 404),
    ],
)
@pytest.mark.usefixtures("then_good")
def test_unknown_paths_and_methods_have_the_error_shape(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert method == "HEAD" or is_error(answer, status, "not_found" if status == 404 else "method_not_allowed")
    assert answer.status_code == status
    assert status == 404 or answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/docs", "/model", "/nothing"])
def test_every_answer_says_what_browsers_and_caches_may_do(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    assert "Server" not in headers


def test_health(client: TestClient) -> None:
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


def test_model_serves_the_files_own_card(client: TestClient) -> None:
    detector = Detector(released_model())
    body = client.get("/model").json()
    assert Card.model_validate(body["model"]) == detector.card.of_file
    assert body["version"] == detector.version
    assert body["thresholds"]["ai_prior"] == 0.5
    assert body["thresholds"]["flag"] == detector.card.thresholds.flag[0.01]
    assert body["license"] == "MIT"
    assert body["data"]["digest"]
    released = released_model().with_name("card.json").exists()
    assert (body["metrics"] is not None) == released
    assert (body["note"] is None) == released


def test_the_models_plots_are_pictures(client: TestClient) -> None:
    plots = client.get("/model").json()["plots"]
    assert bool(plots) == released_model().with_name("plots").exists()
    for url in plots:
        answer = client.get(url)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
    for name in ("nothing.png", "..%2Fcard.json", "%2e%2e%2fcard.json", "roc.png%00"):
        assert is_error(client.get(f"/model/plots/{name}"), 404, "not_found")


def test_the_schema_is_complete_and_every_route_is_in_the_docs(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    docs = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")
    assert set(schema["paths"]) > {"/predict", "/metrics", *PROBES}
    for path in schema["paths"]:
        assert re.search(rf"{re.escape(path.partition('{')[0].rstrip('/'))}\b", docs), f"{path} is not in docs/API.md"
    for path in ("/predict", "/predict/batch", "/predict/explain", "/predict/listing"):
        responses = schema["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "401", "404", "408", "413", "415", "422", "429", "503"}
        for status, response in responses.items():
            content = response["content"]["application/json"]["schema"]["$ref"]
            assert content.endswith("/Error") == (status != "200")
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_the_bento_holds_what_serving_needs() -> None:
    whole, api = (yaml.safe_load((ROOT / name).read_text()) for name in ("bentofile.yaml", "ops/bentofile.api.yaml"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bentoml, *others = sorted(project["dependencies"])
    assert bentoml.startswith("bentoml")
    assert sorted(api["python"]["packages"]) == others
    assert sorted(whole["python"]["packages"]) == sorted(others + project["optional-dependencies"]["monitor"])
    assert api.pop("docker").pop("env") == whole.pop("docker").pop("env") | {"MONITOR": "off"}
    assert api | {"python": None} == whole | {"python": None}
