"""What moderators say of earlier answers."""

from fastapi import APIRouter, Depends, Request

from service import metrics, schemas
from service.http.dependencies import RequestId, StateOf, ask_log, body_of, find_prediction
from service.http.openapi import errors
from service.http.routing import rules, small_json
from service.models.decision import Prediction

router = APIRouter(
    dependencies=[Depends(body_of(frozenset({"application/json"}), "send application/json"))],
    responses=errors(404, 408, 413, 415, 422, 503),
    tags=["feedback"],
)


@router.post("/feedback")
@rules(max_body=small_json)
async def post_feedback(
    request: Request, state: StateOf, request_id: RequestId, feedback: schemas.FeedbackRequest
) -> schemas.FeedbackResponse:
    """Keep what a moderator says of an earlier answer; said again, the newest counts."""
    prediction: Prediction = (await find_prediction(state, feedback.request_id))["prediction"]
    key: str | None = getattr(request.state, "api_key", None)
    await ask_log(state, lambda: state.log.add_feedback(feedback.request_id, feedback.label, key))
    metrics.FEEDBACK.labels(prediction, feedback.label).inc()
    return schemas.FeedbackResponse(
        prediction_id=feedback.request_id,
        prediction=prediction,
        label=feedback.label,
        agrees=prediction == feedback.label,
        request_id=request_id,
    )
