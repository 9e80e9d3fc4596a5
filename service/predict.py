"""From a file's bytes to an answer: what a worker's thread does for one request."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from service import metrics, schemas
from service.http.state import Worker
from service.log.tables import EMBEDDING_COMPONENTS, now
from service.models import images
from service.models.detector import Detector, Scores
from service.models.judgement import judge
from service.photo import ImageError, Photo, decode, marks
from service.photo.credentials import Credential
from service.photo.marks import Mark
from service.settings import Settings

logger = logging.getLogger(__name__)

OUR_FAULT = "internal_error"  # the short name of what went wrong here, and not in the file
_OUR_FAULT = "the photo could not be processed; the fault is the service's, and its log says what it was"


@dataclass(frozen=True)
class Prepared:
    """What is kept of one decoded photo.

    Attributes:
        width: upright, in pixels.
        height: likewise.
        pixels: uint8 [H, W, 3], as the model takes it.
        jpeg_quality: of the file, 1 to 100; 0: no JPEG.
        credential: what its Content Credentials come to; None: it has none.
        marks: what the file says about its making, unsigned.
        ai_markers: the same for clients that know no `marks`.
        notes: what was passed over in the file, in words.
    """

    width: int
    height: int
    pixels: images.Uint8
    jpeg_quality: int
    credential: Credential | None
    marks: list[Mark]
    ai_markers: list[str]
    notes: list[str]


def prepare(data: bytes, detector: Detector, worker: Worker) -> tuple[Prepared, Image.Image]:
    """Decode one file.

    Returns:
        What the model needs, and the photo itself: mode RGB, upright, at its own size. That one takes 75 MB where it
        is large, so keep it no longer than needed.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    try:
        return _prepare(data, detector, worker)
    except ImageError as error:
        _count_refused(error.error_type)
        raise
    except Exception:
        _count_refused(OUR_FAULT)
        raise


def score(
    photos: Sequence[Prepared], request_ids: Sequence[str], detector: Detector, worker: Worker
) -> tuple[list[schemas.Verdict], Scores]:
    """Score photos in one forward pass, and queue a log row for each.

    Args:
        photos: at least one.
        request_ids: one for each photo.
        detector: the model in service.
        worker: its log and its settings.

    Returns:
        One verdict for each photo, in order, and the model's raw outputs.
    """
    pixels = np.stack([photo.pixels for photo in photos])
    scores = detector.score(pixels)
    statistics = images.statistics(pixels)
    review_marked = worker.settings.ai_marks == "review"
    verdicts = [_verdict(photo, scores, row, detector, review_marked) for row, photo in enumerate(photos)]
    for verdict in verdicts:
        metrics.PREDICTIONS.labels("success", verdict.prediction, verdict.confidence).inc()
        metrics.DECISIONS.labels(verdict.decision, str(verdict.in_domain).lower()).inc()
        metrics.PROBABILITY.observe(verdict.probability)
    time = now()
    worker.log.add(
        [
            {
                "request_id": request_ids[row],
                "time": time,
                "model": detector.card.name,
                "model_version": detector.version,
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
                "credential": photo.credential.status if photo.credential else None,
                "ai_prior": detector.ai_prior,
                "flag_threshold": detector.thresholds.flag,
                "clear_threshold": detector.thresholds.clear,
            }
            for row, (photo, verdict) in enumerate(zip(photos, verdicts, strict=True))
        ]
    )
    return verdicts, scores


def predict_one(
    data: bytes, request_id: str, detector: Detector, worker: Worker
) -> tuple[schemas.PredictResponse, Image.Image, images.Float32]:
    """Answer for one file.

    Returns:
        The answer, the photo as `prepare` gives it, and its heat map: float32 [h, w], in logits.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    with metrics.LATENCY.time():
        photo, image = prepare(data, detector, worker)
        verdicts, scores = score([photo], [request_id], detector, worker)
    answer = schemas.PredictResponse(
        **verdicts[0].model_dump(),
        inference_time_ms=round(scores.inference_ms, 3),
        model_version=detector.version,
        request_id=request_id,
    )
    return answer, image, scores.heatmap[0] + detector.card.head_bias


def predict_many(
    batch: Sequence[tuple[str, bytes]], request_id: str, detector: Detector, worker: Worker
) -> schemas.BatchResponse:
    """Answer for several files, each a name and its bytes; a bad one is an error on its own item."""
    metrics.BATCH_SIZE.observe(len(batch))
    items = [
        schemas.BatchItem(filename=name, request_id=f"{request_id}:{place}") for place, (name, _) in enumerate(batch)
    ]
    with metrics.BATCH_LATENCY.time():
        good: list[tuple[schemas.BatchItem, Prepared]] = []
        for item, (_, data) in zip(items, batch, strict=True):
            try:
                good.append((item, prepare(data, detector, worker)[0]))
            except ImageError as error:
                item.error, item.error_type = error.message, error.error_type
            except Exception:
                _failed(item)
        elapsed = _answer(good, detector, worker)
    failed = sum(item.error is not None for item in items)
    return schemas.BatchResponse(
        results=items,
        total=len(items),
        successful=len(items) - failed,
        failed=failed,
        total_inference_time_ms=round(elapsed, 3),
        model_version=detector.version,
        request_id=request_id,
    )


def _answer(good: Sequence[tuple[schemas.BatchItem, Prepared]], detector: Detector, worker: Worker) -> float:
    """Fill in the items' answers in one forward pass, or, where that fails, each alone; return the milliseconds."""
    if not good:
        return 0.0
    try:
        verdicts, scores = score([photo for _, photo in good], [item.request_id for item, _ in good], detector, worker)
    except Exception:
        if len(good) > 1:
            return sum(_answer([one], detector, worker) for one in good)
        _count_refused(OUR_FAULT)
        _failed(good[0][0])
        return 0.0
    for (item, _), verdict in zip(good, verdicts, strict=True):
        for field in schemas.Verdict.model_fields:
            setattr(item, field, getattr(verdict, field))
    return scores.inference_ms


def _failed(item: schemas.BatchItem) -> None:
    """Note the exception at hand as the item's error; the others of the batch go on."""
    logger.exception("photo %s could not be processed", item.request_id)
    item.error, item.error_type = _OUR_FAULT, OUR_FAULT


def _count_refused(error_type: str) -> None:
    metrics.INVALID.labels(error_type).inc()
    metrics.PREDICTIONS.labels("error", "none", "none").inc()


def _prepare(data: bytes, detector: Detector, worker: Worker) -> tuple[Prepared, Image.Image]:
    photo = _decode(data, worker.settings)
    metrics.IMAGE_SIZE.observe(len(data))
    credential = worker.credentials.read(data, kind=photo.format, xmp=photo.metadata.xmp)
    metrics.CREDENTIALS.labels(credential.status if credential else "none").inc()
    found, markers = marks.read(photo.metadata)
    prepared = Prepared(
        width=photo.image.width,
        height=photo.image.height,
        pixels=detector.prepare(photo.image),
        jpeg_quality=photo.jpeg_quality,
        credential=credential,
        marks=found,
        ai_markers=markers,
        notes=list(photo.notes),
    )
    return prepared, photo.image


def _decode(data: bytes, settings: Settings) -> Photo:
    if len(data) > settings.max_file_bytes:
        raise ImageError("file_too_large", 413, f"the file is larger than {settings.max_file_bytes} bytes")
    return decode(data, max_pixels=settings.max_pixels, min_side=settings.min_side)


def _verdict(photo: Prepared, scores: Scores, row: int, detector: Detector, review_marked: bool) -> schemas.Verdict:
    judged = judge(
        detector,
        scores,
        row,
        width=photo.width,
        height=photo.height,
        credential=photo.credential,
        marked=review_marked and any(mark.is_ai for mark in photo.marks),
    )
    return schemas.Verdict(
        prediction=judged.prediction,
        probability=judged.probability,
        confidence=judged.confidence,
        decision=judged.decision,
        decided_by=judged.decided_by,
        in_domain=judged.domain.inside,
        domain=schemas.Domain(embedding=judged.domain.embedding, geometry=judged.domain.geometry),
        provenance=_provenance(photo),
        notes=photo.notes,
    )


def _provenance(photo: Prepared) -> schemas.Provenance:
    found = photo.credential
    trust: Literal["verified", "claimed", "none"] = "claimed" if photo.marks or found else "none"
    if found is not None and found.status == "valid":
        trust = "verified"
    return schemas.Provenance(
        c2pa=schemas.Credential.model_validate(found, from_attributes=True) if found else None,
        marks=[schemas.Mark.model_validate(mark, from_attributes=True) for mark in photo.marks],
        ai_markers=photo.ai_markers,
        trust=trust,
    )


def clean_name(name: str | None) -> str:
    """Return a client's file name fit to be echoed: no folders, no control characters, at most 255 long."""
    base = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in base if character.isprintable())[:255] or "unnamed"
