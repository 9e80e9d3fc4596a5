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
from service.http.routing import PROBES
from service.settings import Settings

_ERRORS = {
    401: "no API key, or an unknown one, where keys are asked for",
    404: "no such prediction, report, model or group",
    408: "the body did not arrive in time",
    413: "file, body or photo too large",
    415: "another type of body, an encoded body, or a photo that is not JPEG, PNG, WebP, AVIF or HEIC",
    422: "fields missing or wrong, or a corrupt or too small photo",
    429: "too many requests of one client, where rate limits are on",
    503: "too busy, or no model is loaded, or the prediction log or the drift monitor does not answer",
}
_PHOTO_TYPES = "image/jpeg, image/png, image/webp, image/avif, image/heic"
_REQUEST_ID = {
    "description": "the client's own X-Request-ID, if it is sane, else a new ULID",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}
_RETRY_AFTER = {"description": "seconds to wait, where waiting helps", "schema": {"type": "integer", "minimum": 1}}
_CHALLENGE = {"description": "how a key is sent", "required": True, "schema": {"type": "string"}}
_KEYS: dict[str, dict[str, Any]] = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "the same key, for clients that send nothing else"},
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these error answers, and of those that any route can give."""
    every = {401, 413, 415, *statuses}
    return {status: {"model": schemas.Error, "description": _ERRORS[status]} for status in sorted(every)}


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


def schema(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the schema of our routes and of those that BentoML answers, true for the settings in use."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _add_probes(found)
        _add_photos(found, settings.max_batch_images)
        found["components"]["securitySchemes"] = _KEYS
        keys: list[dict[str, list[str]]] = [{name: []} for name in _KEYS]
        if not settings.accepted_keys():
            keys = [{}, *keys]  # the empty one: this service asks for none
        for path, operations in found["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in PROBES else keys
                for status, response in operation["responses"].items():
                    response["headers"] = _headers(status)
                    if status != "200":  # FastAPI takes errors for what the route answers otherwise, such as HTML
                        response["content"] = {"application/json": next(iter(response["content"].values()))}
        app.openapi_schema = found
    return app.openapi_schema


def _add_probes(found: dict[str, Any]) -> None:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    for path, summary in PROBES.items():
        responses = {
            "200": {"description": summary, "content": text},
            **{str(status): {"description": _ERRORS[status], "content": error} for status in (413, 415)},
            "503": {"description": "not so", "content": error},
        }
        found["paths"][path] = {"get": {"tags": ["facts"], "summary": summary, "responses": responses}}


def _add_photos(found: dict[str, Any], most: int) -> None:
    """Say of each form with files what FastAPI does not know: the photos' types, how many, and what may follow."""
    for operation in (operation for operations in found["paths"].values() for operation in operations.values()):
        form = operation.get("requestBody", {}).get("content", {}).get("multipart/form-data")
        if form is None:
            continue
        name = form["schema"]["$ref"].rpartition("/")[2]
        for field, part in found["components"]["schemas"][name]["properties"].items():
            if "contentMediaType" in part.get("items", part):  # a file
                form["encoding"] = {field: {"contentType": _PHOTO_TYPES}}
                if part["type"] == "array":
                    part |= {"minItems": 1, "maxItems": most}
                else:
                    operation["responses"]["200"]["links"] = {"feedback": _feedback_link(found)}


def _feedback_link(found: dict[str, Any]) -> dict[str, Any]:
    """Return where an answer's `request_id` goes: to /feedback, here with a moderator who agrees."""
    return {
        "operationId": found["paths"]["/feedback"]["post"]["operationId"],
        "description": "what the photo is, as a moderator sees it",
        "requestBody": {"request_id": "$response.body#/request_id", "label": "$response.body#/prediction"},
    }


def _headers(status: str) -> dict[str, Any]:
    """Return the headers of an answer with this status."""
    headers: dict[str, Any] = {"X-Request-ID": _REQUEST_ID}
    if status == "401":
        headers["WWW-Authenticate"] = _CHALLENGE
    if status in {"429", "503"}:
        headers["Retry-After"] = {**_RETRY_AFTER, "required": status == "429"}
    return headers
