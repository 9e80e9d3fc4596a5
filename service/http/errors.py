"""The one shape of every error answer."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Scope

_NAMES = {  # the standard library's phrases of these changed with Python 3.13
    413: "content_too_large",
    422: "validation_error",
}
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ApiError(HTTPException):
    """A request that is answered with an error.

    An HTTPException, because frameworks let those pass where they hide every other exception.

    Attributes:
        status_code: HTTP status code.
        error: short name of the error, such as `model_not_loaded`.
        detail: one sentence for the client.
        headers: headers of the answer, such as `Retry-After`.
    """

    def __init__(self, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.error = error


def too_busy(detail: str, seconds: int = 1) -> ApiError:
    """Return the 503 that asks the client to come back after `seconds`."""
    return ApiError(503, "too_busy", f"{detail}; try again in {seconds} s", {"Retry-After": str(seconds)})


def error_name(status: int) -> str:
    """Return the short name of a status code, such as `not_found` for 404."""
    if status in _NAMES:
        return _NAMES[status]
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def detail_of(scope: Scope, status: int, said: str) -> str:
    """Return one sentence for a refusal that a framework made, which says little or nothing."""
    if status == 404:
        return f"there is nothing at {scope['path'][:200]}; /docs lists the routes"
    if status == 405:
        return f"{scope['method']} is not allowed here; /docs lists the routes"
    return said.strip() or HTTPStatus(status).phrase


def error_answer(
    scope: Scope, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error's answer, and leave its name for the request's log line."""
    state = scope["state"]
    state["log"]["error"] = error
    body = {
        "error": error,
        "detail": detail,
        "request_id": state["request_id"],
        "status_code": status,
        "error_class": "server_error" if status >= 500 else "client_error",
    }
    return JSONResponse(body, status, headers)


def is_sane_id(value: str) -> bool:
    """Tell whether a client's request id may stand in headers, bodies and logs."""
    return _SANE_ID.fullmatch(value) is not None
