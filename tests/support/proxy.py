"""A reverse proxy that hands a path on without its first part, and the Host as it came, as nginx does where told so."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.support.server import free_port

_OWN = {"connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}


@contextmanager
def proxying(prefix: str, target: str) -> Iterator[str]:
    """Serve `target` under http://…/prefix until the end; yield that address."""
    client = httpx.AsyncClient(base_url=target, timeout=60)

    async def hand_on(request: Request) -> StreamingResponse:
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        url = httpx.URL(path="/" + request.path_params["rest"], query=request.url.query.encode())
        asked = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await client.send(asked, stream=True)

        async def body() -> AsyncIterator[bytes]:
            async for part in answer.aiter_bytes():
                yield part
            await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in _OWN}
        return StreamingResponse(body(), answer.status_code, kept)

    port = free_port()
    routes = [Route(f"{prefix}/{{rest:path}}", hand_on, methods=["GET", "POST", "HEAD"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=port, log_level="warning"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}{prefix}"
    finally:
        server.should_exit = True
        thread.join(30)
