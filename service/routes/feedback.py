"""What moderators say of earlier answers."""

import time

import anyio
from fastapi import APIRouter, Depends, Request

from service import metrics, schemas
from service.decision import Prediction
from service.errors import ApiError
from service.openapi import errors
from service.routes.common import RequestId, WorkerOf, ask_log, body_of

_SECONDS = 1.0  # a prediction may be answered that much earlier than it is in the log

router = APIRouter(
    dependencies=[Depends(body_of(frozenset({"application/json"}), "send application/json"))],
    responses=errors(404, 408, 413, 415, 422, 503),
    tags=["feedback"],
)


@router.post("/feedback")
async def post_feedback(
    request: Request, worker: WorkerOf, request_id: RequestId, verdict: schemas.FeedbackRequest
) -> schemas.FeedbackResponse:
    """Keep what a moderator says of an earlier answer; said again, the newest counts."""
    key: str | None = getattr(request.state, "api_key", None)

    def keep() -> Prediction | None:
        row = worker.log.find(verdict.request_id)
        if row is None:
            return None
        worker.log.add_feedback(verdict.request_id, verdict.label, key)
        found: Prediction = row["prediction"]
        return found

    deadline = time.monotonic() + _SECONDS
    while (prediction := await ask_log(worker, keep)) is None and time.monotonic() < deadline:
        await anyio.sleep(0.3)
    if prediction is None:
        detail = f"no prediction {verdict.request_id} is known; the items of a batch have ids of their own"
        if worker.settings.log_share < 1:
            detail += f", and only {worker.settings.log_share:.2%} of all predictions are logged"
        raise ApiError(404, "unknown_prediction", detail)
    metrics.FEEDBACK.labels(prediction, verdict.label).inc()
    return schemas.FeedbackResponse(
        prediction_id=verdict.request_id,
        prediction=prediction,
        label=verdict.label,
        agrees=prediction == verdict.label,
        request_id=request_id,
    )
