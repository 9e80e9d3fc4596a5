"""Image sets on disk: one safetensors file a set, whose photos are read only when they are asked for.

Photos of up to 147 x 147 pixels lie in it as pixels, which is the fastest way. Larger ones lie in it as lossless WebP:
equal pixels on less disk. A product photo of 512 x 512 takes 0.18 MB so, and 0.79 MB as pixels; to decode it takes 5 ms.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stages.common import StageError, whole_file

Uint8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

_RAW_BYTES = 2**16  # a photo with more bytes of pixels is encoded
_BATCH_PIXELS = 2**22  # 16 photos of 512 x 512: a batch of floats and what is made of it stay below some 100 MB


class StoredImages:
    """Photos of one size in a file. Indexed as an array uint8 [N, H, W, 3] is, but only what is asked for is read."""

    def __init__(self, read: Callable[[int], Uint8], rows: Int64, size: tuple[int, int]) -> None:
        """Read nothing yet.

        Args:
            read: gives a photo of the file by its place: uint8 [H, W, 3], or an encoded one as uint8 [bytes].
            rows: int64 [N], the places in the file.
            size: (H, W).
        """
        self._read, self._rows = read, rows
        self.shape = (len(rows), *size, 3)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer | np.bool_]) -> Uint8:
        """Read photos: a slice, int [M] or bool [N] -> uint8 [M, H, W, 3]."""
        places = self._rows[rows].tolist()
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)
        for row, place in enumerate(places):
            pixels[row] = _decoded(self._read(place))
        return pixels

    def take(self, rows: Int64) -> "StoredImages":
        """Return the given rows, in the given order; none is read."""
        height, width = self.shape[1:3]
        return StoredImages(self._read, self._rows[rows], (height, width))

    def stored(self) -> Iterator[Uint8]:
        """Yield each photo as it lies in the file."""
        return map(self._read, self._rows.tolist())


Images: TypeAlias = Uint8 | StoredImages


@dataclass(frozen=True)
class ImageSet:
    """Photos of one size with their labels and flags.

    Attributes:
        images: uint8 [N, H, W, 3], RGB: an array, or photos in a file.
        labels: uint8 [N], 1 = AI-generated, 0 = real.
        flags: further uint8 [N] columns by name, such as `own` (1 = one of your own photos).
    """

    images: Images
    labels: Uint8
    flags: Mapping[str, Uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64) -> "ImageSet":
        """Return the given rows, in the given order; of photos in a file, none is read."""
        images = self.images.take(rows) if isinstance(self.images, StoredImages) else self.images[rows]
        return ImageSet(images, self.labels[rows], {k: v[rows] for k, v in self.flags.items()})

    def batches(self, size: int = 256) -> Iterator[Uint8]:
        """Yield the photos in order, as `batches` does."""
        return batches(self.images, size)


def batches(images: Images, size: int = 256) -> Iterator[Uint8]:
    """Yield photos in order, uint8 [M, H, W, 3], with `size` in a batch: fewer where they are large, or at the end."""
    step = max(1, min(size, _BATCH_PIXELS // (images.shape[1] * images.shape[2])))
    return (images[start : start + step] for start in range(0, len(images), step))


def as_stored(images: Images) -> Iterator[Uint8]:
    """Yield each photo as it lies in its file: uint8 [H, W, 3], or an encoded one as uint8 [bytes]."""
    return images.stored() if isinstance(images, StoredImages) else iter(images)


class Spool:
    """Photos of one size that come one after the other, kept in an unnamed file.

    Attributes:
        digests: of each, the hex sha256 of its pixels.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Make the file in `folder` (default: the system's own for such files); it vanishes with its last reader."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - read for as long as its photos are
        self._ends = [0]
        self._size: tuple[int, int] | None = None
        self.digests: list[str] = []

    def add(self, photo: Uint8) -> None:
        """Keep a photo uint8 [H, W, 3].

        Raises:
            ValueError: it has another size than the first one.
            StageError: the disk is full.
        """
        size = (photo.shape[0], photo.shape[1])
        if size != (self._size or size):
            raise ValueError(f"a photo of {photo.shape[1]} x {photo.shape[0]} pixels among others of another size")
        self._size = size
        self.digests.append(hashlib.sha256(photo.tobytes()).hexdigest())
        self._ends.append(self._ends[-1] + _append(self._file, photo))

    def images(self, size: tuple[int, int] | None = None) -> StoredImages:
        """Return all photos so far; `size` (H, W) is asked for only where there may be none."""
        height, width = self._size or size or (0, 0)
        self._file.flush()
        file, ends, raw = self._file, self._ends, _is_raw((height, width))

        def read(row: int) -> Uint8:
            data = np.frombuffer(os.pread(file.fileno(), ends[row + 1] - ends[row], ends[row]), np.uint8)
            return data.reshape(height, width, 3) if raw else data

        return StoredImages(read, np.arange(len(self.digests)), (height, width))


def write_images(
    path: str | Path, photos: Iterable[Uint8], size: tuple[int, int], labels: Uint8, flags: Mapping[str, Uint8]
) -> None:
    """Write an image set whole or not at all; the same rows give the same bytes.

    Args:
        path: the file.
        photos: N of them, one after the other: uint8 [H, W, 3], or as `as_stored` gives those of this size.
        size: (H, W).
        labels: uint8 [N].
        flags: uint8 [N] each, by name.

    Raises:
        StageError: the disk is full.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"labels": labels, **{f"flag.{name}": flag for name, flag in flags.items()}}
    with whole_file(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as spool:
        ends = np.cumsum([_append(spool, photo) for photo in photos], dtype=np.int64)
        spool.flush()
        data = np.memmap(spool, np.uint8, "r") if len(ends) else np.empty(0, np.uint8)
        if _is_raw(size):
            tensors["images"] = data.reshape(-1, *size, 3)
        else:
            tensors |= {"files": data, "ends": ends, "size": np.array(size)}
        try:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise StageError(f"cannot write {path} ({error}): free some space and run the stage again") from error


def save_images(path: str | Path, data: ImageSet) -> None:
    """Write `data` whole or not at all; the same rows give the same bytes.

    Raises:
        StageError: the disk is full.
    """
    height, width = data.images.shape[1:3]
    write_images(path, as_stored(data.images), (height, width), data.labels, data.flags)


def load_images(path: str | Path) -> ImageSet:
    """Read the labels and flags of an image set; its photos are read when they are asked for.

    Raises:
        StageError: the file is missing, truncated or of another format.
    """
    try:
        # The file is mapped: what is read of it counts as the system's cache.
        file: Any = safe_open(path, framework="numpy")
        names = set(file.keys())
        flags = {name.removeprefix("flag."): file.get_tensor(name) for name in names if name.startswith("flag.")}
        labels = file.get_tensor("labels")
        if "images" in names:
            pixels = file.get_slice("images")
            height, width = pixels.get_shape()[1:3]
            images = StoredImages(pixels.__getitem__, np.arange(len(labels)), (height, width))
        else:
            files, ends = file.get_slice("files"), [0, *file.get_tensor("ends").tolist()]
            height, width = file.get_tensor("size").tolist()
            images = StoredImages(
                lambda row: files[ends[row] : ends[row + 1]], np.arange(len(labels)), (height, width)
            )
        return ImageSet(images, labels, dict(sorted(flags.items())))
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise StageError(f"{path} is missing or damaged ({error}): rebuild it with 'dvc repro'") from error


def row_digests(images: Images) -> npt.NDArray[np.bytes_]:
    """Return the sha256 of each row's pixels: uint8 [N, ...] -> bytes [N] of 64 hex digits."""
    digests = [hashlib.sha256(photo.tobytes()).hexdigest() for batch in batches(images) for photo in batch]
    return np.array(digests, dtype="S64")


def content_order(digests: Sequence[str], labels: Uint8, test: Uint8) -> Int64:
    """Return the row order int64 [N] by the pixels' sha256, which is also a random one."""
    return np.lexsort((labels, test, np.array(digests, "S64")))


def _is_raw(size: tuple[int, int]) -> bool:
    return size[0] * size[1] * 3 <= _RAW_BYTES


def _append(file: IO[bytes], photo: Uint8) -> int:
    """Write a photo in the form that its size asks for; return its bytes."""
    if photo.ndim == 3 and not _is_raw((photo.shape[0], photo.shape[1])):
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "WEBP", lossless=True, quality=0, method=0)  # the fastest of its settings
        photo = np.frombuffer(buffer.getbuffer(), np.uint8)
    try:
        return file.write(np.ascontiguousarray(photo).data)
    except OSError as error:
        raise StageError(f"cannot write ({error.strerror}): free some space and run the stage again") from error


def _decoded(photo: Uint8) -> Uint8:
    """Return the pixels uint8 [H, W, 3] of a photo in either form."""
    return photo if photo.ndim == 3 else np.asarray(Image.open(io.BytesIO(photo.data)).convert("RGB"))
