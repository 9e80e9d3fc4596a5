"""Rate limits that are counted in a real Redis, and that limit nobody while it is gone."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.support.http import is_error
from tests.support.photos import GOOD
from tests.support.server import Server, free_port, is_ready, serving
from tests.support.waiting import wait_for

pytestmark = pytest.mark.serve

PASSWORD = "hush-it-is-the-password"
ALLOWED, ASKED = 5, 12
WINDOW = 60  # seconds


class Redis:
    """A Redis server of our own, on loopback, that keeps nothing on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        self._output = folder / "output.txt"
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._output.open("a") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)

        def answers() -> bool:
            assert self.process.poll() is None, self._output.read_text()
            try:
                return bool(self.client.ping())
            except redis.ConnectionError:
                return False

        wait_for(answers)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        """Let it keep its connections and say nothing more."""
        self.process.send_signal(signal.SIGSTOP)


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A running server; tests that end it start it again."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs Redis' server: apt-get install redis-server")
    server = Redis(program, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def limited(counter: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service, counting there; it never prints the password."""
    settings = {"RATE_LIMITS": "true", "RATE_LIMIT_URL": counter.url, "RATE_LIMIT_PREDICT": f"{ALLOWED}/minute"}
    with serving(tmp_path_factory.mktemp("limited"), is_ready, **settings) as server:
        yield server
    assert PASSWORD not in server.printed()
    assert "Traceback" not in server.printed(), server.printed()


def ask(server: Server) -> httpx.Response:
    """Send one photo over a connection of its own, so that either worker may answer."""
    return httpx.post(f"{server.url}/predict", files={"file": GOOD["png"]}, timeout=60)


def value(server: Server, name: str, **labels: str) -> float:
    """Return a counter of the service."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics", timeout=60).text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def ask_in_one_window(server: Server, counter: Redis) -> list[httpx.Response]:
    """Ask more often than is allowed, from the start of a window on and before it is over.

    Again where the machine is so busy that the next one may have begun, or that Redis came too late for a request.
    """
    while True:
        errors = value(server, "aidetect_rate_limit_errors_total")
        counter.client.flushall()  # the next request begins a window
        started = time.monotonic()
        answers = [ask(server) for _ in range(ASKED)]
        in_time = time.monotonic() - started < WINDOW / 2
        if in_time and value(server, "aidetect_rate_limit_errors_total") == errors:
            return answers


def test_two_workers_count_together_in_redis(counter: Redis, limited: Server) -> None:
    refused = value(limited, "aidetect_rate_limit_exceeded_total", endpoint="/predict")
    answers = ask_in_one_window(limited, counter)
    assert [answer.status_code for answer in answers] == [200] * ALLOWED + [429] * (ASKED - ALLOWED)
    for answer in answers[ALLOWED:]:
        assert is_error(answer, 429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= WINDOW
    assert value(limited, "aidetect_rate_limit_exceeded_total", endpoint="/predict") - refused >= ASKED - ALLOWED


@pytest.mark.parametrize(
    ("end", "begin"),
    [
        (Redis.kill, Redis.start),
        (Redis.hang, lambda counter: counter.process.send_signal(signal.SIGCONT)),
    ],
    ids=["killed", "hanging"],
)
def test_without_redis_nobody_is_limited_until_it_is_back(
    counter: Redis, limited: Server, end: Callable[[Redis], None], begin: Callable[[Redis], None]
) -> None:
    errors = value(limited, "aidetect_rate_limit_errors_total")
    warnings = limited.printed().count("rate limits cannot be counted, nobody is limited")
    assert ask_in_one_window(limited, counter)[-1].status_code == 429
    end(counter)
    try:
        assert [ask(limited).status_code for _ in range(2 * ASKED)] == [200] * 2 * ASKED
    finally:
        begin(counter)
    assert value(limited, "aidetect_rate_limit_errors_total") > errors
    assert limited.printed().count("rate limits cannot be counted, nobody is limited") > warnings
    wait_for(lambda: ask(limited).status_code == 429)
