"""Another model file in the place of the first, while requests go on."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import tiny_model
from tests.support.photos import GOOD
from tests.support.server import Server, is_ready, serving
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.serve, pytest.mark.slow]
Answers = Counter[tuple[int, str]]  # status and model version


def point(link: Path, folder: Path) -> None:
    """Point a link at another folder, at one stroke."""
    new = link.with_name("new-link")
    new.symlink_to(folder)
    new.replace(link)


@contextmanager
def load(url: str) -> Iterator[Answers]:
    """Send photos from four clients until the end, each on new connections, so that both workers get some."""
    answers: Answers = Counter()
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            answer = httpx.post(f"{url}/predict", files={"file": GOOD["png"]}, timeout=60)
            answers[answer.status_code, answer.json().get("model_version", "")] += 1

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def versions(url: str) -> set[str]:
    """Return the versions that thirty answers name."""
    return {httpx.get(f"{url}/health", timeout=60).json()["model_version"] for _ in range(30)}


def model(server: Server) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{server.url}/model", timeout=60).json()
    return body


def test_a_new_model_and_the_way_back_cost_no_request(tmp_path: Path) -> None:
    first, second = tiny_model.release(tmp_path / "1.0.0", "1.0.0"), tiny_model.release(tmp_path / "2.0.0", "2.0.0")
    point(tmp_path / "current", first)
    path = tmp_path / "current" / "model.onnx"
    with serving(tmp_path, is_ready, MODEL_PATH=str(path)) as server:
        with load(server.url) as answers:
            wait_for(lambda: answers[200, "1.0.0"] > 50)
            for folder in (second, first, second):
                point(tmp_path / "current", folder)
                wait_for(lambda folder=folder: versions(server.url) == {folder.name})
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} == {"1.0.0", "2.0.0"}
        assert model(server)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        text = httpx.get(f"{server.url}/metrics").text
        assert 'aidetect_model_swaps_total{model="cifake",result="done"} 6.0' in text  # three, by two workers
        assert 'aidetect_model_info{model="cifake",sha256="' in text
        live = [line for line in text.splitlines() if line.startswith("aidetect_model_info{") and line.endswith(" 1.0")]
        assert len(live) == 1
        assert 'version="2.0.0"' in live[0]
        assert server.starts() == 2


@pytest.mark.parametrize("fault", ["truncated", "other_card", "gone"])
def test_a_wrong_file_changes_nothing_and_is_told(tmp_path: Path, fault: str) -> None:
    folder = tiny_model.release(tmp_path / "release", "1.0.0")
    path = folder / "model.onnx"
    with serving(tmp_path, is_ready, MODEL_PATH=str(path)) as server:
        time.sleep(5)  # the second worker may still be on its way to the file
        whole = path.read_bytes()
        if fault == "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        elif fault == "other_card":
            tiny_model.build(path, tiny_model.CARD | {"version": "2.0.0"})
        else:
            path.unlink()
        counted = 'aidetect_model_swaps_total{model="cifake",result="refused"} 2.0'
        wait_for(lambda: counted in httpx.get(f"{server.url}/metrics").text)
        assert versions(server.url) == {"1.0.0"}
        assert httpx.post(f"{server.url}/predict", files={"file": GOOD["png"]}).status_code == 200
        # A file that is cut is another one than its card says, too.
        told = "not found" if fault == "gone" else "put both files of one release there"
        assert told in model(server)["note"]
        lines = [line for line in server.printed().splitlines() if "1.0.0 stays in service" in line]
        assert len(lines) == 2  # one a worker, once
        tiny_model.release(folder, "3.0.0")
        wait_for(lambda: versions(server.url) == {"3.0.0"})
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_service_without_a_model_takes_the_first_that_comes(tmp_path: Path) -> None:
    path = tmp_path / "release" / "model.onnx"
    with serving(tmp_path, lambda answer: answer.status_code == 503, MODEL_PATH=str(path)) as server:
        tiny_model.release(tmp_path / "release", "1.0.0")
        wait_for(lambda: versions(server.url) == {"1.0.0"})
        wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
