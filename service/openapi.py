"""The OpenAPI page and schema."""

import base64
import hashlib
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from service import schemas

_ERRORS = {
    401: "no API key, or an unknown one, where keys are asked for",
    404: "no such prediction",
    408: "the body did not arrive in time",
    413: "file, body or photo too large",
    415: "another type of body, an encoded body, or a photo that is no JPEG, PNG or WebP",
    422: "fields missing or wrong, or a corrupt or too small photo",
    429: "too many requests of one client, where rate limits are on",
    503: "too busy, or no model is loaded, or the prediction log does not answer",
}
_PROBES = {
    "/livez": "The process lives",
    "/healthz": "The process lives",
    "/readyz": "The model is loaded and requests are welcome",
}
_REQUEST_ID = {
    "description": "the client's own X-Request-ID, if it is sane, else a new ULID",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}
_RETRY_AFTER = {"description": "seconds to wait, where waiting helps", "schema": {"type": "integer", "minimum": 1}}
_KEYS: dict[str, dict[str, Any]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "the same key, for clients that send nothing else"},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these error answers, and of those that any route can give."""
    return {status: {"model": schemas.Error, "description": _ERRORS[status]} for status in sorted({401, *statuses})}


def page(title: str) -> HTMLResponse:
    """Return the page; BentoML ships Swagger UI, so that it needs no other host."""
    answer = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=title,
        swagger_js_url="/static_content/swagger-ui-bundle.js",
        swagger_css_url="/static_content/swagger-ui.css",
        swagger_favicon_url="/static_content/favicon-light-32x32.png",
    )
    inline = re.findall(rb"<script>(.*?)</script>", bytes(answer.body), re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in inline]
    answer.headers["Content-Security-Policy"] = "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self'", *hashes]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ]
    )
    return answer


def schema(app: FastAPI) -> dict[str, Any]:
    """Return the schema of our routes and of those that BentoML answers."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        text = {"text/plain": {"schema": {"type": "string"}}}
        for path, summary in _PROBES.items():
            responses = {
                "200": {"description": summary, "content": text},
                "503": {"description": "not so", "content": error},
            }
            found["paths"][path] = {"get": {"tags": ["facts"], "summary": summary, "responses": responses}}
        found["components"]["securitySchemes"] = _KEYS
        for path, operations in found["paths"].items():
            for operation in operations.values():
                # The empty one: a service without keys asks for none.
                operation["security"] = [] if path in _PROBES else [{}, *({name: []} for name in _KEYS)]
                for status, response in operation["responses"].items():
                    response["headers"] = {"X-Request-ID": _REQUEST_ID}
                    if status in {"429", "503"}:
                        response["headers"]["Retry-After"] = _RETRY_AFTER
        app.openapi_schema = found
    return app.openapi_schema
