"""The HTTP contract: the routes and their errors."""

import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter, Depends, FastAPI, File, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from service import metrics, schemas
from service.decision import Prediction
from service.detector import Detector
from service.errors import ApiError, detail_of, error_answer, error_name
from service.explain import overlay
from service.images import ImageError
from service.openapi import errors, page, schema
from service.predict import Photo, clean_name, prepare, score
from service.settings import Settings
from service.worker import Worker, start_worker

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FEEDBACK_SECONDS = 1.0  # a prediction may be answered that much earlier than it is in the log
_FORMS = {"multipart/form-data", "application/x-www-form-urlencoded"}
_REFUSALS: tuple[type[Exception], ...] = (ApiError, ImageError, HTTPException, RequestValidationError)


def _worker(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    return worker


def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


async def _form_only(request: Request) -> None:
    """Refuse a body that is no form: 415, where a missing field would be 422."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind not in _FORMS:
        raise ApiError(415, "unsupported_media_type", "send the photo as multipart/form-data")


async def _json_only(request: Request) -> None:
    """Refuse a body that does not say it is JSON: 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json":
        raise ApiError(415, "unsupported_media_type", "send application/json")


async def _the_file(request: Request, file: Annotated[UploadFile, File(description="one photo")]) -> bytes:
    """Return the one file of the form."""
    form = await request.form()  # parsed already; FastAPI alone would take the last of several
    if len(form.getlist("file")) != 1:
        raise ApiError(422, "validation_error", "file: send one file; /predict/batch takes several")
    return await file.read()


WorkerOf = Annotated[Worker, Depends(_worker)]
RequestId = Annotated[str, Depends(_request_id)]
TheFile = Annotated[bytes, Depends(_the_file)]

predictions = APIRouter(
    dependencies=[Depends(_form_only)], responses=errors(408, 413, 415, 422, 429, 503), tags=["predictions"]
)
feedback = APIRouter(
    dependencies=[Depends(_json_only)], responses=errors(404, 408, 413, 415, 422, 503), tags=["feedback"]
)
facts = APIRouter(responses=errors(503), tags=["facts"])


@predictions.post("/predict")
async def predict(request: Request, worker: WorkerOf, request_id: RequestId, data: TheFile) -> schemas.PredictResponse:
    """Is this photo real or AI-generated?"""
    loaded = worker.loaded()
    answer, _, _ = await worker.slots.run(lambda: _one(worker, loaded.detector, data, request_id))
    request.state.log |= {"prediction": answer.prediction, "decision": answer.decision}
    return answer


@predictions.post("/predict/explain")
async def explain(request: Request, worker: WorkerOf, request_id: RequestId, data: TheFile) -> schemas.ExplainResponse:
    """As `/predict`, and which places of the photo speak for it."""
    loaded = worker.loaded()

    def work() -> schemas.ExplainResponse:
        answer, photo, heatmap = _one(worker, loaded.detector, data, request_id)
        picture = base64.b64encode(overlay(photo.image, heatmap)).decode()
        return schemas.ExplainResponse(**answer.model_dump(), heatmap_base64=picture)

    answer = await worker.slots.run(work)
    request.state.log |= {"prediction": answer.prediction, "decision": answer.decision}
    return answer


@predictions.post("/predict/batch")
async def predict_batch(
    request: Request,
    worker: WorkerOf,
    request_id: RequestId,
    files: Annotated[list[UploadFile], File(description="1 to 20 photos")],
) -> schemas.BatchResponse:
    """As `/predict` for several photos; a bad one is an error on its own item."""
    loaded = worker.loaded()
    most = worker.settings.max_batch_images
    if len(files) > most:
        raise ApiError(422, "validation_error", f"files: {len(files)} files; a batch has at most {most}")
    batch = [(clean_name(file.filename), await file.read()) for file in files]
    answer = await worker.slots.run(lambda: _many(worker, loaded.detector, batch, request_id), weight=len(batch))
    request.state.log |= {"photos": answer.total, "failed": answer.failed}
    return answer


@feedback.post("/feedback")
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

    deadline = time.monotonic() + _FEEDBACK_SECONDS
    while (prediction := await _look(worker, keep)) is None and time.monotonic() < deadline:
        await anyio.sleep(0.3)
    if prediction is None:
        detail = f"no prediction {verdict.request_id} is known; the items of a batch have ids of their own"
        raise ApiError(404, "unknown_prediction", detail)
    metrics.FEEDBACK.labels(prediction, verdict.label).inc()
    return schemas.FeedbackResponse(
        prediction_id=verdict.request_id,
        prediction=prediction,
        label=verdict.label,
        agrees=prediction == verdict.label,
        request_id=request_id,
    )


@facts.get("/health")
async def health(worker: WorkerOf, request_id: RequestId) -> schemas.HealthResponse:
    """Readiness and details; answers 200 either way."""

    def work() -> schemas.HealthResponse:
        try:
            drifted = worker.model is not None and worker.model.drift.detected()
        except (SQLAlchemyError, OSError):
            drifted = False  # the log is unreadable: /drift says so
        return schemas.HealthResponse(
            status="healthy" if worker.model else "unhealthy",
            model_loaded=worker.model is not None,
            model_version=worker.model.detector.version if worker.model else "unknown",
            uptime_seconds=round(time.monotonic() - worker.started, 3),
            active_requests=round(metrics.total("aidetect_active_requests")),
            drift_detected=drifted,
            predictions_total=round(metrics.total("aidetect_predictions_total", status="success")),
            request_id=request_id,
        )

    return await worker.log_slot.run(work)


@facts.get("/model")
async def model(worker: WorkerOf, request_id: RequestId) -> schemas.ModelResponse:
    """The running model's card."""
    loaded = worker.loaded()
    detector, card = loaded.detector, loaded.detector.card
    release, note = await worker.side_slot.run(
        lambda: _release(worker.settings.model_path.with_name("card.json"), loaded.sha256)
    )
    return schemas.ModelResponse(
        name=card.get("name", "unknown"),
        version=detector.version,
        license=card.get("license", "unknown"),
        sha256=loaded.sha256,
        git_commit=release.get("git_commit"),
        released_at=release.get("released_at"),
        data=card.get("data", {}),
        metrics=release.get("metrics"),
        thresholds=schemas.Limits(
            alpha=detector.alpha,
            ai_prior=detector.ai_prior,
            flag=detector.thresholds.flag,
            clear=detector.thresholds.clear,
        ),
        model=card,
        note=note,
        request_id=request_id,
    )


@facts.get("/drift")
async def drift(worker: WorkerOf, request_id: RequestId) -> schemas.DriftResponse:
    """Is what we see now unlike what the model was calibrated on?"""
    loaded = worker.loaded()
    answer = await _look(worker, loaded.drift.look)
    return schemas.DriftResponse(**answer, request_id=request_id)


@facts.get("/metrics", response_class=PlainTextResponse)
async def prometheus(worker: WorkerOf) -> Response:
    """Prometheus metrics of all workers."""
    text = await worker.side_slot.run(metrics.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def _look(worker: Worker, work: Callable[[], T]) -> T:
    """Run what reads or writes the prediction log; 503 where that fails."""
    try:
        return await worker.log_slot.run(work)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("the prediction log does not answer: %s", " ".join(str(error).split())[:300])
        raise ApiError(503, "log_unavailable", "the prediction log does not answer; try again later") from error


def _one(
    worker: Worker, detector: Detector, data: bytes, request_id: str
) -> tuple[schemas.PredictResponse, Photo, Any]:
    with metrics.LATENCY.time():
        photo = prepare(data, detector, worker.settings)
        verdicts, scores = score([photo], [request_id], detector, worker.log)
    answer = schemas.PredictResponse(
        **verdicts[0].model_dump(),
        inference_time_ms=round(scores.inference_ms, 3),
        model_version=detector.version,
        request_id=request_id,
    )
    return answer, photo, scores.heatmap[0] + detector.card["head_bias"]


def _many(worker: Worker, detector: Detector, batch: list[tuple[str, bytes]], request_id: str) -> schemas.BatchResponse:
    metrics.BATCH_SIZE.observe(len(batch))
    items: list[schemas.BatchItem] = []
    good: list[tuple[schemas.BatchItem, Photo]] = []
    elapsed = 0.0
    with metrics.BATCH_LATENCY.time():
        for place, (name, data) in enumerate(batch):
            item = schemas.BatchItem(filename=name, request_id=f"{request_id}:{place}")
            items.append(item)
            try:
                good.append((item, prepare(data, detector, worker.settings)))
            except ImageError as error:
                item.error, item.error_type = error.message, error.error_type
        if good:
            identifiers = [item.request_id for item, _ in good]
            verdicts, scores = score([photo for _, photo in good], identifiers, detector, worker.log)
            elapsed = scores.inference_ms
            for (item, _), verdict in zip(good, verdicts, strict=True):
                for field in schemas.Verdict.model_fields:
                    setattr(item, field, getattr(verdict, field))
    return schemas.BatchResponse(
        results=items,
        total=len(items),
        successful=len(good),
        failed=len(items) - len(good),
        total_inference_time_ms=round(elapsed, 3),
        model_version=detector.version,
        request_id=request_id,
    )


def _release(path: Path, sha256: str) -> tuple[dict[str, Any], str | None]:
    """Return the release's card.json if it belongs to the model file with this digest, else why not."""
    try:
        release = json.loads(path.read_text(encoding="utf-8"))
        fits = release["sha256"] == sha256
    except FileNotFoundError:
        return {}, "there is no card.json beside the model file"
    except (OSError, ValueError, KeyError, TypeError):
        return {}, "card.json beside the model file is damaged"
    return (release, None) if fits else ({}, "card.json beside the model file is another file's")


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


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its model is loaded when it starts to serve, not here."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.worker = start_worker(settings)
        yield
        await anyio.to_thread.run_sync(app.state.worker.log.close)

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
    app.include_router(predictions)
    app.include_router(feedback)
    app.include_router(facts)

    @app.get("/", include_in_schema=False)
    async def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return page(app.title)

    app.openapi = lambda: schema(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app
