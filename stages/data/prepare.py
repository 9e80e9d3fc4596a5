"""What the stage preprocess does: merge, clean and split the photos."""

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator
from tqdm import tqdm

from service.models.images import resize
from stages.common import LABELS, ImageSize, Params, StageError, height_width, keep_only, sha256_file
from stages.data.image_sets import Images, StoredImages, Uint8, batches, load_images, row_digests, write_images
from stages.data.inbox import IMPORT
from stages.data.own_photos import own_photos
from stages.data.raw import IMAGES
from stages.data.splits import clean, near_duplicates, split_by_hash
from stages.paths import ModelPaths

PARTS = ("train", "validation", "calibration", "test")


class PreprocessParams(Params):
    """Section `preprocess` of params.yaml."""

    image_size: ImageSize
    validation_share: Annotated[float, Field(gt=0, lt=0.5)]
    calibration_share: Annotated[float, Field(gt=0, lt=0.5)]
    own_validation_share: Annotated[float, Field(gt=0, lt=0.5)]  # larger than CIFAKE's: own photos are few
    own_test_share: Annotated[float, Field(gt=0, lt=0.5)]
    own_photos_min: Annotated[int, Field(ge=0)]
    own_jpeg_quality: Annotated[int, Field(ge=50, le=100)]

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> Self:
        if self.validation_share + self.calibration_share >= 0.9:
            raise ValueError("validation_share + calibration_share leave less than a tenth to train on")
        if self.own_validation_share + self.calibration_share + self.own_test_share >= 0.9:
            raise ValueError("own_validation_share + calibration_share + own_test_share leave less than a tenth")
        return self


def part_file(paths: ModelPaths, part: str) -> Path:
    """Return the file of a split; that of test has a folder of its own."""
    return (paths.test if part == "test" else paths.dataset) / f"{part}.safetensors"


def prepare(params: PreprocessParams, dataset: str, own_folder: Path, paths: ModelPaths) -> dict[str, Any]:
    """Write an image set for each split.

    Args:
        params: size and shares.
        dataset: the raw data set's name, for the report.
        own_folder: your own photos.
        paths: the model's files; the raw data set is there.

    Returns:
        Counts of photos by split and label, and the files' digests.

    Raises:
        StageError: the raw file or an own photo cannot be read, or there are fewer own photos than asked for.
    """
    size = height_width(params.image_size)
    paths.dataset.mkdir(parents=True, exist_ok=True)
    own = own_photos(own_folder, size, params.own_jpeg_quality, paths.dataset)
    if len(own.photos) < params.own_photos_min:
        raise StageError(
            f"{len(own.photos)} own photos found, but preprocess.own_photos_min is {params.own_photos_min}: put them"
            f" into photos/ ({IMPORT}; a colleague's: 'git checkout data.dvc', 'dvc pull data', copy data/ to photos/),"
            " or lower own_photos_min to train without them knowingly"
        )
    raw = load_images(paths.raw / IMAGES)
    digests = row_digests(raw.images)
    is_test = raw.flags["test"] == 1
    masks, report = clean(raw, digests)
    distinct = np.unique(digests, return_index=True)[1]
    report["near_duplicates"] = near_duplicates(raw.take(distinct).images, is_test[distinct])
    widths, heights = zip(raw.images.shape[2:0:-1], *own.sizes, strict=True)
    geometry = {
        "min_width": min(widths), "max_width": max(widths), "min_height": min(heights), "max_height": max(heights),
    }  # fmt: skip

    held_out = {"validation": params.validation_share, "calibration": params.calibration_share}
    parts = split_by_hash(digests, held_out)
    parts[~masks["keep_train"]] = ""
    parts[is_test] = "test"
    group_digests = np.array([hashlib.sha256(group.encode()).hexdigest() for group in own.groups], dtype="S64")
    own_held_out = held_out | {"validation": params.own_validation_share, "test": params.own_test_share}
    own_parts = split_by_hash(group_digests, own_held_out)

    report = {"dataset": dataset} | report
    report |= {"own_photos": own.report, "geometry": geometry, "image_size": params.image_size, "splits": {}}
    for part in PARTS:
        rows, own_rows = np.flatnonzero(parts == part), np.flatnonzero(own_parts == part)
        flags = {"own": np.repeat(np.array([0, 1], np.uint8), [len(rows), len(own_rows)])}
        if part == "test":
            flags |= {
                name: np.concatenate([masks[name][rows], np.zeros(len(own_rows), bool)]).astype(np.uint8)
                for name in ("duplicate", "leaked")
            }
        photos = chain(_resized(raw.take(rows).images, size), _resized(own.photos.take(own_rows).images, size))
        labels = np.concatenate([raw.labels[rows], own.photos.labels[own_rows]])
        write_images(path := part_file(paths, part), photos, size, labels, flags)
        report["splits"][part] = {"images": len(labels), "own_photos": len(own_rows)} | {
            label: int((labels == i).sum()) for i, label in enumerate(LABELS)
        } | {"sha256": sha256_file(path)}  # fmt: skip
    keep_only(*(part_file(paths, part) for part in PARTS))
    return report


def _resized(images: Images, size: tuple[int, int]) -> Iterator[Uint8]:
    if isinstance(images, StoredImages) and images.shape[1:3] == size:
        return images.stored()
    photos = (photo for batch in batches(images) for photo in batch)
    bar = tqdm(photos, desc=f"to {size[1]} x {size[0]} px", total=len(images), mininterval=2, delay=1)
    return (resize(Image.fromarray(photo), *size) for photo in bar)
