"""Drift: what the monitor found, model by model."""

import asyncio
import logging
from typing import Annotated, Any, Literal

import httpx
from bentoml.exceptions import BentoMLException
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from service import schemas
from service.http.dependencies import RequestId
from service.http.errors import ApiError
from service.http.openapi import errors

router = APIRouter(responses=errors(404, 422, 503), tags=["drift"])
logger = logging.getLogger(__name__)

_SECONDS = 15.0  # the longest wait for the monitor; a killed one is missed for up to ten, and restarted then
# The page is Evidently's: it draws with scripts of its own, inline, and asks nobody for anything.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'; sandbox allow-scripts"
)

Model = Annotated[
    str | None, Query(max_length=50, description="a model's name; without it: the first in alphabetical order")
]
Since = Annotated[
    str | None,
    Query(max_length=50, description="begin of a time range: `24h`, `7d`, or ISO 8601; without it: the newest window"),
]
Until = Annotated[str | None, Query(max_length=50, description="its end, likewise; without it: now")]


@router.get("/drift")
async def drift(
    request: Request, request_id: RequestId, model: Model = None, since: Since = None, until: Until = None
) -> schemas.DriftResponse:
    """Is what we see now unlike what the model was calibrated on?"""
    found = await _ask(request, "drift", model=model, since=since, until=until)
    enough = found["status"] != "insufficient_data"
    asked = {"model": found["model"], "since": since, "until": until}
    query = httpx.QueryParams({key: value for key, value in asked.items() if value})
    url = f"/drift/report?{query}" if enough else None
    return schemas.DriftResponse(**found, report_url=url, request_id=request_id)


@router.get("/drift/report", response_class=HTMLResponse)
async def report(
    request: Request,
    *,
    model: Model = None,
    since: Since = None,
    until: Until = None,
    of: Annotated[Literal["window", "reviewed"], Query(description="all of it, or the reviewed photos")] = "window",
    name: Annotated[str | None, Query(max_length=100, description="of a kept report; then nothing else counts")] = None,
) -> HTMLResponse:
    """Evidently's report of the same window, or a kept one."""
    if name is not None:
        page = await _ask(request, "report_page", name=name)
    else:
        page = await _ask(request, "page", model=model, since=since, until=until, of=of)
    return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY, "X-Frame-Options": "SAMEORIGIN"})


@router.get("/drift/reports")
async def reports(request: Request, request_id: RequestId, model: Model = None) -> schemas.DriftReports:
    """The kept reports of a model, newest first."""
    found = await _ask(request, "reports", model=model)
    return schemas.DriftReports(
        model=found["model"],
        reports=[
            schemas.KeptReport(
                **{key: answer[key] for key in schemas.KeptReport.model_fields if key in answer},
                report_url=f"/drift/report?name={answer['name']}",
            )
            for answer in found["reports"]
        ],
        request_id=request_id,
    )


async def _ask(request: Request, method: str, /, **arguments: Any) -> Any:
    """Call a method of the monitor.

    Raises:
        ApiError: it refuses, or 503: there is no monitor, or it does not answer.
    """
    monitor = request.app.state.monitor
    if monitor is None:
        raise ApiError(503, "monitor_off", "this service does not watch for drift (MONITOR)")
    try:
        async with asyncio.timeout(_SECONDS):
            answer = await getattr(monitor.to_async, method)(**arguments)
    except (httpx.HTTPError, BentoMLException, TimeoutError) as error:
        logger.warning("the drift monitor does not answer: %r", error)
        raise ApiError(
            503, "monitor_unavailable", "the drift monitor does not answer; try again later", {"Retry-After": "10"}
        ) from error
    if "error" in answer:
        again = {"Retry-After": "10"} if answer["status"] == 503 else None
        raise ApiError(answer["status"], answer["error"], answer["detail"], again)
    return answer["found"]
