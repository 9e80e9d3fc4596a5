"""What routes take from a request."""

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError

from service.errors import ApiError
from service.worker import Worker

logger = logging.getLogger(__name__)

T = TypeVar("T")


# Coroutines although they await nothing: FastAPI runs plain functions in threads, and two hops cost more than parsing.
async def _worker(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    return worker


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


async def ask_log(worker: Worker, work: Callable[[], T]) -> T:
    """Run what reads or writes the prediction log; 503 where that fails."""
    try:
        return await worker.log_slot.run(work)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("the prediction log does not answer: %s", " ".join(str(error).split())[:300])
        raise ApiError(503, "log_unavailable", "the prediction log does not answer; try again later") from error


WorkerOf = Annotated[Worker, Depends(_worker)]
RequestId = Annotated[str, Depends(_request_id)]
