"""Pictures that no detector of photos should judge, and what this one says: plain colours, noise, text, drawings."""

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from service.models import decision
from service.models.detector import Detector
from service.photo import ImageError, decode
from stages.common import StageError
from stages.data.sources import BROKEN_ARCHIVE, members
from stages.evaluation.types import Data
from stages.exporting.ood_pictures import KINDS, as_jpeg
from stages.exporting.ood_statistics import whitened

Float32 = npt.NDArray[np.float32]

_LARGE = (640, 480)


class Evaluator:
    """How pictures from outside the domain are answered."""

    name = "ood"

    def __call__(self, detector: Detector, data: Data) -> dict[str, Any]:
        """Return kind -> way -> figures."""
        count, photos = data.params.ood_images, data.large_photos
        embedding = data.scores.embedding
        return ood_figures(detector, embedding, count, seed=data.seed, alpha=data.alpha, large_photos=photos)


def ood_figures(
    detector: Detector, embedding: Float32, count: int, *, seed: int, alpha: float, large_photos: Path | None = None
) -> dict[str, Any]:
    """Return how pictures from outside the known domain are answered (OOD: out of distribution).

    Each kind comes in three ways: as large as the known photos, where the pixels alone can tell; the same as a JPEG of
    quality 75, which blurs what gives drawings away; and 640 x 480, where the geometry tells too (unless the model
    knows photos of that size).

    Args:
        detector: the model.
        embedding: float32 [N, D], those of photos from inside, N well above D: what they alone could tell is
            `embedding_alone_in_domain`; the border leaves as many of them out as the card promises.
        count: pictures of each kind and way.
        seed: what they are drawn from; a release takes another one than the evaluations before it.
        alpha: one of the card's levels.
        large_photos: a folder, zip or tar of photos, `real/` and `ai_generated/` in it or not; all are answered.
    """
    geometry = detector.card.domain.geometry
    known = (geometry.max_width, geometry.max_height)
    alone = _Alone(embedding, detector.card.domain.out_share or 0.0)
    result: dict[str, Any] = {}
    for kind, draw in KINDS.items():
        result[kind] = {}
        for name, size in (("known_size", known), ("known_size_jpeg_75", known), ("large", _LARGE)):
            rng = np.random.default_rng(seed)
            pictures = (draw(rng, *size) for _ in range(count))
            if name.endswith("jpeg_75"):
                pictures = (as_jpeg(picture, 75) for picture in pictures)
            result[kind][name] = _answers(detector, pictures, alone, alpha, f"{kind}, {name}")
    if large_photos is not None:
        result["large_photos"] = _answers(detector, photos_of(large_photos), alone, alpha, "large photos")
    return result


class _Alone:
    """The domain by the embedding alone, for comparison."""

    def __init__(self, embedding: Float32, out_share: float) -> None:
        self._centre, self._whitening = whitened(embedding.astype(np.float64))
        self._border = float(np.quantile(self._distance(embedding), 1 - out_share))

    def __call__(self, embedding: Float32) -> list[bool]:
        inside: list[bool] = (self._distance(embedding) <= self._border).tolist()
        return inside

    def _distance(self, embedding: Float32) -> npt.NDArray[np.float64]:
        distance: npt.NDArray[np.float64] = np.linalg.norm((embedding - self._centre) @ self._whitening, axis=1)
        return distance


def large_answers(detector: Detector, path: Path, alpha: float = 0.01) -> dict[str, Any]:
    """Return how photos as shops have them are answered, as `ood_figures` does, but for `embedding_alone_in_domain`."""
    return _answers(detector, photos_of(path), None, alpha, "large photos")


def _answers(
    detector: Detector,
    pictures: Iterable[Image.Image],
    alone: Callable[[Float32], list[bool]] | None,
    alpha: float,
    what: str,
) -> dict[str, Any]:
    limits = decision.thresholds(detector.card, alpha, detector.card.calibration.prior_ai)
    bar = iter(tqdm(pictures, desc=what, mininterval=2))
    found: list[tuple[bool, bool, str, float]] = []
    alone_inside: list[bool] = []
    while batch := list(islice(bar, 64)):
        scores = detector.score(np.stack([detector.prepare(picture) for picture in batch]))
        if alone is not None:
            alone_inside += alone(scores.embedding)
        for picture, probability, ood_score in zip(batch, scores.probability, scores.ood_score, strict=True):
            known = decision.domain(detector.card, float(ood_score), *picture.size)
            made = decision.decide(float(probability), known.inside, limits)
            found.append((known.embedding, known.geometry, made, float(probability)))
    embedding, geometry, decisions, probability = (np.array(column) for column in zip(*found, strict=True))
    return {
        "images": len(found),
        **({"embedding_alone_in_domain": float(np.mean(alone_inside))} if alone is not None else {}),
        "embedding_in_domain": float(embedding.mean()),
        "geometry_in_domain": float(geometry.mean()),
        "in_domain": float((embedding & geometry).mean()),
        "called_ai_generated": float((probability >= 0.5).mean()),
        "flagged": int((decisions == "flag").sum()),
        "cleared": int((decisions == "clear").sum()),
    }


def large_photos() -> Path | None:
    """Return the folder, zip or tar of photos as shops have them that LARGE_PHOTOS names, if it is set.

    Raises:
        StageError: it cannot be read to its end, or holds no photo.
    """
    if not (named := os.environ.get("LARGE_PHOTOS")):
        return None
    path = Path(named).expanduser()
    try:
        count = sum(1 for _ in photos_of(path))
    except (OSError, RuntimeError, *BROKEN_ARCHIVE) as error:
        reason = " ".join(str(error).split())[:200]
        raise StageError(f"LARGE_PHOTOS={named} is not a folder, zip or tar that can be read: {reason}") from error
    if not count:
        raise StageError(f"LARGE_PHOTOS={named} holds no photo (JPEG, PNG, WebP, AVIF or HEIC)")
    return path


def photos_of(path: Path) -> Iterable[Image.Image]:
    """Yield every photo of a folder, zip or tar, upright and RGB."""
    for _, data in members(path):
        try:
            yield decode(data).image
        except ImageError:  # a README beside the photos
            continue
