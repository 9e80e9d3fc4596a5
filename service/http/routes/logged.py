"""What was answered earlier."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Path

from service import schemas
from service.http.openapi import errors
from service.http.routes.common import RequestId, WorkerOf, ask_log, find_prediction

router = APIRouter(responses=errors(404, 422, 503), tags=["feedback"])


@router.get("/predictions/{prediction_id}")
async def prediction(
    worker: WorkerOf, request_id: RequestId, prediction_id: Annotated[str, Path(pattern=schemas.LOGGED_ID)]
) -> schemas.LoggedPrediction:
    """What was said of a photo then, and the thresholds that were in force."""
    row = await find_prediction(worker, prediction_id)
    labels = await ask_log(worker, lambda: worker.log.labels([prediction_id]))
    more = {"prediction_id": prediction_id, "label": labels.get(prediction_id), "request_id": request_id}
    more["distance"] = row["ood_score"]
    return schemas.LoggedPrediction.model_validate(row | more | {"time": row["time"].replace(tzinfo=UTC)})
