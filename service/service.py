"""The BentoML service: processes, workers, probes and metrics around the application."""

import os
from typing import cast

import bentoml
from starlette.exceptions import HTTPException

from service.http.app import create_app
from service.http.memory import keep_little
from service.http.middleware import ContractMiddleware
from service.http.patches import must_start, no_timers, shape_malformed
from service.http.request_log import configure
from service.http.routing import RouteTable
from service.http.state import NOT_LOADED
from service.settings import load_settings

_CONFIGURED = {"BENTOML_CONFIG", "BENTOML_CONFIG_OPTIONS"}  # where BentoML's own settings come from

settings = load_settings()
configure()
keep_little()
no_timers()
must_start()
shape_malformed()
# BentoML leaves this to uvicorn's environment variable, and without it uvicorn believes any client on this machine.
os.environ["FORWARDED_ALLOW_IPS"] = ",".join(settings.trusted_proxies)
app = create_app(settings)


@bentoml.service(
    name="ai-product-photo-detector",
    workers=settings.workers,
    logging={"access": {"enabled": False}},  # ours: request_log.py
    # BentoML's own request metrics keep a time series for every path that any client ever asks for, without
    # bound; ours count the same by a fixed set of paths, and `/metrics` is a route of the application.
    metrics={"enabled": False},
    # Nothing collects spans unless an operator configures BentoML's tracing, but making them costs more than any other
    # layer around the model.
    tracing={} if _CONFIGURED & os.environ.keys() else {"excluded_urls": ".*"},
    runner_probe={"enabled": False},  # predictions do not need the drift monitor, so readiness does not either
)
@bentoml.asgi_app(app, path="/")
class PhotoDetector:
    """Answers HTTP as docs/API.md says."""

    if settings.monitored():
        from service.drift.service import DriftService  # needs the extra `monitor`

        monitor = bentoml.depends(DriftService)

    def __init__(self) -> None:
        app.state.monitor = getattr(self, "monitor", None)

    async def __is_ready__(self) -> bool:
        """Answer BentoML's `/readyz`."""
        if not app.state.app_state.store.models:
            raise HTTPException(503, NOT_LOADED)
        return True


# Around BentoML's own routes, too: they get the request id and the error shape. BentoML's types call the
# decorated class a class; it is a Service.
cast("bentoml.Service[PhotoDetector]", PhotoDetector).add_asgi_middleware(
    ContractMiddleware, settings=settings, routes=RouteTable(app.routes)
)
