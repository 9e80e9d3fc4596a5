"""Too much, too slow, gone, told to end, killed: what the service does under each."""

import os
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.support.http import is_error
from tests.support.photos import GOOD, encode, photo
from tests.support.server import Server, is_ready, read_answer, released_models, serving
from tests.support.waiting import wait_for

pytestmark = pytest.mark.serve

LARGE = encode(photo(600, 400).resize((6000, 4000)), "JPEG")  # takes long enough to be seen in hand
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
    b"Content-Length: %d\r\n\r\n"
)
PART = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'


def predict(server: Server, data: bytes = GOOD["jpeg"]) -> httpx.Response:
    """Ask about one photo over a connection of its own."""
    return httpx.post(f"{server.url}/predict", files={"file": data}, timeout=60)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with little room and little patience."""
    room = {"MAX_IMAGES_IN_FLIGHT": "20", "MAX_FILE_BYTES": "1000000", "MAX_BATCH_BYTES": "4000000"}
    settings = room | {"THREADS": "1", "MAX_BUFFERED_BYTES": "4500000", "UPLOAD_SECONDS": "2"}
    with serving(tmp_path_factory.mktemp("narrow"), is_ready, **settings) as server:
        yield server
        assert "Traceback" not in server.printed()
        assert server.starts() == 2


def test_more_photos_than_fit_are_refused_at_once(narrow: Server) -> None:
    batch = [("files", encode(photo(1200, 800), "JPEG", quality=60))] * 20

    def send(_: int) -> httpx.Response:
        return httpx.post(f"{narrow.url}/predict/batch", files=batch, timeout=60)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(24)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert len(refused) < len(answers)
    for answer in answers:
        assert answer.status_code == 200 or is_error(answer, 503, "too_busy")
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert predict(narrow).status_code == 200
    assert "aidetect_requests_shed_total{reason=" in httpx.get(f"{narrow.url}/metrics").text


def test_a_batch_holds_one_large_photo_at_a_time(narrow: Server) -> None:
    """A file of 38 bytes can be a photo of 25 megapixels, 75 MB once it is decoded."""
    bomb = encode(Image.new("RGBA", (5000, 5000), (9, 9, 9, 9)), "WEBP", lossless=True, method=0)
    workers = [psutil.Process(pid) for pid in narrow.workers()]
    most = 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{narrow.url}/predict/batch", files=[("files", bomb)] * 20, timeout=120)
        while not asked.done():
            most = max(most, *(worker.memory_info().rss for worker in workers))
            time.sleep(0.02)
    assert asked.result().json()["successful"] == 20
    assert most < 1_000_000_000  # 20 of them took 2.7 GB


@pytest.mark.parametrize("pace", ["silent", "trickling"])
def test_a_slow_body_is_cut_off_with_an_answer(narrow: Server, pace: str) -> None:
    with narrow.connect() as connection:
        connection.sendall(HEAD % 5000 + PART)
        if pace == "trickling":
            for _ in range(300):
                try:
                    connection.sendall(b"0")
                except OSError:
                    break
                time.sleep(0.01)
        assert is_error(read_answer(connection), 408, "request_timeout")


def test_a_refused_client_that_still_sends_reads_its_answer(narrow: Server) -> None:
    with narrow.connect() as connection:
        connection.sendall(HEAD % 50_000_000)
        sent = 0
        try:
            while sent < 20_000_000:
                sent += connection.send(b"0" * 65536)
        except OSError:
            pytest.fail("the connection was reset before the answer could be read")
        answer = read_answer(connection)
    assert is_error(answer, 413, "content_too_large")
    assert answer.headers["Connection"] == "close"


def test_clients_that_vanish_or_hold_on_take_nothing_with_them(narrow: Server) -> None:
    before = narrow.workers()
    held = [narrow.connect() for _ in range(200)]
    for number, connection in enumerate(held):
        connection.sendall((HEAD % 900_000 + PART + b"0" * 20_000)[: 40 if number % 2 else None])
    assert predict(narrow).status_code in {200, 503}
    for connection in held:  # a reset, as from a phone that lost its network
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_for(lambda: predict(narrow).status_code == 200)
    wait_for(lambda: "\naidetect_active_requests 1.0\n" in httpx.get(f"{narrow.url}/metrics").text)
    for worker in before:
        assert len(psutil.Process(worker).net_connections("tcp")) < 20
    assert narrow.workers() == before
    gone = [line for line in narrow.requests() if line["status"] == 499]
    assert gone


def test_told_to_end_it_answers_what_it_has_and_goes(tmp_path: Path) -> None:
    with serving(tmp_path, is_ready) as server, ThreadPoolExecutor(8) as pool:
        workers = server.workers()
        slow = server.connect()
        slow.sendall(HEAD % 5000 + PART)  # never sends the rest
        body = PART + GOOD["jpeg"] + b"\r\n--edge--\r\n"
        late = server.connect()
        late.sendall(HEAD % len(body) + body[:50])
        working = [pool.submit(predict, server, LARGE) for _ in range(8)]
        # All of them and the question itself: what the service has not even accepted, it cannot answer.
        wait_for(lambda: "\naidetect_active_requests 11.0\n" in httpx.get(f"{server.url}/metrics").text)
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(1)
        late.sendall(body[50:])  # its last bytes come while the service is on its way out
        assert read_answer(late).status_code == 200
        assert {future.result().status_code for future in working} == {200}
        assert is_error(read_answer(slow), 408, "request_timeout")
        psutil.wait_procs([psutil.Process(server.pid)], timeout=30)
        assert not any(psutil.pid_exists(pid) for pid in workers)
    with sqlite3.connect(tmp_path / "predictions.db") as database:
        assert database.execute("select count(*) from predictions").fetchone() == (9,)


def test_a_client_that_reads_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, is_ready) as server, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = httpx.URL(server.url)
        deaf.connect((url.host, url.port))
        deaf.sendall(b"GET /static_content/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)  # 20 MB
        wait_for(lambda: predict(server).status_code == 200)
        workers = [psutil.Process(pid) for pid in server.workers()]
        os.kill(server.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with serving(tmp_path, is_ready) as server:
        workers = [psutil.Process(pid) for pid in server.workers()]
        answered = predict(server).json()["request_id"]
        os.kill(server.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        with pytest.raises(httpx.TransportError):
            predict(server)
    with sqlite3.connect(tmp_path / "predictions.db") as database:
        assert database.execute("select request_id from predictions").fetchall() == [(answered,)]


def test_killed_workers_take_no_answered_prediction_and_no_metric_with_them(tmp_path: Path) -> None:
    with serving(tmp_path, is_ready) as server:
        answered: dict[str, float] = {}
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                asked = time.time()  # before the kill, whenever this thread gets to read the answer
                try:
                    answer = predict(server)
                except httpx.TransportError:
                    continue  # it was in the hands of the worker that died
                assert answer.status_code == 200
                answered[answer.json()["request_id"]] = asked

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            killed = []
            for count, worker in enumerate(server.workers(), 3):  # each of the two
                time.sleep(2)
                os.kill(worker, signal.SIGKILL)
                killed.append(time.time())
                wait_for(lambda count=count: server.starts() == count)
            time.sleep(2)
            stop.set()
            for future in asking:
                future.result()
        time.sleep(1)
        with sqlite3.connect(tmp_path / "predictions.db") as database:
            kept = {row[0] for row in database.execute("select request_id from predictions")}
        lost = [moment for request_id, moment in answered.items() if request_id not in kept]
        assert len(answered) > 50
        assert all(any(0 <= kill - moment <= 1 for kill in killed) for moment in lost), (lost, killed)
        health = httpx.get(f"{server.url}/health").json()
        assert health["active_requests"] == 1
        assert len(answered) <= health["predictions_total"] <= len(answered) + 4 * len(killed)
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        models = len(list(released_models().glob("*/card.json"))) or 1  # one, where MODEL_PATH names it
        assert sum(line.startswith("aidetect_model_info{") for line in lines) == models
        assert 'aidetect_model_loaded{model="cifake"} 1.0' in lines
