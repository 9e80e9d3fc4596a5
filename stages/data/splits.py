"""Which rows may teach, and which photo goes to which split."""

from typing import Any

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from stages.common import LABELS
from stages.data.image_sets import Images, ImageSet, batches

Bool = npt.NDArray[np.bool_]


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


def near_duplicates(images: Images, is_test: Bool) -> dict[str, int]:
    """Count distinct images that share their 64-bit perceptual hash (imagehash.phash): reported, not cut."""
    photos = (photo for batch in batches(images) for photo in batch)
    bar = tqdm(photos, desc="hashing", total=len(images), mininterval=2)
    hashes = np.array([str(imagehash.phash(Image.fromarray(photo))) for photo in bar])
    _, inverse, count = np.unique(hashes, return_inverse=True, return_counts=True)
    across = np.intersect1d(hashes[is_test], hashes[~is_test])
    return {
        "images_with_a_near_duplicate": int((count[inverse] > 1).sum()),
        "test_images_with_one_in_train": int(np.isin(hashes[is_test], across).sum()),
    }
