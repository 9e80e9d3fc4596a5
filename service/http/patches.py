"""Three changes to BentoML and uvicorn that have no setting. Each replaces one method, and each has a test."""

import logging
from functools import partialmethod

from bentoml._internal.server.http.traffic import TimeoutMiddleware
from starlette.datastructures import MutableHeaders
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import metrics
from service.http.errors import error_answer
from service.http.middleware import HEADERS, new_request_id
from service.http.request_log import log_request

_DETAIL = "this is not a valid HTTP request: check its method, path, headers and length"


def no_timers() -> None:
    """Turn BentoML's timeout off.

    Its 504 does not have the shape of our errors. It also keeps a timer and all objects of each request until the
    timeout is over, even after the answer: hundreds of megabytes under load. Our own waits have limits of their own:
    for the body in `uploads.py`, for the queue in `work_queue.py`, for the database in `prediction_log.py`.
    """
    TimeoutMiddleware.__call__ = _straight_on  # type: ignore[method-assign]


def must_start() -> None:
    """Make uvicorn end a worker whose start fails, so that BentoML starts another.

    By default, uvicorn reads an exception at the start as "this application has no start". The worker would then
    answer 500 to everything.
    """
    Config.__init__ = partialmethod(Config.__init__, lifespan="on")  # type: ignore[assignment, method-assign]


def shape_malformed() -> None:
    """Give the answer to malformed HTTP the shape of all errors, and print one line about each.

    uvicorn answers these itself, before middleware sees a request.
    """
    HttpToolsProtocol.send_400_response = _refuse  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")


async def _straight_on(self: TimeoutMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
    await self.app(scope, receive, send)


def _refuse(self: HttpToolsProtocol, msg: str) -> None:  # noqa: ARG001 - uvicorn's reason is always the same
    request_id = new_request_id()
    answer = error_answer({"state": {"request_id": request_id, "log": {}}}, 400, "bad_request", _DETAIL)
    headers = MutableHeaders(headers={**HEADERS, **answer.headers, "X-Request-ID": request_id, "Connection": "close"})
    lines = [name + b": " + value + b"\r\n" for name, value in headers.raw]
    self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", answer.body]))
    self.transport.close()
    metrics.REQUESTS.labels("other", "other", "400").inc()
    log_request(request_id=request_id, status=400, client=self.client[0] if self.client else None, error="bad_request")
