"""The page's parts: words, table, and the sentences for whatever may answer."""

import csv
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from ui import client as client_module
from ui import examples, many, words
from ui.client import BATCH, Client, ServiceError
from ui.many import HEADERS

ANSWER: dict[str, Any] = {
    "prediction": "ai_generated", "probability": 0.97, "confidence": "high", "decision": "flag", "in_domain": True,
    "domain": {"embedding": True, "geometry": True}, "provenance": {"c2pa": None, "ai_markers": []},
    "inference_time_ms": 3.0, "model_version": "1.0.0", "request_id": "one",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Likely AI-generated, 97 %: flag"),
        ({"probability": 0.999}, "Likely AI-generated, over 99 %: flag"),
        ({"prediction": "real", "probability": 0.004, "decision": "clear"}, "Likely real, over 99 %: clear"),
        ({"prediction": "real", "probability": 0.4, "decision": "review"}, "Likely real, 60 %: review"),
        ({"in_domain": False, "decision": "review"}, "Unlike the photos this model knows: ask a person"),
    ],
)
def test_the_headline(changes: dict[str, Any], sentence: str) -> None:
    assert words.headline(ANSWER | changes).replace("\u00a0", " ") == sentence


def test_why_a_photo_is_unlike() -> None:
    outside = ANSWER | {"in_domain": False, "domain": {"embedding": False, "geometry": False}}
    assert "its size is not that of the training photos and to the network it is unlike them" in words.reason(outside)


def test_what_a_stranger_wrote_stays_text() -> None:
    evil = "<script>alert(1)</script>"
    page = words.verdict(ANSWER | {"request_id": evil, "provenance": {"c2pa": None, "ai_markers": [evil]}})
    assert "<script>" not in page
    assert "<script>" not in words.problem(evil)
    assert "<script>" not in words.frame(evil, evil)


def test_heat_map_and_photo_have_one_shape_whatever_the_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # rotated by a quarter
    Image.new("RGB", (60, 20)).save(tmp_path / "photo.jpg", exif=exif)
    page = words.heat(str(tmp_path / "photo.jpg"), "AAAA")
    assert page.count("<img") == 2
    assert 'src="data:image/jpeg;base64,AAAA"' in page


def test_examples_are_photos_of_our_own_and_of_packages() -> None:
    paths = examples.examples()
    sizes = {name: Image.open(path).size for name, path in paths.items()}
    assert len(sizes) == 4
    assert sizes["the same, small"] == sizes["a drawing"] == (32, 32)


def test_the_table_keeps_order_and_says_what_failed(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "=bad.png"
    Image.new("RGB", (500, 400)).save(good)
    bad.write_bytes(b"no photo")
    item = ANSWER | {"filename": "good.png", "error": None, "request_id": "one:0"}
    refused = {"filename": "=bad.png", "error": "the file is empty", "request_id": "one:1"}
    rows = [many.row(str(good), item), many.row(str(bad), refused)]
    assert [len(row) for row in rows] == [len(HEADERS)] * 2
    assert rows[0][0].startswith('<img alt="" src="data:image/jpeg;base64,')
    assert rows[1][0] == ""
    with Path(many.write_csv(rows)).open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["file"] for row in written] == ["good.png", "'=bad.png"]
    assert written[1]["error"] == "the file is empty"
    assert written[0]["decision"] == "flag"
    assert many.summary({"a": rows[0], "b": rows[1]}, 3).startswith(
        "2 of 3 photos: 1 flag, 0 review, 0 clear, 1 without"
    )


def test_batches_are_cut_by_number_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for number in range(45):
        paths.append(str(tmp_path / str(number)))
        Path(paths[-1]).write_bytes(b"x" * 10)
    assert [len(batch) for batch in Client.batches(paths)] == [BATCH, BATCH, 5]
    monkeypatch.setattr(client_module, "BATCH_BYTES", 100)
    cut = list(Client.batches(paths))
    assert [len(batch) for batch in cut] == [10, 10, 10, 10, 5]
    assert [path for batch in cut for path in batch] == paths


class Canned(BaseHTTPRequestHandler):
    """Answers with what the test put at the server: status, headers, body."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def other() -> Iterator[ThreadingHTTPServer]:
    """A server that is not the detector."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Canned)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def error(name: str, detail: str = "") -> str:
    return json.dumps({"error": name, "detail": detail})


@pytest.mark.parametrize(
    ("answer", "sentence", "wait"),
    [
        ((429, {"Retry-After": "7"}, error("rate_limit_exceeded")), "Wait 7 seconds, then try again", 7),
        ((429, {"Retry-After": "600"}, error("rate_limit_exceeded")), "Wait 10 minutes, then try again", 600),
        ((429, {}, error("rate_limit_exceeded")), "Wait a moment, then try again", None),
        ((503, {"Retry-After": "1"}, error("too_busy")), "The detector is busy. Try again in 1 second.", 1),
        ((401, {}, error("unauthorized")), "start this page with API_KEY set to a valid one", None),
        ((422, {}, error("image_too_small", "the image is 1 x 1")), "The image is 1 x 1.", None),
        ((502, {}, "<html>Bad gateway</html>"), "The detector answered 502 and no reason", None),
        ((200, {}, "<html>Hello</html>"), "is not the detector. Is API_URL right?", None),
        ((200, {}, "[1]"), "is not the detector. Is API_URL right?", None),
    ],
)
def test_whatever_answers_there_is_a_sentence(
    other: ThreadingHTTPServer, answer: tuple[int, dict[str, str], str], sentence: str, wait: int | None
) -> None:
    other.answer = answer  # type: ignore[attr-defined]
    with pytest.raises(ServiceError) as caught:
        Client(f"http://127.0.0.1:{other.server_port}").drift()
    assert sentence in str(caught.value)
    assert caught.value.wait == wait
    assert not caught.value.down


def test_nobody_there_is_a_sentence(other: ThreadingHTTPServer) -> None:
    other.shutdown()
    other.server_close()
    with pytest.raises(ServiceError, match=r"cannot be reached at .*\. Is it running") as caught:
        Client(f"http://127.0.0.1:{other.server_port}").drift()
    assert caught.value.down
    with pytest.raises(ServiceError, match="give it as http://host:port"):
        Client("localhost:3000")
