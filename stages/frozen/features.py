"""The features of photos, kept on disk: a photo that was seen once is never read again.

A shard is a file with the features of up to 64 photos, written whole, so a run that was stopped goes on from there, and
photos that join later cost only their own time.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from service.models import images
from service.models.images import Input
from service.photo import ImageError, Photo, decode
from stages.common import StageError
from stages.exporting.ood_pictures import outliers
from stages.frozen.dataset import Described, joined, kept_array
from stages.frozen.encoder import Encoder, EncoderParams, load_encoder
from stages.frozen.params import PreprocessParams
from stages.frozen.views import rewritten
from stages.training.prefetch import prefetch

_SHARD = 64
_MAX_PIXELS = 200_000_000  # of an own photo, or of one in a manifest


class _Opened(NamedTuple):
    """One view of a photo, ready for the encoder; the photo itself is not kept, it may be large."""

    sha256: str
    pixels: npt.NDArray[np.uint8]
    hash: int
    width: int
    height: int
    jpeg_quality: int
    format: str


def input_of(params: EncoderParams) -> Input:
    """Return how a photo becomes what the encoder takes; the card has the same."""
    return Input(width=params.image_size, height=params.image_size, resize="crop")


def cache_folder(build: Path, params: PreprocessParams) -> Path:
    """Return the folder of these features: those of another encoder, or of other seeds of views, lie in another."""
    said = params.model_dump(mode="json", include={"encoder", "precision", "seed"})
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return build / "features" / digest[:16]


def describe(
    photos: Iterable[tuple[str, Callable[[], bytes]]], params: PreprocessParams, encoder: Path, folder: Path
) -> Described:
    """Return what the head sees of photos, in order of their digests; those seen before come from the folder.

    Args:
        photos: sha256 of a file, and what reads it.
        params: the encoder and the views.
        encoder: the encoder's file.
        folder: of the shards.

    Raises:
        StageError: a photo cannot be read, or the encoder's file is not the one that is wanted.
    """
    wanted = dict(photos)
    views = [_of_view(wanted, view, params, encoder, folder / f"view-{view}") for view in range(params.views + 1)]
    return replace(views[0], features=np.concatenate([view.features for view in views], 1))


def _of_view(
    wanted: Mapping[str, Callable[[], bytes]], view: int, params: PreprocessParams, encoder: Path, folder: Path
) -> Described:
    """Return the same of one view: 0 is the photo as it was found, 1 its first rewrite. Features are [N, 1, D]."""
    seen, shards = set(), []
    for file in sorted(folder.glob("*.npz")):
        shard = Described.load(file)
        fresh = np.array([digest in wanted and digest not in seen for digest in shard.sha256.tolist()], bool)
        seen |= set(shard.sha256[fresh].tolist())
        shards.append(shard.take(np.flatnonzero(fresh)))
    missing = [(digest, read) for digest, read in sorted(wanted.items()) if digest not in seen]
    if missing:
        model = load_encoder(encoder, params.encoder).ready(params.precision)
        what = f"features {view + 1} of {params.views + 1}"
        bar = tqdm(total=len(wanted), initial=len(wanted) - len(missing), desc=what, unit=" photos", mininterval=2)
        opened = (
            [_opened(digest, read, view, params) for digest, read in missing[start : start + _SHARD]]
            for start in range(0, len(missing), _SHARD)
        )
        for chunk in prefetch(opened):
            shard = _shard(chunk, model)
            shard.save(folder / f"{shard.sha256[0][:32]}.npz")
            shards.append(shard)
            bar.update(len(shard))
        bar.close()
    whole = joined(shards)
    return whole.take(np.argsort(whole.sha256))


def _opened(digest: str, read: Callable[[], bytes], view: int, params: PreprocessParams) -> _Opened:
    photo = opened_photo(read(), digest)
    seen = photo.image if view == 0 else rewritten(photo.image, digest, view - 1, params.seed)
    return _Opened(
        digest,
        images.prepare(seen, input_of(params.encoder)),
        int(str(imagehash.phash(photo.image)), 16),
        *photo.image.size,
        photo.jpeg_quality,
        photo.format,
    )


def opened_photo(data: bytes, name: str) -> Photo:
    """Decode a photo of the data set.

    Raises:
        StageError: it cannot be read.
    """
    try:
        return decode(data, max_pixels=_MAX_PIXELS, min_side=1)
    except ImageError as error:
        raise StageError(f"the photo {name} cannot be read ({error.message}): take it out of the data set") from error


def _shard(opened: Sequence[_Opened], model: Encoder) -> Described:
    pixels = np.stack([photo.pixels for photo in opened])
    statistics = images.statistics(pixels)
    return Described(
        sha256=np.array([photo.sha256 for photo in opened]),
        features=features_of(model, pixels)[:, None],
        hash=np.array([photo.hash for photo in opened], np.uint64),
        width=np.array([photo.width for photo in opened]),
        height=np.array([photo.height for photo in opened]),
        jpeg_quality=np.array([photo.jpeg_quality for photo in opened]),
        format=np.array([photo.format for photo in opened]),
        white=_white_frame(pixels),
        statistics=np.stack([statistics[name] for name in ("brightness", "contrast", "sharpness")], 1),
    )


def _white_frame(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the share of near-white pixels in the outer twentieth: uint8 [N, H, W, 3] -> float32 [N]."""
    frame = np.ones(pixels.shape[1:3], bool)
    edge = max(1, len(frame) // 20)
    frame[edge:-edge, edge:-edge] = False
    share: npt.NDArray[np.float32] = (pixels[:, frame].min(2) >= 240).mean(1, dtype=np.float32)
    return share


@torch.no_grad()
def features_of(model: Encoder, pixels: npt.NDArray[np.uint8], batch: int = 16) -> npt.NDArray[np.float16]:
    """Return the encoder's features: uint8 [N, H, W, 3] -> float16 [N, D]."""
    parts = [model(torch.from_numpy(pixels[start : start + batch])) for start in range(0, len(pixels), batch)]
    features: npt.NDArray[np.float16] = torch.cat(parts).half().numpy()
    return features


def drawings(params: PreprocessParams, encoder: Path, folder: Path) -> npt.NDArray[np.float16]:
    """Return the features of pictures that are no photos, float16 [N, D]; they are kept in the folder, too."""

    def made() -> npt.NDArray[np.float16]:
        model, side = load_encoder(encoder, params.encoder).ready(params.precision), params.encoder.image_size
        pictures = tqdm(outliers(params.drawings, side, side, seed=0), "drawings", params.drawings, delay=2)
        return np.concatenate([features_of(model, picture[None]) for picture in pictures])

    return kept_array(folder / f"drawings-{params.drawings}.npy", made)
