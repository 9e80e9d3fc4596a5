"""What HTTP tests ask of answers."""

import httpx


def is_error(answer: httpx.Response, status: int, error: str | None = None) -> bool:
    """Check the one shape of errors; return True."""
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error", "detail", "request_id", "status_code", "error_class"}
    assert body["status_code"] == status
    assert body["error_class"] == ("server_error" if status >= 500 else "client_error")
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["detail"]
    assert error is None or body["error"] == error
    return True
