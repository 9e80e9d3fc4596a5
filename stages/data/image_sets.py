"""Image sets on disk: one safetensors file a set."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stages.common import StageError, whole_file

Uint8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSet:
    """Photos of one size with their labels and flags.

    Attributes:
        images: uint8 [N, H, W, 3], RGB.
        labels: uint8 [N], 1 = AI-generated, 0 = real.
        flags: further uint8 [N] columns by name, such as `own` (1 = one of your own photos).
    """

    images: Uint8
    labels: Uint8
    flags: Mapping[str, Uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> "ImageSet":
        """Return the given rows, in the given order."""
        return ImageSet(self.images[rows], self.labels[rows], {k: v[rows] for k, v in self.flags.items()})


def save_images(path: str | Path, data: ImageSet) -> None:
    """Write `data` whole or not at all; the same rows give the same bytes.

    Raises:
        StageError: the disk is full.
    """
    tensors = {
        "images": data.images,
        "labels": data.labels,
        **{f"flag.{k}": v for k, v in data.flags.items()},
    }
    with whole_file(path) as temporary:
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        try:
            save_file(contiguous, temporary)
        except SafetensorError as error:
            raise StageError(f"cannot write {path} ({error}): free some space and run the stage again") from error


def load_images(path: str | Path) -> ImageSet:
    """Read an image set.

    Raises:
        StageError: the file is missing, truncated or of another format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        flags = {k.removeprefix("flag."): v for k, v in tensors.items() if k.startswith("flag.")}
        return ImageSet(tensors["images"], tensors["labels"], flags)
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise StageError(f"{path} is missing or damaged ({error}): rebuild it with 'dvc repro'") from error


def row_digests(images: Uint8) -> npt.NDArray[np.bytes_]:
    """Return the sha256 of each row's pixels: uint8 [N, ...] -> bytes [N] of 64 hex digits."""
    return np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in images], dtype="S64")
