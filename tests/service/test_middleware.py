"""What the middleware does when an application fails."""

import asyncio
import inspect
import logging
import sqlite3

import anyio
import httpx
import pytest
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from service.http.middleware import ContractMiddleware, new_request_id
from service.http.patches import must_start, no_timers
from service.http.routing import RouteTable
from service.settings import Settings


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail as no application should."""
    raise ValueError("the secret reason")


def test_a_failure_is_a_500_of_the_one_shape_and_keeps_its_reason_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(ContractMiddleware(failing, Settings(), RouteTable([])))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get("/predict", headers={"X-Request-ID": "mine"})

    with caplog.at_level(logging.ERROR):
        answer = anyio.run(ask)
    body = answer.json()
    assert answer.status_code == body["status_code"] == 500
    assert (body["error"], body["error_class"]) == ("internal_server_error", "server_error")
    assert body["request_id"] == answer.headers["X-Request-ID"] == "mine"
    assert "secret" not in answer.text
    assert "request mine: GET /predict failed" in caplog.text
    assert "the secret reason" in caplog.text


def test_request_ids_are_ulids_in_the_order_of_time() -> None:
    made = [new_request_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert {len(identifier) for identifier in made} == {26}
    assert [identifier[:10] for identifier in made] == sorted(identifier[:10] for identifier in made)


def test_bentoml_keeps_no_timer_for_an_answered_request() -> None:
    from bentoml._internal.server.base_app import BaseAppFactory
    from bentoml._internal.server.http.traffic import TimeoutMiddleware

    assert ".http.traffic import TimeoutMiddleware" in inspect.getsource(BaseAppFactory), "it moved"
    no_timers()

    async def ask() -> tuple[httpx.Response, int]:
        transport = httpx.ASGITransport(TimeoutMiddleware(JSONResponse({}), timeout=60))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answer = await client.get("/livez")
        return answer, len(asyncio.get_running_loop()._scheduled)

    answer, timers = asyncio.run(ask())
    assert answer.status_code == 200
    assert timers == 0


def test_a_worker_whose_start_fails_ends() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise sqlite3.OperationalError("database is locked")

    must_start()
    config = uvicorn.Config(broken, port=0)
    assert config.lifespan == "on"
    with pytest.raises(SystemExit):
        uvicorn.Server(config).run()
