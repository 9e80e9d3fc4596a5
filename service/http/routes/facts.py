"""For operators: health, the model's card, metrics."""

import json
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import metrics, schemas
from service.http.dependencies import RequestId, WorkerOf
from service.http.errors import ApiError
from service.http.openapi import errors
from service.http.state import Worker
from service.models.store import CARD

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
        lambda: (_release(worker.settings.model_path.with_name(CARD), loaded.sha256), _plots(worker))
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
        thresholds=schemas.Thresholds(
            alpha=detector.alpha,
            ai_prior=detector.ai_prior,
            flag=detector.thresholds.flag,
            clear=detector.thresholds.clear,
        ),
        model=card,
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
