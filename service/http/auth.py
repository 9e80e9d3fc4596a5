"""API keys. They are checked before routing, so an unknown path asks for one too."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import metrics
from service.api_keys import find_key
from service.http.errors import ApiError
from service.settings import Settings

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="api-keys"'}


class AuthMiddleware:
    """Pure ASGI middleware: where the service has keys, a request without a known one gets a 401.

    A client sends its key as `X-API-Key`, or as `Authorization: Bearer <key>`, as Prometheus does.
    The key's name is kept in the scope's state as `api_key`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._keys = settings.accepted_keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] == "http" and self._keys and scope["state"]["route"].rules.needs_key:
            presented = _presented(Headers(scope=scope))
            key = find_key(self._keys, presented)
            if key is None:
                reason = "wrong" if presented else "missing"
                metrics.AUTH_FAILURES.labels(reason).inc()
                detail = "the API key is unknown" if presented else "send your API key as the header X-API-Key"
                raise ApiError(401, "unauthorized", detail, _CHALLENGE)
            scope["state"]["api_key"] = key.name
            metrics.KEY_REQUESTS.labels(key.name).inc()
        await self.app(scope, receive, send)


def _presented(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return headers.get("x-api-key", bearer).encode("latin-1")  # as it came: Starlette decodes headers so
