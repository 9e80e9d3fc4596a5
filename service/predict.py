"""From a file's bytes to an answer: what a worker's thread does for one request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from service import images, metrics, schemas
from service.credentials import Credential
from service.detector import Detector, Scores
from service.images import ImageError
from service.jpeg import jpeg_quality
from service.judgement import judge
from service.prediction_log import EMBEDDING_COMPONENTS, PredictionLog, now
from service.provenance import ai_markers
from service.settings import Settings
from service.worker import Worker


@dataclass(frozen=True)
class Photo:
    """What is kept of one decoded photo.

    Attributes:
        width: upright, in pixels.
        height: likewise.
        pixels: uint8 [H, W, 3], as the model takes it.
        jpeg_quality: of the file, 1 to 100; 0: no JPEG.
        credential: what its Content Credentials come to; None: it has none.
        ai_markers: what the file says about its making, unsigned.
    """

    width: int
    height: int
    pixels: images.Uint8
    jpeg_quality: int
    credential: Credential | None
    ai_markers: list[str]


def prepare(data: bytes, detector: Detector, worker: Worker) -> tuple[Photo, Image.Image]:
    """Decode one file.

    Returns:
        What the model needs, and the photo itself: mode RGB, upright, at its own size. That one takes 75 MB where it
        is large, so keep it no longer than needed.

    Raises:
        ImageError: whatever is wrong with the file.
    """
    try:
        image = _decode(data, worker.settings)
    except ImageError as error:
        metrics.INVALID.labels(error.error_type).inc()
        metrics.PREDICTIONS.labels("error", "none", "none").inc()
        raise
    metrics.IMAGE_SIZE.observe(len(data))
    pixels = detector.prepare(image)
    credential = worker.credentials.read(data)
    metrics.CREDENTIALS.labels(credential.status if credential else "none").inc()
    return Photo(image.width, image.height, pixels, jpeg_quality(data), credential, ai_markers(data)), image


def score(
    photos: Sequence[Photo], request_ids: Sequence[str], detector: Detector, predictions: PredictionLog
) -> tuple[list[schemas.Verdict], Scores]:
    """Score photos in one forward pass, and queue a log row for each.

    Args:
        photos: at least one.
        request_ids: one for each photo.
        detector: the model in service.
        predictions: the log.

    Returns:
        One verdict for each photo, in order, and the model's raw outputs.
    """
    pixels = np.stack([photo.pixels for photo in photos])
    scores = detector.score(pixels)
    statistics = images.statistics(pixels)
    verdicts = [_verdict(photo, scores, row, detector) for row, photo in enumerate(photos)]
    time = now()
    predictions.add(
        [
            {
                "request_id": request_ids[row],
                "time": time,
                "model_version": detector.version,
                "score": float(scores.probability[row]),
                "probability": verdict.probability,
                "prediction": verdict.prediction,
                "decision": verdict.decision,
                "in_domain": verdict.in_domain,
                "distance": float(scores.distance[row]),
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
        verdicts, scores = score([photo], [request_id], detector, worker.log)
    answer = schemas.PredictResponse(
        **verdicts[0].model_dump(),
        inference_time_ms=round(scores.inference_ms, 3),
        model_version=detector.version,
        request_id=request_id,
    )
    return answer, image, scores.heatmap[0] + detector.card["head_bias"]


def predict_many(
    batch: Sequence[tuple[str, bytes]], request_id: str, detector: Detector, worker: Worker
) -> schemas.BatchResponse:
    """Answer for several files, each a name and its bytes; a bad one is an error on its own item."""
    metrics.BATCH_SIZE.observe(len(batch))
    items: list[schemas.BatchItem] = []
    good: list[tuple[schemas.BatchItem, Photo]] = []
    elapsed = 0.0
    with metrics.BATCH_LATENCY.time():
        for place, (name, data) in enumerate(batch):
            item = schemas.BatchItem(filename=name, request_id=f"{request_id}:{place}")
            items.append(item)
            try:
                good.append((item, prepare(data, detector, worker)[0]))
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


def _decode(data: bytes, settings: Settings) -> Image.Image:
    if len(data) > settings.max_file_bytes:
        raise ImageError("file_too_large", 413, f"the file is larger than {settings.max_file_bytes} bytes")
    return images.decode(data, max_pixels=settings.max_pixels, min_side=settings.min_side)


def _verdict(photo: Photo, scores: Scores, row: int, detector: Detector) -> schemas.Verdict:
    judged = judge(detector, scores, row, width=photo.width, height=photo.height, credential=photo.credential)
    verdict = schemas.Verdict(
        prediction=judged.prediction,
        probability=judged.probability,
        confidence=judged.confidence,
        decision=judged.decision,
        decided_by=judged.decided_by,
        in_domain=judged.domain.inside,
        domain=schemas.Domain(embedding=judged.domain.embedding, geometry=judged.domain.geometry),
        provenance=_provenance(photo),
    )
    metrics.PREDICTIONS.labels("success", verdict.prediction, verdict.confidence).inc()
    metrics.DECISIONS.labels(verdict.decision, str(verdict.in_domain).lower()).inc()
    metrics.PROBABILITY.observe(verdict.probability)
    return verdict


def _provenance(photo: Photo) -> schemas.Provenance:
    found = photo.credential
    trust: Literal["verified", "claimed", "none"] = "claimed" if photo.ai_markers or found else "none"
    if found is not None and found.status == "valid":
        trust = "verified"
    c2pa = schemas.Credential.model_validate(found, from_attributes=True) if found else None
    return schemas.Provenance(c2pa=c2pa, ai_markers=photo.ai_markers, trust=trust)


def clean_name(name: str | None) -> str:
    """Return a client's file name fit to be echoed: no folders, no control characters, at most 255 long."""
    base = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in base if character.isprintable())[:255] or "unnamed"
