"""Stage preprocess: merge, clean and split the photos into ModelPaths.dataset."""

import hashlib
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator
from tqdm import tqdm

from service.models.images import resize
from stages.common import LABELS, Params, StageError, load_params, run_stage, sha256_file, write_json
from stages.data.image_sets import ImageSet, load_images, row_digests, save_images
from stages.data.inbox import IMPORT, OWN, check_import
from stages.data.own_photos import own_photos
from stages.data.raw import IMAGES, DownloadParams
from stages.data.splits import clean, near_duplicates, split_by_hash
from stages.paths import ModelPaths

PARTS = ("train", "validation", "calibration", "test")


class PreprocessParams(Params):
    """Section `preprocess` of params.yaml."""

    image_size: Annotated[int, Field(ge=16, le=1024)]
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


def preprocess(params: PreprocessParams, dataset: str, paths: ModelPaths) -> None:
    """Write {train,validation,calibration,test}.safetensors into `paths.dataset`, and `paths.dataset_report`."""
    size = params.image_size
    check_import()
    own = own_photos(OWN, size, params.own_jpeg_quality)
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
    report["near_duplicates"] = near_duplicates(raw.images[distinct], is_test[distinct])
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
    report |= {"own_photos": own.report, "geometry": geometry, "image_size": size, "splits": {}}
    for part in PARTS:
        rows, own_rows = np.flatnonzero(parts == part), np.flatnonzero(own_parts == part)
        pixels = _resized(raw.images[rows], size)
        flags = {"own": np.repeat(np.array([0, 1], np.uint8), [len(rows), len(own_rows)])}
        if part == "test":
            flags |= {
                name: np.concatenate([masks[name][rows], np.zeros(len(own_rows), bool)]).astype(np.uint8)
                for name in ("duplicate", "leaked")
            }
        joined = ImageSet(
            np.concatenate([pixels, own.photos.images[own_rows]]),
            np.concatenate([raw.labels[rows], own.photos.labels[own_rows]]),
            flags,
        )
        save_images(path := paths.dataset / f"{part}.safetensors", joined)
        report["splits"][part] = {"images": len(joined), "own_photos": len(own_rows)} | {
            label: int((joined.labels == i).sum()) for i, label in enumerate(LABELS)
        } | {"sha256": sha256_file(path)}  # fmt: skip
    write_json(paths.dataset_report, report)
    for part, counts in report["splits"].items():
        own_part = f", {counts['own_photos']} of them your own" if len(own.photos) else ""
        print(f"{part}: {counts['images']:,} photos{own_part}")


def _resized(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    if images.shape[1:3] == (size, size) or len(images) == 0:
        return images.reshape(-1, size, size, 3)
    return np.stack([resize(Image.fromarray(i), size, size) for i in tqdm(images, desc=f"to {size} px")])


def main(paths: ModelPaths) -> None:
    """Prepare the data as params.yaml says."""
    params = load_params("preprocess", PreprocessParams, paths.name)
    preprocess(params, load_params("download", DownloadParams, paths.name).dataset, paths)


if __name__ == "__main__":
    run_stage(main)
