"""The path of a photo, from a file's bytes to an answer, as a worker's thread takes it.

Its steps, in this order: decode the file, read what it says about its making, choose the model that knows photos of its
size, prepare the pixels, score them, decide, and log a row. A listing is a batch whose answers are put together.
"""

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from service import metrics, schemas
from service.http.state import AppState
from service.log.tables import EMBEDDING_COMPONENTS, now
from service.models import images
from service.models.choice import choose
from service.models.detector import Scores
from service.models.heatmap import overlay
from service.models.listing import Judge, Member, distinct, judge_listing
from service.models.shop import Decided, InForce
from service.photo import ImageError, Photo, decode, marks
from service.photo.provenance import Provenance, provenance

logger = logging.getLogger(__name__)

Models = Mapping[str, InForce]

OUR_FAULT = "internal_error"  # the short name of what went wrong here, and not in the file
_OUR_FAULT = "the photo could not be processed; the fault is the service's, and its log says what it was"


@dataclass(frozen=True)
class Prepared:
    """What is kept of one decoded photo.

    Attributes:
        by: the model that answers, and its thresholds.
        pixels: as that model takes them: uint8 [H, W, 3], or [V, H, W, 3].
        width: of the upright photo, in pixels.
        height: likewise.
        jpeg_quality: of the file, 1 to 100; 0: no JPEG.
        provenance: what the file says about its making.
        notes: what was passed over in the file, in words.
        listing: the id of the listing that it came with; None: it came alone or in a batch.
    """

    by: InForce
    pixels: images.Uint8
    width: int
    height: int
    jpeg_quality: int
    provenance: Provenance
    notes: list[str]
    listing: str | None = None


def predict_one(data: bytes, request_id: str, models: Models, state: AppState) -> schemas.PredictResponse:
    """Answer for one file.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    return _predict(data, request_id, models, state)[0]


def explain_one(data: bytes, request_id: str, models: Models, state: AppState) -> schemas.ExplainResponse:
    """Answer for one file, and say why; errors as `predict_one`."""
    answer, image, by, scores = _predict(data, request_id, models, state)
    picture = base64.b64encode(overlay(image, *by.detector.explain(image, scores))).decode()
    return schemas.ExplainResponse(**answer.model_dump(), heatmap_base64=picture)


def _predict(
    data: bytes, request_id: str, models: Models, state: AppState
) -> tuple[schemas.PredictResponse, Image.Image, InForce, Scores]:
    """Return the answer for one file; the photo, upright, mode RGB, at its own size; its model, and what that said."""
    with metrics.LATENCY.time():
        photo, image = prepare(data, models, state)
        (verdict,), scores = score([photo], [request_id], state)
    answer = schemas.PredictResponse(
        **dict(verdict), inference_time_ms=round(scores.inference_ms, 3), request_id=request_id
    )
    return answer, image, photo.by, scores


def predict_many(
    batch: Sequence[tuple[str, bytes]], request_id: str, models: Models, state: AppState
) -> schemas.BatchResponse:
    """Answer for several files, each a name and its bytes; a bad one is an error on its own item.

    Photos of one model are scored in one forward pass.
    """
    return _predict_many(batch, request_id, models, state)[0]


def predict_listing(
    batch: Sequence[tuple[str, bytes]], listing: str, request_id: str, models: Models, state: AppState
) -> schemas.ListingResponse:
    """Answer for all photos of one listing: for each as `predict_many` does, and for the listing.

    A photo that cannot be read does not count, and one that is there already does not count again: one with the same
    bytes, or the same pixels as its model takes them.

    Args:
        batch: the photos, each a name and its bytes.
        listing: its id, which the log keeps; empty: the request's id.
        request_id: of the request.
        models: in service.
        state: its log and its settings.
    """
    listing = listing or request_id
    answer, prepared = _predict_many(batch, request_id, models, state, listing)
    judges: dict[int, Judge] = {}
    members: list[tuple[object, Member]] = []
    for place, item in enumerate(answer.results):
        if item.error is not None:
            continue
        photo, detector = prepared[place], prepared[place].by.detector
        judge = Judge(state.store.rule(detector), detector.thresholds, detector.ai_prior)
        judge = judges.setdefault(id(detector), judge)
        member = Member(place, item.probability, item.in_domain, item.decision, item.decided_by, judge)
        members.append(((detector.name, hashlib.sha256(photo.pixels.tobytes()).digest()), member))
    photos, repeated = distinct(members)
    verdict = judge_listing(photos, state.settings.alpha)
    metrics.LISTINGS.labels(verdict.decision).inc()
    said = schemas.Listing(**verdict.model_dump(), id=listing, repeated=repeated)
    return schemas.ListingResponse(**dict(answer), listing=said)


def _predict_many(
    batch: Sequence[tuple[str, bytes]], request_id: str, models: Models, state: AppState, listing: str | None = None
) -> tuple[schemas.BatchResponse, dict[int, Prepared]]:
    """Return the answers for several files, and by their places the photos that could be read."""
    metrics.BATCH_SIZE.observe(len(batch))
    ids = [f"{request_id}:{place}" for place in range(len(batch))]
    fields: dict[int, dict[str, Any]] = {}  # of each item, by its place: a verdict's, or an error's
    groups: dict[str, dict[int, Prepared]] = {}
    elapsed = 0.0
    with metrics.BATCH_LATENCY.time():
        for place, (_, data) in enumerate(batch):
            try:
                photo = replace(prepare(data, models, state)[0], listing=listing)
                groups.setdefault(photo.by.detector.name, {})[place] = photo
            except ImageError as error:
                fields[place] = {"error": error.message, "error_type": error.error_type}
            except Exception:
                fields[place] = _failed(ids[place])
        for group in groups.values():
            answered, milliseconds = _score_group(group, ids, state)
            fields |= answered
            elapsed += milliseconds
    failed = sum("error" in found for found in fields.values())
    first = next(iter(models.values()))
    answer = schemas.BatchResponse(
        results=[
            schemas.BatchItem(filename=name, request_id=ids[place], **fields[place])
            for place, (name, _) in enumerate(batch)
        ],
        total=len(batch),
        successful=len(batch) - failed,
        failed=failed,
        total_inference_time_ms=round(elapsed, 3),
        model=first.detector.name,
        model_version=first.detector.version,
        request_id=request_id,
    )
    return answer, {place: photo for group in groups.values() for place, photo in group.items()}


def _score_group(
    group: Mapping[int, Prepared], ids: Sequence[str], state: AppState
) -> tuple[dict[int, dict[str, Any]], float]:
    """Score photos of one model in one forward pass, or, where that fails, each alone.

    Returns:
        The fields of each item by its place, and the milliseconds spent in the model.
    """
    try:
        verdicts, scores = score(list(group.values()), [ids[place] for place in group], state)
    except Exception:
        if len(group) > 1:
            alone = [_score_group({place: photo}, ids, state) for place, photo in group.items()]
            return {place: found for fields, _ in alone for place, found in fields.items()}, sum(ms for _, ms in alone)
        (place,) = group
        _count_refused(OUR_FAULT)
        return {place: _failed(ids[place])}, 0.0
    return {place: dict(verdict) for place, verdict in zip(group, verdicts, strict=True)}, scores.inference_ms


def prepare(data: bytes, models: Models, state: AppState) -> tuple[Prepared, Image.Image]:
    """Decode one file, and make of it what the model that knows photos of its size takes.

    Returns:
        What the model needs, and the photo itself: mode RGB, upright, at its own size. That one takes 75 MB where it
        is large, so keep it no longer than needed.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    try:
        photo, said = _read(data, state)
        width, height = photo.image.size
        by = models[choose({name: model.detector.card for name, model in models.items()}, width, height)]
        pixels = by.detector.prepare(photo.image)
    except Exception as error:
        _count_refused(error.error_type if isinstance(error, ImageError) else OUR_FAULT)
        raise
    return Prepared(by, pixels, width, height, photo.jpeg_quality, said, list(photo.notes)), photo.image


def _read(data: bytes, state: AppState) -> tuple[Photo, Provenance]:
    """Decode a file, and read what it says about its making."""
    if len(data) > state.settings.max_file_bytes:
        raise ImageError("file_too_large", 413, f"the file is larger than {state.settings.max_file_bytes} bytes")
    photo = decode(data, max_pixels=state.settings.max_pixels, min_side=state.settings.min_side)
    metrics.IMAGE_SIZE.observe(len(data))
    credential = state.credentials.read(data, kind=photo.format, xmp=photo.metadata.xmp)
    metrics.CREDENTIALS.labels(credential.status if credential else "none").inc()
    return photo, provenance(credential, *marks.read(photo.metadata))


def score(photos: Sequence[Prepared], request_ids: Sequence[str], state: AppState) -> tuple[list[Decided], Scores]:
    """Score photos in one forward pass, decide, and queue a log row for each.

    Args:
        photos: at least one, all of the same model.
        request_ids: one for each photo.
        state: its log and its settings.

    Returns:
        One verdict for each photo, in order, and the model's scores.
    """
    by = photos[0].by
    pixels = np.stack([photo.pixels for photo in photos])
    scores = by.detector.score(pixels)
    verdicts = [
        by.judge(
            scores,
            row,
            width=photo.width,
            height=photo.height,
            provenance=photo.provenance,
            notes=photo.notes,
            review_marked=state.settings.ai_marks == "review",
        )
        for row, photo in enumerate(photos)
    ]
    for verdict in verdicts:
        metrics.PREDICTIONS.labels("success", verdict.prediction, verdict.confidence, verdict.model).inc()
        metrics.DECISIONS.labels(verdict.decision, str(verdict.in_domain).lower(), verdict.model).inc()
        metrics.PROBABILITY.labels(verdict.model).observe(verdict.probability)
    state.log.add(_log_rows(photos, request_ids, verdicts, scores, images.statistics(pixels)))
    return verdicts, scores


def _log_rows(
    photos: Sequence[Prepared],
    request_ids: Sequence[str],
    verdicts: Sequence[Decided],
    scores: Scores,
    statistics: Mapping[str, images.Float32],
) -> list[dict[str, Any]]:
    """Return the rows of the prediction log."""
    time = now()
    return [
        {
            "request_id": request_ids[row],
            "time": time,
            "model": verdict.model,
            "model_version": verdict.model_version,
            "score": float(scores.probability[row]),
            "probability": verdict.probability,
            "prediction": verdict.prediction,
            "decision": verdict.decision,
            "in_domain": verdict.in_domain,
            "ood_score": float(scores.ood_score[row]),
            **{name: float(values[row]) for name, values in statistics.items()},
            "embedding": scores.embedding[row, :EMBEDDING_COMPONENTS].tolist(),
            "width": photo.width,
            "height": photo.height,
            "jpeg_quality": photo.jpeg_quality,
            "credential": photo.provenance.c2pa.status if photo.provenance.c2pa else None,
            "ai_prior": photo.by.detector.ai_prior,
            "flag_threshold": photo.by.detector.thresholds.flag,
            "clear_threshold": photo.by.detector.thresholds.clear,
            "calibration": photo.by.calibration,
            "shop_group": photo.by.group,
            "listing": photo.listing,
        }
        for row, (photo, verdict) in enumerate(zip(photos, verdicts, strict=True))
    ]


def _failed(request_id: str) -> dict[str, Any]:
    """Log the exception at hand, and return the fields of an item that it makes an error."""
    logger.exception("photo %s could not be processed", request_id)
    return {"error": _OUR_FAULT, "error_type": OUR_FAULT}


def _count_refused(error_type: str) -> None:
    metrics.INVALID.labels(error_type).inc()
    metrics.PREDICTIONS.labels("error", "none", "none", "none").inc()


def clean_name(name: str | None) -> str:
    """Return a client's file name fit to be echoed: no folders, no control characters, at most 255 long."""
    base = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in base if character.isprintable())[:255] or "unnamed"
