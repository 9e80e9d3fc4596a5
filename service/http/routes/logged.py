"""What was answered earlier."""

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Path

from service import schemas
from service.http.dependencies import RequestId, StateOf, ask_log, find_prediction
from service.http.openapi import errors

router = APIRouter(responses=errors(404, 422, 503), tags=["feedback"])


@router.get("/predictions/{prediction_id}")
async def prediction(
    state: StateOf, request_id: RequestId, prediction_id: Annotated[str, Path(pattern=schemas.LOGGED_ID)]
) -> schemas.LoggedPrediction:
    """What was said of a photo then, and the thresholds that were in force."""
    row = await find_prediction(state, prediction_id)
    labels = await ask_log(state, lambda: state.log.labels([prediction_id]))
    more = {"prediction_id": prediction_id, "label": labels.get(prediction_id), "request_id": request_id}
    more |= {"distance": row["ood_score"], "group": row["shop_group"]}
    return schemas.LoggedPrediction.model_validate(row | more | {"time": row["time"].replace(tzinfo=UTC)})
