"""What holds for every route, BentoML's own included.

Outermost first: `ContractMiddleware` (request id, headers, error shape, metrics, log line), CORS, `ErrorMiddleware`,
`AuthMiddleware`, `RateLimitMiddleware`, `BodyMiddleware`.
"""

import asyncio
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.http.auth import AuthMiddleware
from service.http.errors import ApiError, detail_of, error_answer, error_name, is_sane_id
from service.http.lifecycle import end_with_parent, on_terminate
from service.http.rate_limits import RateLimitMiddleware
from service.http.request_log import log_request
from service.http.routing import RouteTable
from service.http.uploads import Upload, Uploads
from service.settings import Settings

logger = logging.getLogger(__name__)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GONE = 499  # in metrics and log, as in nginx: the client left before its body had arrived
HEADERS = {  # defaults on every answer; OWASP's REST security cheat sheet
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def new_request_id() -> str:
    """Return a ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 random bits; sortable."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


class ContractMiddleware:
    """Pure ASGI middleware around all routes, BentoML's too.

    Routes read the request's id from `request.state.request_id`. They add fields to its log line through the dict
    `request.state.log`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, routes: RouteTable) -> None:
        app = BodyMiddleware(app)
        if settings.rate_limited():
            app = RateLimitMiddleware(app, settings, routes)
        app = ErrorMiddleware(AuthMiddleware(app, settings))
        if settings.cors_origins:  # outside ErrorMiddleware: a page can read errors, and preflights need no key
            app = CORSMiddleware(
                app,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
                expose_headers=["Retry-After", "X-Request-ID"],
            )
        self.app = app
        self.routes = routes
        self.uploads = Uploads(settings)
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            on_terminate(self.uploads.drain)
            self._watch = asyncio.create_task(end_with_parent())
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("x-request-id", "")
        route = self.routes.find(scope["method"], scope["path"])
        state = scope.setdefault("state", {})
        state |= {
            "request_id": claimed if is_sane_id(claimed) else new_request_id(),
            "log": {},
            "route": route,
        }
        upload = state["upload"] = Upload(self.uploads, scope, receive)
        answer = _Response(send, scope, upload)
        with metrics.request(scope["method"], route.endpoint) as observed:
            try:
                await self.app(scope, receive, answer.send)
            finally:
                upload.close()
                observed.status = _GONE if answer.unheard else answer.status
        log_request(
            request_id=state["request_id"],
            method=scope["method"],
            path=scope["path"][:200],
            status=observed.status,
            duration_ms=round(observed.seconds * 1000, 2),
            bytes=upload.received,
            client=scope["client"][0] if scope.get("client") else None,
            key=state.get("api_key"),
            **state["log"],
        )


class BodyMiddleware:
    """Applies the rules of `Upload` to the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] != "/" and scope["path"].endswith("/"):  # BentoML would redirect to the client's Host
                raise ApiError(404, "not_found", detail_of(scope, 404, ""))
            upload: Upload = scope["state"]["upload"]
            upload.check()
            receive = upload.receive
        await self.app(scope, receive, send)


class ErrorMiddleware:
    """Turns exceptions of the inner layers into error answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, watched)
        except ApiError as error:
            answer = error_answer(scope, error.status_code, error.error, error.detail, error.headers)
        except Exception:
            logger.exception("request %s: %s %s failed", scope["state"]["request_id"], scope["method"], scope["path"])
            answer = error_answer(scope, 500, error_name(500), "the service failed; its log knows this request's id")
        else:
            return
        if not started:
            await answer(scope, receive, send)


class _Response:
    """Passes an answer on and adds headers; an error that is not JSON gets the shape of all errors."""

    def __init__(self, send: Send, scope: Scope, upload: Upload) -> None:
        self._send = send
        self._scope = scope
        self._upload = upload
        self._replaced: MutableHeaders | None = None
        self._text = b""
        self.status = 500
        self.unheard = False  # the client had left before

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            if self.status >= 400 and not headers.get("content-type", "").startswith("application/json"):
                self._replaced = headers
            else:
                await self._start(headers)
        elif self._replaced is None:
            await self._body(message)
        else:
            self._text += message.get("body", b"")[:1000]
            if not message.get("more_body", False):
                await self._replace(self._replaced)

    async def _replace(self, headers: MutableHeaders) -> None:
        detail = detail_of(self._scope, self.status, self._text.decode("utf-8", "replace"))
        answer = error_answer(self._scope, self.status, error_name(self.status), detail)
        headers.update(answer.headers)
        await self._start(headers)
        await self._body({"type": "http.response.body", "body": answer.body})

    async def _start(self, headers: MutableHeaders) -> None:
        headers["X-Request-ID"] = self._scope["state"]["request_id"]
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        self.unheard = self._upload.gone
        self._upload.close()  # now: a slow reader must not block other clients' bodies
        if not self._upload.complete:
            headers["Connection"] = "close"  # the rest of the body must not be taken for the next request
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers.raw})

    async def _body(self, message: Message) -> None:
        if self._upload.complete or message.get("more_body", False):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._upload.discard()
        await self._send({"type": "http.response.body", "body": b""})
