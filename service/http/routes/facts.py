"""For operators: health, the model's card, metrics."""

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service import metrics, schemas
from service.http.dependencies import RequestId, StateOf
from service.http.errors import ApiError
from service.http.openapi import errors
from service.models.card import PLOTS
from service.models.detector import Detector
from service.models.shop import InForce, ShopCalibration

router = APIRouter(responses=errors(503), tags=["facts"])
_FIRST = "without it: the first in alphabetical order"
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/health")
async def health(state: StateOf, request_id: RequestId) -> schemas.HealthResponse:
    """Readiness and details; answers 200 either way."""

    versions = {name: detector.version for name, detector in state.store.models.items()}

    def work() -> schemas.HealthResponse:
        return schemas.HealthResponse(
            status="healthy" if versions else "unhealthy",
            model_loaded=bool(versions),
            model_version=next(iter(versions.values()), "unknown"),
            models=versions,
            uptime_seconds=round(time.monotonic() - state.started, 3),
            active_requests=round(metrics.total("aidetect_active_requests")),
            drift_detected=metrics.total("aidetect_drift_detected") > 0,
            predictions_total=round(metrics.total("aidetect_predictions_total", status="success")),
            request_id=request_id,
        )

    return await state.side_queue.run(work)


@router.get("/model")
async def model(state: StateOf, request_id: RequestId) -> schemas.ModelResponse:
    """The cards of the models in service."""
    models, shop, refused = state.in_force(), state.store.shop, state.store.refused
    found = await state.side_queue.run(lambda: [_facts(by, shop, refused.get(name)) for name, by in models.items()])
    return schemas.ModelResponse(**dict(found[0]), models=found, refused=dict(refused), request_id=request_id)


def _facts(by: InForce, shop: ShopCalibration | None, refused: str | None) -> schemas.ModelFacts:
    detector = by.detector
    card, release, note = detector.card, detector.card.release, refused
    if release is None and note is None:
        note = "it is a candidate, and no release"
        if not detector.path.is_dir():
            note = "there is no card.json beside the model file"
    return schemas.ModelFacts(
        name=card.name,
        version=card.version,
        license=card.license,
        sha256=detector.sha256,
        git_commit=release.git_commit if release else None,
        released_at=release.released_at if release else None,
        data=card.data.model_dump(),
        metrics=release.metrics if release else None,
        thresholds=schemas.Thresholds(
            alpha=detector.alpha,
            ai_prior=detector.ai_prior,
            flag=detector.thresholds.flag,
            clear=detector.thresholds.clear,
            calibration=by.calibration,
            shop=_shop(shop, detector.alpha) if shop is not None and by.calibration == "shop" else None,
        ),
        heatmap=card.explains_by.kind,
        model=card.of_file.model_dump(mode="json", exclude_none=True),
        plots=[f"/model/plots/{name}?model={card.name}" for name in sorted(_plots(detector))],
        note=note,
    )


def _shop(shop: ShopCalibration, alpha: float) -> schemas.ShopFacts:
    def of(group: str | None) -> dict[str, Any]:
        held = shop.promises_at(group, alpha)
        return held.promises[alpha].model_dump() | {"photos": held.photos, "products": held.products}

    return schemas.ShopFacts(
        **of(None),
        made_at=shop.made_at,
        recall=shop.recall[alpha].of_all,
        groups={name: schemas.GroupFacts(**of(name)) for name in shop.group_names},
        out_of_domain=shop.out_of_domain,
    )


@router.get("/model/plots/{name}", response_class=Response, responses=errors(404, 422) | _PNG)
async def plot(
    state: StateOf,
    name: str,
    model: Annotated[
        str | None, Query(max_length=40, description="without it: the first in alphabetical order")
    ] = None,
) -> Response:
    """A picture of the release's figures; `/model` lists them."""

    def work() -> bytes:
        # Look-ups, so that no name leads out of the folder.
        models = state.models()
        detector = models.get(model or next(iter(models)))
        path = _plots(detector).get(name) if detector else None
        if path is None:
            raise ApiError(404, "not_found", f"there is no plot {name[:100]}: /model lists them")
        return path.read_bytes()

    return Response(await state.side_queue.run(work), media_type="image/png")


@router.get("/metrics", response_class=PlainTextResponse)
async def prometheus(state: StateOf) -> Response:
    """Prometheus metrics of all workers."""
    text = await state.side_queue.run(metrics.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _plots(detector: Detector) -> dict[str, Path]:
    """Return the pictures of a release's figures by their file names."""
    return {path.name: path for path in (detector.path / PLOTS).glob("*.png")}
