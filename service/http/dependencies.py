"""What routes take from a request."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError

from service.http.errors import ApiError
from service.http.state import AppState

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOG_SECONDS = 1.0  # a prediction may be answered that much earlier than it is in the log


# Coroutines although they await nothing: FastAPI runs plain functions in threads, and two hops cost more than parsing.
async def _state(request: Request) -> AppState:
    state: AppState = request.app.state.app_state
    return state


async def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def body_of(kinds: frozenset[str], ask: str) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that refuses a body of another content type: 415, where a missing field would be 422."""

    async def check(request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind not in kinds:
            raise ApiError(415, "unsupported_media_type", ask)

    return check


async def ask_log(state: AppState, work: Callable[[], T]) -> T:
    """Run what reads or writes the prediction log; 503 where that fails."""
    try:
        return await state.log_queue.run(work)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("the prediction log does not answer: %s", " ".join(str(error).split())[:300])
        raise ApiError(503, "log_unavailable", "the prediction log does not answer; try again later") from error


async def find_prediction(state: AppState, prediction_id: str) -> dict[str, Any]:
    """Return an earlier prediction's row of the log; 404 where there is none.

    Raises:
        ApiError: there is none, or the log does not answer.
    """
    deadline = time.monotonic() + _LOG_SECONDS
    while (row := await ask_log(state, lambda: state.log.find(prediction_id))) is None:
        if time.monotonic() > deadline:
            raise _unknown(state, prediction_id)
        await anyio.sleep(0.3)
    return row


def _unknown(state: AppState, prediction_id: str) -> ApiError:
    detail = f"no prediction {prediction_id} is known; the items of a batch have ids of their own"
    if state.settings.log_share < 1:
        detail += f", and only {state.settings.log_share:.2%} of all predictions are logged"
    return ApiError(404, "unknown_prediction", detail)


StateOf = Annotated[AppState, Depends(_state)]
RequestId = Annotated[str, Depends(_request_id)]
