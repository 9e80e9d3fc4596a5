"""The service's HTTP in this process, and what tests ask of answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from service.http.app import create_app
from service.http.middleware import ContractMiddleware
from service.http.routing import RouteTable
from service.settings import Settings


@contextmanager
def in_process(folder: Path, **changes: Any) -> Iterator[TestClient]:
    """Run the application with all its middleware, as BentoML does, but in this process; yield a client of it.

    BentoML's own routes (probes, static files) are not there, and there is one worker and no drift monitor.

    Args:
        folder: where the prediction log goes: predictions.db.
        changes: settings that differ from the default.
    """
    settings = Settings(**{"log_url": f"sqlite:///{folder / 'predictions.db'}", "monitor": False, **changes})
    app = create_app(settings)
    stack = ContractMiddleware(app, settings, RouteTable(app.routes))
    address = ("127.0.0.1", 50_000)
    with TestClient(stack, base_url="http://service", follow_redirects=False, client=address) as client:
        yield client


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
