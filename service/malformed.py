"""What uvicorn says to bytes that are no HTTP request, in the shape of all errors.

It answers them by itself, before there is a request that middleware could see.
"""

import logging

from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import metrics
from service.errors import error_answer
from service.middleware import HEADERS, new_request_id
from service.request_log import log_request

_DETAIL = "this is no valid HTTP request: check its method, path, headers and length"


def shape_malformed() -> None:
    """Have uvicorn answer malformed requests as the contract says, and print one line about each."""
    HttpToolsProtocol.send_400_response = _send  # type: ignore[method-assign]  # uvicorn has no setting for it
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")


def _send(self: HttpToolsProtocol, msg: str) -> None:  # noqa: ARG001 - uvicorn's reason is always the same
    request_id = new_request_id()
    answer = error_answer({"state": {"request_id": request_id, "log": {}}}, 400, "bad_request", _DETAIL)
    headers = MutableHeaders(headers={**HEADERS, **answer.headers, "X-Request-ID": request_id, "Connection": "close"})
    lines = [name + b": " + value + b"\r\n" for name, value in headers.raw]
    self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", answer.body]))
    self.transport.close()
    metrics.REQUESTS.labels("other", "other", "400").inc()
    log_request(request_id=request_id, status=400, client=self.client[0] if self.client else None, error="bad_request")
