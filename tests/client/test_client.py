"""The client against the real service, and against ones that refuse, wait, die or are none."""

import copy
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from client import Client, Drift, Failure, Feedback, Listing, Prediction, ServiceError
from client.answers import Credential
from client.folder import COLUMNS, SUFFIXES, FolderError, photos_of, score_folder, write_table
from client.patience import patiently
from service import schemas
from service.photo import formats
from tests.support.photos import encode, photo
from tests.support.server import ROOT, Server, is_ready, serving
from tests.support.signing import TRUSTED, anchors_file

GENERATED = ["trainedAlgorithmicMedia"]
COMMAND = [sys.executable, "-m", "client"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The released model, with keys and the drift monitor on."""
    folder = tmp_path_factory.mktemp("service")
    anchors = str(anchors_file(folder))
    with serving(folder, is_ready, MONITOR="true", API_KEYS="shop:secret", C2PA_TRUST_ANCHORS=anchors) as running:
        yield running


@pytest.fixture
def client(service: Server) -> Iterator[Client]:
    """A client of that service."""
    with Client(service.url, "secret") as opened:
        yield opened


def run(server: Server, *arguments: str | Path, key: str = "secret") -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return execute(server.url, *arguments, key=key)


def execute(url: str, *arguments: str | Path, key: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line against whatever answers there."""
    environment = os.environ | {"API_URL": url, "API_KEY": key}
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def unread(sent: Any, known: Any, where: str = "") -> list[str]:
    """Return where a service may send what the client does not read; both are JSON schemas, with their `$defs`.

    What the service sends and the client does not know is passed over.
    """

    def parts(schema: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in schema:
            return parts(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
        return [part for each in schema["anyOf"] for part in parts(each, root)] if "anyOf" in schema else [schema]

    def fits(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        if one.get("type") != other.get("type") or not set(one.get("enum", [])) <= set(other.get("enum", [])):
            return [where or "all"]
        if one["type"] == "array":
            return unread(one["items"] | defs[0], other["items"] | defs[1], f"{where}[]")
        lost = []
        for name, field in other.get("properties", {}).items():
            if name not in one["properties"]:
                lost.append(f"{where}.{name}")
            else:
                lost += unread(one["properties"][name] | defs[0], field | defs[1], f"{where}.{name}")
        return lost

    defs = [{"$defs": each.get("$defs", {})} for each in (sent, known)]
    return [
        place
        for one in parts(sent, sent)
        for place in min((fits(one, other) for other in parts(known, known)), key=len)
    ]


@pytest.mark.parametrize(
    ("type_", "schema"),
    [
        (Prediction, schemas.PredictResponse), (Feedback, schemas.FeedbackResponse), (Drift, schemas.DriftResponse),
    ],
)  # fmt: skip
def test_what_the_service_sends_can_be_read(type_: Any, schema: Any) -> None:
    """A field that the service adds needs no edit of the client; one that it changes or drops does."""
    sent = TypeAdapter(schema).json_schema(mode="serialization")
    assert unread(sent, TypeAdapter(type_).json_schema()) == []


def test_what_the_service_says_of_a_listing_can_be_read() -> None:
    sent = TypeAdapter(schemas.Listing).json_schema(mode="serialization")
    assert unread(sent, TypeAdapter(Listing).json_schema()) == [".answers"], "those come from the batch's part"


def test_what_the_service_changes_or_drops_is_seen() -> None:
    sent = TypeAdapter(schemas.PredictResponse).json_schema(mode="serialization")
    known = TypeAdapter(Prediction).json_schema()
    changed = copy.deepcopy(sent)
    changed["properties"]["probability"]["type"] = "string"
    changed["properties"]["decision"]["enum"].append("ask")
    del changed["properties"]["in_domain"]
    changed["$defs"]["Mark"]["properties"]["says"] = {"type": "integer"}
    assert unread(changed, known) == [".probability", ".decision", ".in_domain", ".provenance.marks[].says"]


def test_a_failure_is_an_item_of_a_batch() -> None:
    assert set(Failure.model_fields) <= set(schemas.BatchItem.model_fields)


def test_an_older_services_credential_is_read() -> None:
    old = {"status": "valid", "declares": GENERATED, "generator": None, "signer": "x", "problems": []}
    found = Credential.model_validate(old)
    assert (found.unchanged, found.versions) == (None, [])


ITEM: dict[str, Any] = {
    "filename": "a.jpg", "prediction": "real", "probability": 0.1, "confidence": "high", "decision": "clear",
    "decided_by": "pixels", "in_domain": True, "domain": {"embedding": True, "geometry": True},
    "provenance": {"c2pa": None, "ai_markers": [], "trust": "none"}, "error": None, "request_id": "one:0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("item", "batch", "model"),
    [
        (ITEM, {"model_version": "1.3.0"}, (None, "1.3.0")),  # an older service: one model, and no name
        (ITEM | {"model": "photos", "model_version": "2.0.0", "of_tomorrow": 1}, {}, ("photos", "2.0.0")),
        (ITEM | {"model": "photos", "model_version": "2.0.0"}, {"model_version": "1.3.0"}, ("photos", "2.0.0")),
    ],
)
def test_older_and_newer_services_answers_are_read(
    other: Any, item: dict[str, Any], batch: dict[str, Any], model: tuple[str | None, str]
) -> None:
    other.answers = [(200, {}, {"results": [item], **batch})]
    with Client(f"http://127.0.0.1:{other.server_port}") as client:
        (found,) = client.predict_many([b"x"])
    assert isinstance(found, Prediction)
    assert (found.model, found.model_version) == model


@pytest.mark.serve
def test_one_photo_as_path_and_as_bytes(client: Client, tmp_path: Path) -> None:
    data = encode(photo())
    (tmp_path / "a.png").write_bytes(data)
    one, other = client.predict(tmp_path / "a.png"), client.predict(data)
    assert isinstance(one, Prediction)
    assert one.probability == other.probability
    assert one.provenance.trust == "none"
    with pytest.raises(ServiceError, match="none of JPEG, PNG, WebP, AVIF, HEIC") as caught:
        client.predict(b"no photo")
    assert (caught.value.status, caught.value.error) == (415, "unsupported_format")


@pytest.mark.serve
def test_many_photos_in_order_and_a_bad_one(client: Client) -> None:
    photos = [encode(photo(seed=seed)) for seed in range(45)]
    photos[7] = b"no photo"
    answers = client.predict_many(photos)
    assert len(answers) == 45
    assert isinstance(answers[7], Failure)
    assert answers[7].error_type == "unsupported_format"
    for place in (0, 21, 44):
        found = answers[place]
        assert isinstance(found, Prediction)
        assert found.probability == pytest.approx(client.predict(photos[place]).probability, abs=1e-5)


@pytest.mark.serve
def test_a_listing_has_one_answer(client: Client, service: Server, tmp_path: Path) -> None:
    photos = [
        encode(photo(seed=1)),
        b"no photo",
        TRUSTED.sign(encode(photo()), "PNG", GENERATED),
        encode(photo(seed=1)),
    ]
    found = client.predict_listing(photos, "lamp-17")
    assert (found.id, found.decision, found.decided_by, found.carried_by) == ("lamp-17", "flag", "credential", [2])
    assert (found.photos, found.repeated) == (2, [3])
    assert [type(answer) for answer in found.answers] == [Prediction, Failure, Prediction, Prediction]
    with pytest.raises(ServiceError, match="at most 20"):
        client.predict_listing([b"x"] * 21)
    (tmp_path / "lamp" / "more").mkdir(parents=True)
    for place, data in enumerate(photos):
        (tmp_path / "lamp" / "more" / f"{place}.png").write_bytes(data)
    done = run(service, "listing", tmp_path / "lamp", "--id", "lamp-17")
    first, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"flag    P\(AI\) \S+  lamp-17  .*lamp: 2 photos", first)
    assert [line for line in lines if line.endswith("<- flags the listing")] == [next(x for x in lines if "2.png" in x)]
    assert "(there already)" in done.stdout
    assert done.returncode == 1, "one photo has no verdict"
    as_json = json.loads(run(service, "listing", tmp_path / "lamp", "--json").stdout)
    assert (as_json["decision"], as_json["carried_by"]) == ("flag", [2])
    (tmp_path / "empty").mkdir()
    for folder, sentence in (("empty", "holds no photo"), ("nowhere", "is not a folder")):
        refused = run(service, "listing", tmp_path / folder)
        assert refused.returncode == 2
        assert sentence in refused.stderr


@pytest.mark.serve
def test_explanation_feedback_drift_and_model(client: Client) -> None:
    explained = client.explain(encode(photo()))
    assert explained.heatmap.startswith(b"\xff\xd8")
    said = client.feedback(explained.prediction.request_id, "real")
    logged = client.prediction(explained.prediction.request_id)
    assert logged["probability"] == explained.prediction.probability
    assert (logged["label"], logged["decision"]) == ("real", explained.prediction.decision)
    assert said.agrees == (explained.prediction.prediction == "real")
    drift = client.drift()
    assert drift.status == "insufficient_data"
    named = {card["name"]: card["version"] for card in client.models()}
    assert named[explained.prediction.model] == explained.prediction.model_version
    assert client.model()["name"] == min(named)
    assert client.drift(max(named)).status == "insufficient_data"


@pytest.mark.serve
def test_a_credential_has_types(client: Client) -> None:
    found = client.predict(TRUSTED.sign(encode(photo()), "PNG", GENERATED))
    assert found.decided_by == "credential"
    assert found.provenance.c2pa is not None
    assert found.provenance.c2pa.declares == GENERATED


@pytest.mark.serve
def test_the_docs_program_runs(service: Server, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/CLIENT.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "photo.jpg").write_bytes(encode(photo(), "JPEG"))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    program = program.replace("http://localhost:3000", service.url).replace('"…"', '"secret"')
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert re.fullmatch(
        r"(flag|clear|review) 0\.\d+ none\n(flag|clear|review) \S+:0\ncorrupt_image .*\ninsufficient_data \S+\n",
        done.stdout,
    ), done.stdout


@pytest.mark.serve
def test_check_on_the_command_line(service: Server, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(encode(photo()))
    (tmp_path / "signed.png").write_bytes(TRUSTED.sign(encode(photo()), "PNG", GENERATED))
    (tmp_path / "bad.png").write_bytes(b"no photo")
    done = run(service, "check", tmp_path / "good.png", tmp_path / "signed.png")
    assert done.returncode == 0, done.stderr
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(odd).write_bytes(encode(photo()))
    assert "caf\\udce9.png  (out of domain: the model knows no such photos)\n" in run(service, "check", odd).stdout
    assert run(service, "explain", tmp_path / "good.png", tmp_path / "why.jpg").returncode == 0
    assert (tmp_path / "why.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "(by its Content Credentials)" in done.stdout.splitlines()[1]
    done = run(service, "check", "--json", tmp_path / "good.png", tmp_path / "bad.png")
    assert done.returncode == 1
    good, bad = map(json.loads, done.stdout.splitlines())
    assert {"probability", "decision"} <= set(good)
    assert bad["error_type"] == "unsupported_format"
    done = run(service, "check", tmp_path / "none.png", tmp_path / "good.png", tmp_path)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["error", "review", "error"]
    assert "no such file" in done.stdout
    assert "aidetect folder" in done.stdout
    done = run(service, "--api-url", "http://127.0.0.1:9", "--patience", "5", "check", tmp_path / "good.png")
    assert done.returncode == 2
    assert "(API_URL) is busy or does not answer: trying for 5 seconds" in done.stderr
    for arguments, words in (
        (["feedback", "unknown", "real"], "No prediction unknown is known"),
        (["show", "a b"], "Prediction_id: "),
    ):
        done = run(service, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    done = run(service, "drift", key="wrong")
    assert (done.returncode, done.stderr) == (2, "error: The detector wants an API key: set API_KEY to a valid one.\n")
    request_id = json.loads(run(service, "check", "--json", tmp_path / "good.png").stdout)["request_id"]
    assert "noted: real" in run(service, "feedback", request_id, "real").stdout
    assert json.loads(run(service, "show", request_id).stdout)["label"] == "real"
    done = run(service, "drift")
    assert done.returncode == 0
    assert "insufficient_data" in done.stdout


class Other(BaseHTTPRequestHandler):
    """Answers with what the test put at the server, one after the other; the last one again and again."""

    def do_GET(self) -> None:
        answers: list[tuple[int, dict[str, str], Any]] = self.server.answers  # type: ignore[attr-defined]
        self.server.asked.append(time.monotonic())  # type: ignore[attr-defined]
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def other() -> Iterator[Any]:
    """A server that answers as it is told."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    server.asked, server.paths = [], []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


BUSY = (503, {"Retry-After": "1"}, {"error": "too_busy", "detail": "wait"})
DRIFT = {
    "status": "drift", "drift_detected": True, "drift_score": 0.5, "checks_in_a_row": 2, "window_size": 500,
    "alerts": ["photos are blurrier"], "estimated_accuracy": None, "timestamp": "2026-11-23T10:00:00Z", "new": 1,
}  # fmt: skip


def test_it_waits_as_long_as_it_is_told_and_no_longer(other: Any) -> None:
    other.answers = [BUSY, (502, {}, "<html>"), (200, {}, DRIFT)]
    url = f"http://127.0.0.1:{other.server_port}"
    with Client(url) as client:
        assert client.drift().alerts == ["photos are blurrier"]
    first, second, third = other.asked
    assert second - first >= 1
    assert third > second
    other.answers, other.asked = [(429, {"Retry-After": "600"}, {"error": "rate_limit_exceeded", "detail": ""})], []
    with Client(url, patience=5) as client, pytest.raises(ServiceError, match="Wait 10 minutes"):
        client.drift()
    assert len(other.asked) == 1  # ten minutes are more than it has: nobody waits for nothing
    other.answers, other.asked = [BUSY], []
    with Client(url, patience=0) as client, pytest.raises(ServiceError, match="busy"):
        client.drift()
    assert len(other.asked) == 1


def test_drift_is_an_exit_code(other: Any) -> None:
    other.answers = [(200, {}, DRIFT)]
    done = execute(f"http://127.0.0.1:{other.server_port}", "drift")
    assert (done.returncode, done.stdout) == (
        1,
        "drift: 500 predictions, drift score 0.500\n  photos are blurrier\n",
    )


def test_drift_of_each_model(other: Any) -> None:
    cards = (200, {}, {"name": "cifake", "models": [{"name": "cifake"}, {"name": "photos"}]})
    fine = DRIFT | {"status": "ok", "drift_detected": False, "alerts": []}
    other.answers = [cards, (200, {}, DRIFT), (200, {}, fine)]
    url = f"http://127.0.0.1:{other.server_port}"
    done = execute(url, "drift")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "cifake: drift: 500 predictions, drift score 0.500",
        "  photos are blurrier",
        "photos: ok: 500 predictions, drift score 0.500",
    ]
    assert other.paths == ["/model", "/drift?model=cifake", "/drift?model=photos"]
    other.answers = [(200, {}, fine)]
    done = execute(url, "drift", "--model", "photos")
    assert (done.returncode, done.stdout) == (0, "ok: 500 predictions, drift score 0.500\n")
    assert other.paths[3:] == ["/drift?model=photos"]


@pytest.mark.parametrize(
    "body", [{"hello": "world"}, {"results": [{"error": None}], "model_version": "1"}, [1], "text"]
)
def test_what_is_no_detector_is_a_sentence(other: Any, body: Any) -> None:
    other.answers = [(200, {}, body)]
    with Client(f"http://127.0.0.1:{other.server_port}") as client, pytest.raises(ServiceError, match="detector"):
        client.predict_many([b"x"])


def test_it_tells_of_its_waits() -> None:
    waits: list[float] = []
    answers = iter([ServiceError("", wait=0), ServiceError("", down=True), None])

    def ask() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "done"

    assert patiently(10, waits.append)(ask) == "done"
    assert waits[0] == 0
    assert waits[1] > 0
    answers = iter([ServiceError("", down=True)])
    with pytest.raises(ServiceError):
        patiently(10, when_down=False)(ask)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """50 photos in folders, and what is none."""
    root = tmp_path / "photos"
    for number in range(50):
        path = root / f"seller-{number % 3}" / f"{number}.{'PNG' if number % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo(seed=number)))
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xffno photo")
    (root / "=1+1.webp").write_bytes(TRUSTED.sign(encode(photo(), "WEBP"), "WEBP", GENERATED))
    (root / "gone.png").symlink_to(root / "nowhere")
    (root / "notes.txt").write_text("no photo")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.png")).write_bytes(encode(photo()))  # no UTF-8
    os.mkfifo(root / "pipe.jpg")
    return root


@pytest.mark.serve
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_becomes_a_table(service: Server, folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"verdicts.{suffix}"
    done = run(service, "folder", folder, out)
    assert done.returncode == 1, done.stderr  # three photos have no verdict
    assert f"{out}: 55 photos" in done.stdout
    rows: list[dict[str, Any]]
    if suffix == "csv":
        with out.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table(out).to_pylist()
    assert tuple(rows[0]) == COLUMNS
    assert len({row["path"] for row in rows}) == 55
    assert (rows[0]["path"] == "./=1+1.webp") == (suffix == "csv")  # or a spreadsheet would take it for a formula
    found = {row["path"].removeprefix("./"): row for row in rows}
    assert found["broken.jpg"]["error_type"] == "corrupt_image"
    assert [found[name]["error_type"] for name in ("gone.png", "pipe.jpg")] == ["unreadable"] * 2
    assert found["=1+1.webp"]["decided_by"] == "credential"
    assert found["=1+1.webp"]["c2pa_declares"] in ("trainedAlgorithmicMedia", GENERATED)
    with Client(service.url, "secret") as client:
        answer = client.predict(folder / "seller-0/0.jpg")
    assert float(found["seller-0/0.jpg"]["probability"]) == pytest.approx(answer.probability, abs=1e-5)
    assert not out.with_name(out.name + ".journal").exists()
    done = run(service, "folder", folder, out)
    assert done.returncode == 2
    assert "is there already" in done.stderr


@pytest.mark.serve
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_2000_photos_interrupted_and_resumed_are_each_there_once(
    service: Server, tmp_path: Path, end: signal.Signals
) -> None:
    root, out = tmp_path / "photos", tmp_path / "verdicts.csv"
    root.mkdir()
    data = [encode(photo(seed=seed)) for seed in range(20)]
    for number in range(2000):
        (root / f"{number:04}.png").write_bytes(data[number % 20])
    environment = os.environ | {"API_URL": service.url, "API_KEY": "secret"}
    journal = Path(f"{out}.journal")
    for rounds in range(3):
        process = subprocess.Popen(
            [*COMMAND, "folder", root, out], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        before = lines(journal)
        while lines(journal) < before + 300:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(end)
        _, printed = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[end]
        if end == signal.SIGINT:
            assert printed.endswith("the same command goes on from there.\n")
        assert not out.exists()
        assert lines(journal) < 2000, rounds
    with journal.open("a") as file:
        file.write('{"path": "torn')  # what a crash may leave
    done = run(service, "folder", root, out)
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 2000
    assert set(Counter(row["path"] for row in rows).values()) == {1}
    same = {(number % 20, row["probability"]) for number, row in enumerate(rows)}
    assert len({place for place, _ in same}) == 20
    assert all(row["decision"] for row in rows)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_what_cannot_be_a_folder_or_a_table(folder: Path, tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", patience=0) as client:
        for source, out, words in (
            (folder, "verdicts.txt", "name a .csv or .parquet file"),
            (tmp_path / "none", "verdicts.csv", "is not a folder"),
        ):
            with pytest.raises(FolderError, match=words):
                score_folder(client, source, tmp_path / out)
        with pytest.raises(ServiceError, match="cannot be reached"):
            score_folder(client, folder, tmp_path / "verdicts.csv")
        (tmp_path / "other").mkdir()
        with pytest.raises(FolderError, match="is of another folder"):
            score_folder(client, tmp_path / "other", tmp_path / "verdicts.csv")
        for notes in ("my notes\n", "my notes", '{"folder": 1}\n{"no": "path"}\n'):
            (tmp_path / "mine.csv.journal").write_text(notes)
            with pytest.raises(FolderError, match=r"is not a journal|of another folder"):
                score_folder(client, folder, tmp_path / "mine.csv")
            assert (tmp_path / "mine.csv.journal").read_text() == notes


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    row = dict.fromkeys(COLUMNS) | {"path": "-1.png", "c2pa_declares": ["=cmd()", "x"], "probability": -0.5}
    write_table(tmp_path / "a.csv", [row])
    with (tmp_path / "a.csv").open(newline="") as file:
        (found,) = csv.DictReader(file)
    assert [found[name] for name in ("path", "c2pa_declares", "probability")] == ["./-1.png", "'=cmd();x", "-0.5"]


def test_a_torn_first_line_is_written_again(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "verdicts.csv.journal"
    journal.write_text('{"folder": "')
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(ServiceError):
        score_folder(client, folder, tmp_path / "verdicts.csv")
    assert json.loads(journal.read_text().splitlines()[0]) == {"folder": str(folder)}


def test_a_journal_of_another_group_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    head = {"folder": str(folder.resolve()), "group": "shoes"}
    Path(f"{out}.journal").write_text(json.dumps(head) + "\n", encoding="utf-8")
    with Client("http://127.0.0.1:9", patience=0) as nobody, pytest.raises(FolderError, match="is of --group shoes"):
        score_folder(nobody, folder, out, group="hats")


def test_a_group_that_nobody_calibrated_is_a_sentence(client: Client) -> None:
    for ask in (client.predict, client.explain, lambda data, group: client.predict_many([data], group)):
        with pytest.raises(ServiceError, match="no shop's calibration is in service") as error:
            ask(encode(photo()), group="shoes")
        assert error.value.error == "unknown_group"


def test_an_empty_folder_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with Client("http://127.0.0.1:9", patience=0) as client:
        for name in ("a.csv", "a.parquet"):
            assert score_folder(client, tmp_path / "photos", tmp_path / name) == []
    assert (tmp_path / "a.csv").read_text().strip() == ",".join(COLUMNS)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


@pytest.mark.serve
def test_two_runs_into_one_table_are_told(service: Server, folder: Path, tmp_path: Path) -> None:
    held = threading.Event()

    class Slow(Client):
        def predict_batch(self, photos: Any, group: str | None = None) -> Any:
            held.wait(30)
            return super().predict_batch(photos, group)

    out = tmp_path / "verdicts.csv"
    with Slow(service.url, "secret") as slow:
        thread = threading.Thread(target=score_folder, args=(slow, folder, out))
        thread.start()
        while not Path(f"{out}.journal").exists():
            time.sleep(0.01)
        done = run(service, "folder", folder, out)
        held.set()
        thread.join()
    assert done.returncode == 2
    assert "another run is at work" in done.stderr
    assert out.exists()


@pytest.mark.serve
def test_rate_limits_slow_it_down_and_lose_nothing(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, is_ready, RATE_LIMITS="true", RATE_LIMIT_BATCH="2/second") as limited:
        with Client(limited.url) as client:
            rows = score_folder(client, folder, tmp_path / "verdicts.csv", batch=10)
        assert len(rows) == 55
        refused = httpx.get(f"{limited.url}/metrics").text
        assert 'aidetect_rate_limit_exceeded_total{endpoint="/predict/batch"}' in refused


class Falls(BaseHTTPRequestHandler):
    """A service that fails over a batch with the file `poison`, as an older one does."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        failed = b"poison" in body
        answer = {"error": "internal_server_error", "detail": "something broke"}
        if not failed:
            item = {"error": "not tried", "error_type": "stub", "request_id": "x"}
            answer = {"results": [item] * body.count(b"filename="), "model_version": "1"}
        self.send_response(500 if failed else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def test_a_file_that_the_service_fails_over_stops_no_other(tmp_path: Path) -> None:
    """It once ended the run with exit code 2, and again on every restart."""
    root = tmp_path / "photos"
    root.mkdir()
    for name in ("a", "b", "c", "d"):
        (root / f"{name}.jpg").write_bytes(b"poison" if name == "c" else b"x")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Falls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Client(f"http://127.0.0.1:{server.server_port}", patience=0) as client:
        rows = score_folder(client, root, tmp_path / "out.csv")
    server.shutdown()
    server.server_close()
    assert {row["path"]: row["error_type"] for row in rows} == {
        "a.jpg": "stub", "b.jpg": "stub", "c.jpg": "internal_server_error", "d.jpg": "stub",
    }  # fmt: skip


def test_every_name_of_a_photo_is_taken_and_what_is_not_is_told(tmp_path: Path) -> None:
    names = ["a.JPG", "b.jpe", "c.jfif", "d.mpo", "e.heic", "f.HEIF", "g.hif", "h.avif", "i.webp", "j.png", "k.jpeg"]
    for name in [*names, "._a.JPG", ".DS_Store", "l.gif", "m.GIF", "README"]:
        (tmp_path / name).write_bytes(b"x")
    assert photos_of(tmp_path) == (names, Counter({".gif": 2, "no suffix": 1}))
    assert {Path(name).suffix.lower() for name in names} == SUFFIXES == formats.SUFFIXES  # the client knows no service


@pytest.mark.serve
def test_what_was_passed_over_is_printed(service: Server, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.heic").write_bytes(encode(photo(64, 64), "HEIF"))
    (root / "b.tiff").write_bytes(b"x")
    done = run(service, "folder", root, tmp_path / "out.csv")
    assert done.returncode == 0
    assert "passed over, no photos by their names: 1 .tiff" in done.stderr
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert row["decision"] == "review"


def test_a_journal_of_an_earlier_version_is_gone_on_with(folder: Path, tmp_path: Path) -> None:
    """Its rows lack the columns that came since: the table's cells must not move."""
    old = {name: None for name in COLUMNS if name not in {"marks", "notes"}} | {"path": "a.png", "error": "x"}
    write_table(tmp_path / "a.csv", [old])
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert (row["error"], row["notes"]) == ("x", "")
