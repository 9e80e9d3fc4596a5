"""Rate limits: one count for all workers, a client's own, and an address that cannot be made up."""

import asyncio
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import httpx
import pytest
from limits import parse
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from starlette.testclient import TestClient

from service.http import rate_limits
from service.http.rate_limits import SqliteStorage
from tests.support.http import in_process, is_error
from tests.support.photos import GOOD
from tests.support.server import Server, is_ready, serving


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], SqliteStorage]:
    """Makes storages as the workers of one service have them."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "shared"))
    return SqliteStorage


def test_two_workers_count_together_and_forget_in_time(memory: Callable[[], SqliteStorage]) -> None:
    async def count() -> None:
        first, second = (FixedWindowRateLimiter(memory()) for _ in range(2))
        limit = parse("3/second")
        while True:  # within one window
            started = time.time()
            hits = [await worker.hit(limit, "client") for worker in (first, second, first, second, first)]
            if time.time() - started < 0.5:
                break
            await asyncio.sleep(1.1)
        assert hits == [True, True, True, False, False]
        assert await second.hit(limit, "another client")
        window = await second.get_window_stats(limit, "client")
        assert window.remaining == 0
        assert started <= window.reset_time <= time.time() + 1
        await asyncio.sleep(1.1)
        assert await second.hit(limit, "client")
        await first.clear(limit, "client")
        assert (await second.get_window_stats(limit, "client")).remaining == 3

    asyncio.run(count())


def processes() -> ForkServerContext:
    """Return a way to start processes that have this module at once, as the server that forks them has it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_often(folders: list[Path], together: Barrier) -> None:
    for folder in folders:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        together.wait(60)
        SqliteStorage()


def test_workers_may_start_at_the_same_moment(tmp_path: Path) -> None:
    context = processes()
    arguments = [tmp_path / str(number) for number in range(200)], context.Barrier(2)
    workers = [context.Process(target=_start_often, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_what_is_over_is_swept_away(memory: Callable[[], SqliteStorage]) -> None:
    async def count() -> None:
        storage = memory()
        for number in range(100):
            await storage.incr(f"client {number}", expiry=-1)
        await storage.incr("now", expiry=60)
        storage._swept -= 61
        assert await storage.incr("now", expiry=60) == 2
        assert storage._database.execute("select count(*) from counts").fetchone() == (1,)
        assert await storage.reset() == 1

    asyncio.run(count())


def _hold_the_lock(folder: Path, holds: Event, let_go: Event) -> None:
    with sqlite3.connect(folder / "rate-limits.sqlite", isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO counts VALUES ('another', 1, 1e12)")
        holds.set()
        let_go.wait(60)
        database.execute("COMMIT")


@pytest.fixture
def writing(memory: Callable[[], SqliteStorage], tmp_path: Path) -> Iterator[Event]:
    """Another process that is in the midst of writing until the event is set."""
    memory()  # makes the table
    context = processes()
    holds, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold_the_lock, args=(tmp_path / "shared", holds, let_go))
    other.start()
    assert holds.wait(60)
    yield let_go
    let_go.set()
    other.join()
    assert other.exitcode == 0


CALLS: dict[str, Callable[[SqliteStorage], Coroutine[Any, Any, Any]]] = {
    "incr": lambda storage: storage.incr("client", expiry=60),
    "clear": lambda storage: storage.clear("client"),
    "reset": lambda storage: storage.reset(),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_event_loop_goes_on_while_another_worker_writes(
    memory: Callable[[], SqliteStorage], writing: Event, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As long as the other one holds the lock; the count is right when it lets go."""
    monkeypatch.setattr(rate_limits, "_LOCK_SECONDS", 60)

    async def count() -> None:
        storage = memory()
        waiting = asyncio.create_task(CALLS[name](storage))
        for _ in range(100):
            await asyncio.sleep(0.001)
            assert not waiting.done()
        assert await storage.get("client") == 0  # who reads need not wait
        assert await storage.get_expiry("client") <= time.time()
        writing.set()
        assert await waiting == {"incr": 1, "clear": None, "reset": 1}[name]

    asyncio.run(count())


def test_a_lock_that_is_never_let_go_of_is_an_error_and_the_event_loop_went_on(
    memory: Callable[[], SqliteStorage], writing: Event
) -> None:
    async def count() -> int:
        storage = memory()
        waiting = asyncio.create_task(storage.incr("client", expiry=60))
        ticks = 0
        while not waiting.done():
            await asyncio.sleep(0)
            ticks += 1
        with pytest.raises(StorageError):
            waiting.result()
        return ticks

    assert asyncio.run(count()) >= 10  # a call that blocks leaves one


def _count_often(folder: Path, together: Barrier) -> None:
    async def count() -> None:
        storage = SqliteStorage()
        together.wait(60)
        await asyncio.gather(*(storage.incr("client", expiry=3600) for _ in range(500)))

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    rate_limits._LOCK_SECONDS = 60
    asyncio.run(count())


def test_no_count_is_lost_between_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = processes()
    together = context.Barrier(2)
    workers = [context.Process(target=_count_often, args=(tmp_path, together)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert asyncio.run(SqliteStorage().get("client")) == 1000


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service in production behind a proxy on this machine, with rates that do not end while the test runs."""
    rates = {"RATE_LIMIT_PREDICT": "5/hour", "RATE_LIMIT_BATCH": "2/hour", "RATE_LIMIT_EXPLAIN": ""}
    settings = {"AIDETECT_ENV": "production", "TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8", **rates}
    with serving(tmp_path_factory.mktemp("limited"), is_ready, **settings) as server:
        yield server


def ask(server: Server, address: str, route: str = "/predict", **files: bytes) -> httpx.Response:
    """Send one photo over a connection of its own, so that either worker may answer."""
    return httpx.post(
        server.url + route, files=files or {"file": GOOD["png"]}, headers={"X-Forwarded-For": address}, timeout=60
    )


@pytest.mark.serve
def test_the_sixth_request_is_refused_whichever_worker_it_meets(limited: Server) -> None:
    answers = [ask(limited, "192.0.2.1") for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 7
    for answer in answers[5:]:
        assert is_error(answer, 429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 3600
        assert answer.headers["Retry-After"] in answer.json()["detail"]
    assert ask(limited, "192.0.2.2").status_code == 200  # another client
    metrics = httpx.get(f"{limited.url}/metrics").text
    assert 'aidetect_rate_limit_exceeded_total{endpoint="/predict"} 7.0' in metrics


@pytest.mark.serve
def test_each_route_has_its_own_rate_and_none_is_none(limited: Server) -> None:
    batches = [ask(limited, "192.0.2.3", "/predict/batch", files=GOOD["png"]).status_code for _ in range(4)]
    assert batches == [200, 200, 429, 429]
    assert ask(limited, "192.0.2.3").status_code == 200
    assert {ask(limited, "192.0.2.3", "/predict/explain").status_code for _ in range(12)} == {200}
    assert {httpx.get(f"{limited.url}/health", timeout=60).status_code for _ in range(12)} == {200}


@pytest.mark.serve
@pytest.mark.parametrize(
    "forwarded",
    [
        "{made_up}, 192.0.2.9",  # what a client writes itself stands left of what the proxy saw
        "{made_up}, 192.0.2.9, 10.1.2.3",  # and a chain of trusted proxies right of it
        "{made_up}, 192.0.2.9:1234",
    ],
)
def test_a_client_cannot_make_up_its_address(limited: Server, forwarded: str) -> None:
    answers = [ask(limited, forwarded.format(made_up=f"198.51.100.{number}")) for number in range(6)]
    assert answers[-1].status_code == 429


@pytest.mark.serve
def test_one_ipv6_network_is_one_client(limited: Server) -> None:
    answers = [ask(limited, f"2001:db8:0:1::{number:x}").status_code for number in range(1, 8)]
    assert answers == [200] * 5 + [429] * 2
    assert ask(limited, "2001:db8:0:2::1").status_code == 200


def test_keys_have_a_count_each_wherever_they_ask_from(memory: Callable[[], SqliteStorage], tmp_path: Path) -> None:
    def ask_as(key: str, address: str) -> int:
        headers = {"X-API-Key": key, "X-Forwarded-For": address}
        return client.post("/predict", files={"file": GOOD["png"]}, headers=headers).status_code

    rates = {"rate_limits": True, "rate_limit_predict": "3/hour", "api_keys": "one:first,two:second"}
    with in_process(tmp_path, **rates) as client:
        answers = [ask_as("first", f"192.0.2.{number}") for number in range(5)]
        assert answers == [200, 200, 200, 429, 429]
        assert ask_as("second", "192.0.2.0") == 200
        assert ask_as("wrong", "192.0.2.0") == 401


@pytest.mark.serve
def test_a_forwarded_address_is_not_believed_from_anyone(server: Server) -> None:
    """The plain service trusts no proxy, not even one on this machine."""
    answer = httpx.get(f"{server.url}/livez", headers={"X-Forwarded-For": "192.0.2.77"})
    assert server.request(answer)["client"] == "127.0.0.1"


def test_without_production_nothing_is_limited(client: TestClient) -> None:
    assert {client.post("/predict", files={"file": GOOD["png"]}).status_code for _ in range(40)} == {200}
