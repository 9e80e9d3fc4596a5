"""Is this photo real or AI-generated? One, several, those of a listing, and why."""

from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile

from service import schemas
from service.http.dependencies import RequestId, StateOf, body_of
from service.http.errors import ApiError
from service.http.openapi import errors
from service.http.routing import many_photos, one_photo, rules
from service.http.state import AppState
from service.predict import clean_name, explain_one, predict_listing, predict_many, predict_one

_FORMS = frozenset({"multipart/form-data", "application/x-www-form-urlencoded"})


async def _the_file(request: Request, file: Annotated[UploadFile, File(description="one photo")]) -> bytes:
    """Return the one file of the form."""
    form = await request.form()  # parsed already; FastAPI alone would take the last of several
    if len(form.getlist("file")) != 1:
        raise ApiError(422, "validation_error", "file: send one file; /predict/batch takes several")
    return await file.read()


TheFile = Annotated[bytes, Depends(_the_file)]
Group = Annotated[
    str,
    Form(
        max_length=200, description="of the photos, where the shop's own calibration has groups: its thresholds decide"
    ),
]

router = APIRouter(
    dependencies=[Depends(body_of(_FORMS, "send the photo as multipart/form-data"))],
    responses=errors(404, 408, 413, 415, 422, 429, 503),
    tags=["predictions"],
)


@router.post("/predict")
@rules(max_body=one_photo, rate_limit=lambda settings: settings.rate_limit_predict)
async def predict(
    request: Request, state: StateOf, request_id: RequestId, data: TheFile, group: Group = ""
) -> schemas.PredictResponse:
    """Is this photo real or AI-generated?"""
    models = state.in_force(group)
    answer = await state.photo_queue.run(lambda: predict_one(data, request_id, models, state))
    request.state.log |= _logged(answer)
    return answer


@router.post("/predict/explain")
@rules(max_body=one_photo, rate_limit=lambda settings: settings.rate_limit_explain)
async def explain(
    request: Request, state: StateOf, request_id: RequestId, data: TheFile, group: Group = ""
) -> schemas.ExplainResponse:
    """As `/predict`, and which places of the photo speak for it."""
    models = state.in_force(group)
    answer = await state.photo_queue.run(lambda: explain_one(data, request_id, models, state))
    request.state.log |= _logged(answer)
    return answer


@router.post("/predict/batch")
@rules(max_body=many_photos, rate_limit=lambda settings: settings.rate_limit_batch)
async def predict_batch(
    request: Request,
    state: StateOf,
    request_id: RequestId,
    files: Annotated[list[UploadFile], File(description="the photos, in the order of the answers")],
    group: Group = "",
) -> schemas.BatchResponse:
    """As `/predict` for several photos; a bad one is an error on its own item."""
    models = state.in_force(group)
    batch = await _read(files, state, "a batch")
    answer = await state.photo_queue.run(lambda: predict_many(batch, request_id, models, state), weight=len(batch))
    request.state.log |= _counted(answer)
    return answer


@router.post("/predict/listing")
@rules(max_body=many_photos, rate_limit=lambda settings: settings.rate_limit_batch)
async def predict_of_listing(
    *,
    request: Request,
    state: StateOf,
    request_id: RequestId,
    files: Annotated[list[UploadFile], File(description="the photos of one listing, in the order of the answers")],
    listing_id: Annotated[
        str, Form(pattern=schemas.LISTING_ID, description="your name for it, which the log keeps: no spaces; '': none")
    ] = "",
    group: Group = "",
) -> schemas.ListingResponse:
    """As `/predict/batch` for all photos of one listing, and one answer for all of them."""
    models = state.in_force(group)
    batch = await _read(files, state, "a listing")
    answer = await state.photo_queue.run(
        lambda: predict_listing(batch, listing_id, request_id, models, state), weight=len(batch)
    )
    request.state.log |= _counted(answer) | {"listing": answer.listing.id, "decision": answer.listing.decision}
    return answer


async def _read(files: list[UploadFile], state: AppState, what: str) -> list[tuple[str, bytes]]:
    """Return the files' names, fit to be echoed, and what is in them."""
    most = state.settings.max_batch_images
    if len(files) > most:
        raise ApiError(422, "validation_error", f"files: {len(files)} files; {what} has at most {most}")
    return [(clean_name(file.filename), await file.read()) for file in files]


def _counted(answer: schemas.BatchResponse) -> dict[str, object]:
    versions = {item.model: item.model_version for item in answer.results if item.error is None}
    return {"photos": answer.total, "failed": answer.failed, "models": versions}


def _logged(answer: schemas.PredictResponse) -> dict[str, str]:
    return {name: getattr(answer, name) for name in ("prediction", "decision", "model", "model_version")}
