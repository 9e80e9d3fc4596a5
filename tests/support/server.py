"""The real service in processes of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 180  # how long a start may take on a busy machine before the test gives up


@dataclass
class Server:
    """A running service.

    Attributes:
        url: where it answers.
        model: the model file that it was told to serve.
        output: the file with what it prints.
        pid: of the process that keeps the workers.
    """

    url: str
    model: Path
    output: Path
    pid: int

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return sorted(pid for pid, monitors in self._processes() if not monitors)

    def monitor(self) -> int:
        """Return the process id of its drift monitor."""
        (pid,) = (pid for pid, monitors in self._processes() if monitors)
        return pid

    def starts(self) -> int:
        """Return how often a worker has started; the drift monitor is none."""
        printed = self.printed()
        return printed.count(" initialized") - printed.count("drift-monitor initialized")

    def _processes(self) -> Iterator[tuple[int, bool]]:
        for child in psutil.Process(self.pid).children():
            command = child.cmdline()
            if any("worker" in word for word in command):
                yield child.pid, "drift-monitor" in command

    def kill(self) -> None:
        """End it and all its processes as a crash of the machine would."""
        main = psutil.Process(self.pid)
        for process in (main, *main.children(recursive=True)):
            process.kill()

    def requests(self) -> list[dict[str, Any]]:
        """Return the lines that it printed about requests."""
        lines = (json.loads(line) for line in self.printed().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == "request"]

    def request(self, answer: httpx.Response) -> dict[str, Any]:
        """Return the one line about a request; it may be printed a moment after the answer."""
        deadline = time.monotonic() + 10
        while True:
            lines = [line for line in self.requests() if line["request_id"] == answer.headers["X-Request-ID"]]
            if lines:
                assert len(lines) == 1, lines
                return lines[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def connect(self) -> socket.socket:
        """Open a connection, for what no client library would send."""
        url = httpx.URL(self.url)
        return socket.create_connection((url.host, url.port), timeout=60)

    def printed(self) -> str:
        """Return what it printed so far."""
        return self.output.read_text(encoding="utf-8")


def read_answer(connection: socket.socket) -> httpx.Response:
    """Read an answer until the service closes the connection."""
    data = b""
    while part := connection.recv(65536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def released_model() -> Path:
    """Return the model file of the repository, or the one that MODEL_PATH names instead."""
    return Path(os.environ.get("MODEL_PATH", ROOT / "models" / "cifake" / "model.onnx"))


def released_models() -> Path:
    """Return the folder of the repository's models, or the one model that MODEL_PATH names instead."""
    return Path(os.environ.get("MODEL_PATH", ROOT / "models"))


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_ready(answer: httpx.Response) -> bool:
    """Tell whether `/readyz` says so."""
    return answer.status_code == 200


def await_answer(
    url: str, process: subprocess.Popen[bytes], output: Path, ready: Callable[[httpx.Response], bool] = is_ready
) -> None:
    """Wait until a program that was started answers; `output` is what it prints to."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if ready(httpx.get(url, trust_env=False)):
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, f"it ended:\n{output.read_text(encoding='utf-8')}"
        assert time.monotonic() < deadline, f"it did not start:\n{output.read_text(encoding='utf-8')}"
        time.sleep(0.1)


@contextmanager
def serving(
    folder: Path, ready: Callable[[httpx.Response], bool], *target: str, tree: Path = ROOT, **settings: str
) -> Iterator[Server]:
    """Run bare `bentoml serve`, or of another service that `target` names, in a tree of this project until the end."""
    port = int(settings.get("BENTOML_PORT") or free_port())
    environment = os.environ | {
        "BENTOML_HOME": str(folder / "bentoml"),  # its metrics folder is wiped at every start
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOST": "127.0.0.1",
        "BENTOML_PORT": str(port),
        "LOG_URL": f"sqlite:///{folder / 'predictions.db'}",
        "DRIFT_URL": str(folder / "drift"),
        "DRIFT_MAX_AGE_SECONDS": "1",
        "MONITOR": "false",  # importing Evidently takes seconds: where drift is not the subject, nobody watches
        **settings,
    }
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", *target],
            cwd=tree,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    model = Path(environment.get("MODEL_PATH", released_model()))
    server = Server(f"http://127.0.0.1:{port}", model, output, process.pid)
    try:
        deadline = time.monotonic() + START_SECONDS
        await_answer(f"{server.url}/readyz", process, output, ready)
        while server.starts() < 2:  # both workers, not only the one that answered
            assert time.monotonic() < deadline, f"a worker did not start:\n{server.printed()}"
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
