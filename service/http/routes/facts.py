"""For operators: health, the model's card, metrics."""

import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import metrics, schemas
from service.http.errors import ApiError
from service.http.openapi import errors
from service.http.routes.common import RequestId, WorkerOf
from service.http.state import Worker
from service.models.card import CARD, ModelError, Release, read_card

router = APIRouter(responses=errors(503), tags=["facts"])
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/health")
async def health(worker: WorkerOf, request_id: RequestId) -> schemas.HealthResponse:
    """Readiness and details; answers 200 either way."""

    model = worker.served.model

    def work() -> schemas.HealthResponse:
        return schemas.HealthResponse(
            status="healthy" if model else "unhealthy",
            model_loaded=model is not None,
            model_version=model.detector.version if model else "unknown",
            uptime_seconds=round(time.monotonic() - worker.started, 3),
            active_requests=round(metrics.total("aidetect_active_requests")),
            drift_detected=metrics.total("aidetect_drift_detected") > 0,
            predictions_total=round(metrics.total("aidetect_predictions_total", status="success")),
            request_id=request_id,
        )

    return await worker.side_slot.run(work)


@router.get("/model")
async def model(worker: WorkerOf, request_id: RequestId) -> schemas.ModelResponse:
    """The running model's card."""
    loaded = worker.loaded()
    detector, card = loaded.detector, loaded.detector.card
    (release, note), plots = await worker.side_slot.run(
        lambda: (_release(worker.settings.model_path.parent, loaded.sha256), _plots(worker))
    )
    return schemas.ModelResponse(
        name=card.name,
        version=detector.version,
        license=card.license,
        sha256=loaded.sha256,
        git_commit=release.git_commit if release else None,
        released_at=release.released_at if release else None,
        data=card.data.model_dump(),
        metrics=release.metrics if release else None,
        thresholds=schemas.Thresholds(
            alpha=detector.alpha,
            ai_prior=detector.ai_prior,
            flag=detector.thresholds.flag,
            clear=detector.thresholds.clear,
        ),
        model=card.of_file.model_dump(mode="json", exclude_none=True),
        plots=[f"/model/plots/{name}" for name in sorted(plots)] if release else [],
        note=worker.served.refused or note,
        request_id=request_id,
    )


@router.get("/model/plots/{name}", response_class=Response, responses=errors(404, 422) | _PNG)
async def plot(worker: WorkerOf, name: str) -> Response:
    """A picture of the release's figures; `/model` lists them."""

    def work() -> bytes:
        path = _plots(worker).get(name)  # a look-up, so that no name leads out of the folder
        if path is None:
            raise ApiError(404, "not_found", f"there is no plot {name[:100]}: /model lists them")
        return path.read_bytes()

    return Response(await worker.side_slot.run(work), media_type="image/png")


@router.get("/metrics", response_class=PlainTextResponse)
async def prometheus(worker: WorkerOf) -> Response:
    """Prometheus metrics of all workers."""
    text = await worker.side_slot.run(metrics.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _plots(worker: Worker) -> dict[str, Path]:
    return {path.name: path for path in worker.settings.model_path.with_name("plots").glob("*.png")}


def _release(folder: Path, sha256: str) -> tuple[Release | None, str | None]:
    """Return what card.json says of the release if it belongs to the model file with this digest, else why not."""
    if not (folder / CARD).exists():
        return None, "there is no card.json beside the model file"
    try:
        card = read_card(folder)
    except ModelError:
        return None, "card.json beside the model file is damaged"
    return (
        (card.release, None) if card.sha256 == sha256 else (None, "card.json beside the model file is another file's")
    )
