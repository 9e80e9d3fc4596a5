"""What holds for every route, BentoML's own included: request id, error shape, body limits, HTTP metrics."""

import json
import logging
import secrets
import time
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.errors import error_body, error_name, is_sane_id
from service.settings import Settings

logger = logging.getLogger("bentoml.aidetect")

_FORM_OVERHEAD = 64 * 1024  # boundaries, part headers, small text fields
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_request_id() -> str:
    """Return a ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 random bits; sortable."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


class Contract:
    """Pure ASGI middleware around everything that answers HTTP.

    Routes find the request's id in `request.state.request_id`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        claimed = headers.get("x-request-id", "")
        request_id = claimed if is_sane_id(claimed) else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, scope, request_id)
        with metrics.request(scope["method"], scope["path"]) as observed:
            limit = self._body_limit(scope["path"])
            try:
                if headers.get("content-encoding", "identity").lower() != "identity":
                    await answer.error(415, "send the body without Content-Encoding")
                elif int(headers.get("content-length", "0")) > limit:
                    await answer.error(413, _too_large(limit))
                else:
                    await self.app(scope, _limited(receive, limit), answer.send)
            except Exception:
                logger.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
                if not answer.started:
                    await answer.error(500, "the service failed; its log knows this request's id")
            observed.status = answer.status

    def _body_limit(self, path: str) -> int:
        batch = path.rstrip("/") == "/predict/batch"
        return (self.settings.max_batch_bytes if batch else self.settings.max_file_bytes) + _FORM_OVERHEAD


class _Answer:
    """Passes an answer on with its request id; gives an error that is not JSON the shape of all errors."""

    def __init__(self, send: Send, scope: Scope, request_id: str) -> None:
        self._send = send
        self._scope = scope
        self._request_id = request_id
        self._replaced: Message | None = None
        self._text = b""
        self.started = False
        self.status = 500

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            headers["X-Request-ID"] = self._request_id
            message = {**message, "headers": headers.raw}
            if self.status >= 400 and not headers.get("content-type", "").startswith("application/json"):
                self._replaced = message
                return
        elif self._replaced is not None:
            self._text += message.get("body", b"")[:1000]
            if message.get("more_body", False):
                return
            await self._finish(self._replaced)
            return
        await self._send(message)

    async def error(self, status: int, detail: str) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": []})
        await self.send({"type": "http.response.body", "body": detail.encode()})

    async def _finish(self, start: Message) -> None:
        detail = self._text.decode("utf-8", "replace").strip()
        if self.status == 404:
            detail = f"there is nothing at {self._scope['path'][:200]}; /docs lists the routes"
        elif self.status == 405:
            detail = f"{self._scope['method']} is not allowed here; /docs lists the routes"
        elif not detail:
            detail = HTTPStatus(self.status).phrase
        body = json.dumps(error_body(self.status, error_name(self.status), detail, self._request_id)).encode()
        headers = MutableHeaders(raw=start["headers"])
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _limited(receive: Receive, limit: int) -> Receive:
    """Let at most `limit` bytes of body through, for a body that does not say its length."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return limited


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"
