"""Stage preprocess: merge, clean and split the photos into build/dataset/; reports/dataset.json says what was done."""

import hashlib
import io
from pathlib import Path
from typing import Annotated, Any, Self

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator
from tqdm import tqdm

from service.images import ImageError, decode, resize
from stages.common import LABELS, Params, StageError, load_params, run_stage, sha256_file, write_json
from stages.data import ImageSet, load_images, row_digests, save_images
from stages.download import RAW, DownloadParams

OWN = Path("data")  # your own labelled photos, brought by data.dvc: <label>/[group/]*.{jpg,png,webp}
OUT = Path("build/dataset")
REPORT = Path("reports/dataset.json")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
PARTS = ("train", "validation", "calibration", "test")

Bool = npt.NDArray[np.bool_]


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


def split_by_hash(digests: npt.NDArray[np.bytes_], shares: dict[str, float]) -> npt.NDArray[np.str_]:
    """Assign each row to a part by its own hash, so that a photo keeps its part whatever is added around it.

    Args:
        digests: hex digests, bytes [N].
        shares: part -> share; what is left goes to `train`.

    Returns:
        str [N], the parts' names.
    """
    position = np.array([int(digest[:8], 16) / 2**32 for digest in digests])
    parts = np.full(len(digests), "train", dtype="U16")
    start = 0.0
    for part, share in shares.items():
        parts[(position >= start) & (position < start + share)] = part
        start += share
    return parts


def clean(raw: ImageSet, digests: npt.NDArray[np.bytes_]) -> tuple[dict[str, Bool], dict[str, Any]]:
    """Find exact duplicates and train/test leaks; of equal rows the first one stays.

    Returns:
        Row masks `keep_train` (distinct, in one class, not in test), `duplicate` and `leaked` (of test; its rows all
        stay), and the counts for the report.
    """
    is_test = raw.flags["test"] == 1
    counts: dict[str, Any] = {}
    surplus = np.ones(len(raw), bool)
    for name, members in (("train", ~is_test), ("test", is_test)):
        rows = np.flatnonzero(members)
        surplus[rows[np.unique(digests[rows], return_index=True)[1]]] = False
        counts[name] = {"images": len(rows)} | {
            label: {
                "images": int((raw.labels[rows] == i).sum()),
                "surplus_copies": int((raw.labels[rows][surplus[rows]] == i).sum()),
            }
            for i, label in enumerate(LABELS)
        }  # fmt: skip
    shared = np.intersect1d(digests[is_test], digests[~is_test])
    in_both = np.isin(digests, shared)
    conflicting = np.intersect1d(digests[raw.labels == 0], digests[raw.labels == 1])
    counts["shared_between_train_and_test"] = {
        "distinct_images": len(shared),
        "train_images_dropped": int((in_both & ~is_test & ~surplus).sum()),
        "test_images": int((in_both & is_test).sum()),
    }
    counts["in_both_classes"] = len(conflicting)
    masks = {
        "keep_train": ~is_test & ~surplus & ~in_both & ~np.isin(digests, conflicting),
        "duplicate": is_test & surplus,
        "leaked": is_test & in_both,
    }
    return masks, counts


def near_duplicates(images: npt.NDArray[np.uint8], is_test: Bool) -> dict[str, int]:
    """Count distinct images that share their 64-bit perceptual hash (imagehash.phash): reported, not cut."""
    hashes = np.array([str(imagehash.phash(Image.fromarray(i))) for i in tqdm(images, desc="hashing", mininterval=2)])
    _, inverse, count = np.unique(hashes, return_inverse=True, return_counts=True)
    across = np.intersect1d(hashes[is_test], hashes[~is_test])
    return {
        "images_with_a_near_duplicate": int((count[inverse] > 1).sum()),
        "test_images_with_one_in_train": int(np.isin(hashes[is_test], across).sum()),
    }


def own_photos(folder: Path, size: int, quality: int) -> tuple[ImageSet, list[str], dict[str, Any]]:
    """Read your own photos, prepared as a request's photo is, both classes re-encoded alike first.

    Returns:
        Photos uint8 [N, size, size, 3]; for each its group (sub-folder, else perceptual hash), which never straddles
        a split; and the report's counts and the photos' own geometry.

    Raises:
        StageError: an unreadable photo, an unknown folder, or photos of one class only.
    """
    files = (
        sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")) if folder.is_dir() else []
    )
    images: list[npt.NDArray[np.uint8]] = []
    labels, groups, sizes, faults = [], [], [], []
    seen: dict[bytes, str] = {}
    for file in tqdm(files, desc="own photos", disable=not files):
        label, *between = file.relative_to(folder).parent.parts or ("",)
        if label not in LABELS or file.suffix.lower() not in SUFFIXES:
            faults.append(f"{file}: not <label>/[group/]name.{{jpg,png,webp}} with label real or ai_generated")
            continue
        try:
            photo = decode(file.read_bytes())
        except ImageError as error:
            faults.append(f"{file}: {error.message}")
            continue
        first = seen.setdefault(hashlib.sha256(photo.tobytes()).digest(), label)
        if first != label:
            faults.append(f"{file}: the same photo stands under '{first}' too")
        if len(seen) == len(images):  # an exact copy
            continue
        buffer = io.BytesIO()  # the same JPEG for both classes: no shortcut through their file formats
        photo.save(buffer, "JPEG", quality=quality)
        images.append(resize(decode(buffer.getvalue()), size, size))
        labels.append(LABELS.index(label))
        groups.append("/".join(between) or str(imagehash.phash(photo)))
        sizes.append(photo.size)
    if faults:
        raise StageError(
            f"{len(faults)} of your own photos cannot be used: {'; '.join(faults[:5])}. Mend or remove them in photos/"
        )
    if images and len(set(labels)) < 2:
        raise StageError(f"your own photos are all '{LABELS[labels[0]]}': add photos of the other class too")
    stacked = np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)
    own = ImageSet(stacked, np.array(labels, np.uint8), {})
    report: dict[str, Any] = {"images": len(images), "groups": len(set(groups))}
    report["surplus_copies"] = len(files) - len(images)
    report |= {label: labels.count(i) for i, label in enumerate(LABELS)}
    return own, groups, report | {"geometry": _geometry(sizes)}


def _geometry(sizes: list[tuple[int, int]]) -> dict[str, int] | None:
    """Smallest and largest (width, height) of photos, in pixels."""
    if not sizes:
        return None
    width, height = zip(*sizes, strict=True)
    return {
        "min_width": min(width), "max_width": max(width), "min_height": min(height), "max_height": max(height),
    }  # fmt: skip


def preprocess(params: PreprocessParams, dataset: str) -> None:
    """Write build/dataset/{train,validation,calibration,test}.safetensors and reports/dataset.json."""
    size = params.image_size
    own, groups, own_report = own_photos(OWN, size, params.own_jpeg_quality)
    if len(own) < params.own_photos_min:
        raise StageError(
            f"{len(own)} own photos found, but preprocess.own_photos_min is {params.own_photos_min}: put them into"
            " photos/ (a colleague's: 'git checkout data.dvc', 'dvc pull data', copy data/ to photos/),"
            " or lower own_photos_min to train without them knowingly"
        )
    raw = load_images(RAW)
    digests = row_digests(raw.images)
    is_test = raw.flags["test"] == 1
    masks, report = clean(raw, digests)
    distinct = np.unique(digests, return_index=True)[1]
    report["near_duplicates"] = near_duplicates(raw.images[distinct], is_test[distinct])
    height, width = raw.images.shape[1:3]
    geometries = [_geometry([(width, height)]), own_report.pop("geometry")]
    known = [g for g in geometries if g is not None]
    geometry = {k: (min if k.startswith("min") else max)(g[k] for g in known) for k in known[0]}

    held_out = {"validation": params.validation_share, "calibration": params.calibration_share}
    parts = split_by_hash(digests, held_out)
    parts[~masks["keep_train"]] = ""
    parts[is_test] = "test"
    group_digests = np.array([hashlib.sha256(group.encode()).hexdigest() for group in groups], dtype="S64")
    own_held_out = held_out | {"validation": params.own_validation_share, "test": params.own_test_share}
    own_parts = split_by_hash(group_digests, own_held_out)

    report = {"dataset": dataset} | report
    report |= {"own_photos": own_report, "geometry": geometry, "image_size": size, "splits": {}}
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
            np.concatenate([pixels, own.images[own_rows]]),
            np.concatenate([raw.labels[rows], own.labels[own_rows]]),
            flags,
        )
        save_images(path := OUT / f"{part}.safetensors", joined)
        report["splits"][part] = {"images": len(joined), "own_photos": len(own_rows)} | {
            label: int((joined.labels == i).sum()) for i, label in enumerate(LABELS)
        } | {"sha256": sha256_file(path)}  # fmt: skip
    write_json(REPORT, report)


def _resized(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    if images.shape[1:3] == (size, size) or len(images) == 0:
        return images.reshape(-1, size, size, 3)
    return np.stack([resize(Image.fromarray(i), size, size) for i in tqdm(images, desc=f"to {size} px")])


def main() -> None:
    """Prepare the data as params.yaml says."""
    preprocess(load_params("preprocess", PreprocessParams), load_params("download", DownloadParams).dataset)


if __name__ == "__main__":
    run_stage(main)
