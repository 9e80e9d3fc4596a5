"""Too much work and too many bytes are refused at once, and forgotten when they are gone."""

import asyncio
import threading

import pytest
from starlette.types import Message

from service.http.errors import ApiError
from service.http.routing import Route, Rules, many_photos
from service.http.uploads import Upload, Uploads
from service.http.work_queue import WorkQueue
from service.settings import Settings


def test_a_turn_that_does_not_come_is_a_503() -> None:
    async def ask() -> ApiError:
        queue = WorkQueue(threads=1, most=2, seconds=0.05)
        release = threading.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.run(release.wait))
            await asyncio.sleep(0)
            with pytest.raises(ApiError) as caught:
                await queue.run(lambda: None)
            release.set()
        assert await queue.run(lambda: "room again") == "room again"
        return caught.value

    error = asyncio.run(ask())
    assert (error.status_code, error.error) == (503, "too_busy")


def test_more_bytes_than_fit_are_refused_and_forgotten() -> None:
    async def send() -> None:
        uploads = Uploads(Settings(max_buffered_bytes=60 * 2**20))
        route = Route(frozenset(), "/predict/batch", Rules(many_photos))
        scope = {"state": {"route": route}, "headers": [(b"content-length", b"50000000")]}

        async def receive() -> Message:
            return {"type": "http.request", "body": b"0" * 40 * 2**20, "more_body": True}

        first, second = (Upload(uploads, scope, receive) for _ in range(2))
        await first.receive()
        with pytest.raises(ApiError) as caught:
            await second.receive()
        assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})
        first.close()
        second.close()
        await Upload(uploads, scope, receive).receive()

    asyncio.run(send())
