"""Your own labelled photos: <label>/[group/]*.{jpg,png,webp,avif,heic}, of any size."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from service.models.images import resize
from service.photo import ImageError, decode
from service.photo.formats import SUFFIXES
from stages.common import LABELS, StageError
from stages.data.image_sets import ImageSet, Spool
from stages.data.inbox import IMPORT, files_of


@dataclass(frozen=True)
class OwnPhotos:
    """Your own photos, prepared.

    Attributes:
        photos: uint8 [N, H, W, 3] with their labels; they lie in an unnamed file.
        groups: each photo's group (sub-folder, else perceptual hash), which never straddles a split.
        sizes: each photo's own (width, height), in pixels.
        report: counts for the data set report.
    """

    photos: ImageSet
    groups: list[str]
    sizes: list[tuple[int, int]]
    report: dict[str, int]


def own_photos(folder: Path, size: tuple[int, int], quality: int, spool_folder: Path | None = None) -> OwnPhotos:
    """Read your own photos, prepared as a request's photo is, both classes re-encoded alike first.

    Args:
        folder: holds them.
        size: (H, W) wanted, in pixels.
        quality: of the JPEG that each becomes first, 1 to 100.
        spool_folder: where an unnamed file may grow; default: where the system has such files.

    Raises:
        StageError: an unreadable photo, an unknown folder, or photos of one class only.
    """
    spool = Spool(spool_folder)
    labels: list[int] = []
    groups, sizes = [], []
    for file in own_files(folder):
        buffer = io.BytesIO()  # the same JPEG for both classes: no shortcut through their file formats
        file.photo.save(buffer, "JPEG", quality=quality)
        spool.add(resize(decode(buffer.getvalue()).image, *size))
        labels.append(file.label)
        groups.append(file.group)
        sizes.append(file.photo.size)
    if labels and len(set(labels)) < 2:
        raise StageError(f"your own photos are all '{LABELS[labels[0]]}': add photos of the other class too")
    report = {"images": len(labels), "groups": len(set(groups)), "surplus_copies": len(files_of(folder)) - len(labels)}
    report |= {label: labels.count(i) for i, label in enumerate(LABELS)}
    return OwnPhotos(ImageSet(spool.images(size), np.array(labels, np.uint8), {}), groups, sizes, report)


class OwnFile(NamedTuple):
    """One of your own photos, read.

    Attributes:
        path: its file.
        label: index of LABELS.
        group: its sub-folder, else its perceptual hash; photos of a group stay together in every split.
        photo: mode RGB, upright.
    """

    path: Path
    label: int
    group: str
    photo: Image.Image


def own_files(folder: Path) -> Iterator[OwnFile]:
    """Yield your own photos in the order of their names, each content once.

    Raises:
        StageError: at the end, where any of them cannot be read or stands in an unknown folder.
    """
    files = files_of(folder)
    faults: list[str] = []
    seen: dict[bytes, str] = {}
    for file in tqdm(files, desc="own photos", disable=not files):
        name = file.relative_to(folder)
        label, *between = name.parent.parts or ("",)
        if label not in LABELS or file.suffix.lower() not in SUFFIXES:
            faults.append(
                f"{name}: not <label>/[group/]name.{{jpg,png,webp,avif,heic}} with label real or ai_generated"
            )
            continue
        try:
            photo = decode(file.read_bytes()).image
        except ImageError as error:
            faults.append(f"{name}: {error.message}")
            continue
        pixels = hashlib.sha256(photo.tobytes()).digest()
        if (first := seen.get(pixels)) is None:
            seen[pixels] = label
            yield OwnFile(file, LABELS.index(label), "/".join(between) or str(imagehash.phash(photo)), photo)
        elif first != label:
            faults.append(f"{name}: the same photo stands under '{first}' too")
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise StageError(
            f"{len(faults)} of your own photos cannot be used: {'; '.join(faults[:5])}{more}. "
            f"Mend or remove them in photos/; {IMPORT}"
        )
