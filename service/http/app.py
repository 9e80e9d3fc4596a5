"""The application: its routes, and how whatever they raise is answered."""

import asyncio
import logging
import pkgutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from service.http import routes
from service.http.errors import ApiError, detail_of, error_answer, error_name
from service.http.openapi import page, schema
from service.http.state import AppState, start_worker
from service.photo import ImageError
from service.settings import Settings

logger = logging.getLogger(__name__)

_REFUSALS: tuple[type[Exception], ...] = (ApiError, ImageError, HTTPException, RequestValidationError)


def _fault(fault: dict[str, Any]) -> str:
    return "a file belongs here, not text" if "UploadFile" in fault["msg"] else str(fault["msg"])


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    """Give every refusal the one shape."""
    headers: Mapping[str, str] | None = None
    match error:
        case ApiError():
            status, name, detail, headers = error.status_code, error.error, error.detail, error.headers
        case ImageError():
            status, name, detail = error.status, error.error_type, error.message
        case RequestValidationError():
            faults = (f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {_fault(e)}" for e in error.errors())
            status, name, detail = 422, "validation_error", "; ".join(faults)[:1000]
        case HTTPException():
            # Starlette answers 400 to a form it cannot parse; the contract has one code for a wrong body.
            status = 422 if error.status_code == 400 else error.status_code
            name, detail, headers = error_name(status), detail_of(request.scope, status, error.detail), error.headers
        case _:
            raise error
    return error_answer(request.scope, status, name, detail, headers)


async def _watch(state: AppState) -> None:
    """Put models into service that are put in place while the service runs."""
    limiter = anyio.CapacityLimiter(1)
    while True:
        await asyncio.sleep(1)
        try:
            await anyio.to_thread.run_sync(state.store.update, limiter=limiter)
        except Exception:
            logger.exception("looking for other models failed")


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its models are loaded when it starts to serve, not here."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = app.state.app_state = start_worker(settings)
        watching = asyncio.create_task(_watch(state))
        yield
        watching.cancel()
        await anyio.to_thread.run_sync(state.log.close)

    # Photos stay in memory: what Starlette spools to disk above 1 MB would be an image stored.
    MultiPartParser.spool_max_size = settings.max_batch_bytes
    app = FastAPI(
        title="AI Product Photo Detector",
        description="Is a product photo real or AI-generated? Every answer carries `X-Request-ID`.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the Host that the client claims
        exception_handlers=dict.fromkeys(_REFUSALS, _on_error),
    )
    app.state.monitor = None
    names = {module.name for module in pkgutil.iter_modules(routes.__path__)}
    # Routes are tried in order: first those that are asked most.
    for name in ["predictions", *sorted(names - {"predictions"})]:
        app.include_router(import_module(f"{routes.__name__}.{name}").router)

    @app.get("/", include_in_schema=False)
    async def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page(app.title)

    app.openapi = lambda: schema(app, settings)  # type: ignore[method-assign]  # as FastAPI documents it
    return app
