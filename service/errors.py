"""The one shape of every error answer."""

import re
from http import HTTPStatus
from typing import Any

_NAMES = {  # the standard library's phrases of these changed with Python 3.13
    413: "content_too_large",
    422: "validation_error",
}
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status code.
        error: short name of the error, such as `model_not_loaded`.
        detail: one sentence for the client.
    """

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail


def error_name(status: int) -> str:
    """Return the short name of a status code, such as `not_found` for 404."""
    if status in _NAMES:
        return _NAMES[status]
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def error_body(status: int, error: str, detail: str, request_id: str) -> dict[str, Any]:
    """Return the body of an error answer."""
    return {
        "error": error,
        "detail": detail,
        "request_id": request_id,
        "status_code": status,
        "error_class": "server_error" if status >= 500 else "client_error",
    }


def is_sane_id(value: str) -> bool:
    """Tell whether a client's request id may stand in headers, bodies and logs."""
    return _SANE_ID.fullmatch(value) is not None
