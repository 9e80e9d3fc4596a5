"""A tiny set of photos of several sources and sizes, made from a seed: for tests and a first look without a network."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.common import LABELS, whole_file
from stages.data.photo_set.collect import SCHEMA
from stages.data.raw import DownloadParams
from stages.data.synthetic import synthetic_images

_SOURCES = 6  # of each label; of the real ones two may not be learned from
_RENDERS = 4  # photos, at the end, of a source of their own


def write_synthetic(params: DownloadParams, out: Path) -> None:
    """Write the Parquet file of photos that `collect.download` writes, with photos made from a seed.

    They are those of `synthetic_images`, each cut to a size of its own and saved as JPEG.
    """
    pixels = synthetic_images(params.synthetic_images, params.synthetic_size, params.synthetic_seed)
    rng = np.random.default_rng(params.synthetic_seed)
    rows: dict[str, dict[str, Any]] = {}
    for place, label in enumerate(pixels.labels.tolist()):
        height, width = (int(side) for side in rng.integers(params.synthetic_size * 3 // 4, params.synthetic_size, 2))
        buffer = io.BytesIO()
        Image.fromarray(pixels.images[place : place + 1][0, :height, :width]).save(buffer, "JPEG", quality=int(rng.integers(85, 96)))
        photo, number = buffer.getvalue(), place // 2 % _SOURCES
        name = "render" if place >= params.synthetic_images - _RENDERS else LABELS[label]
        digest = hashlib.sha256(photo).hexdigest()
        rows[digest] = {
            "sha256": digest,
            "label": name,
            "generator": "synthetic" if name == LABELS[1] else "",
            "source": f"synthetic/{name}-{number}",
            "path": f"{place}.jpg",
            "date": "2026",
            "licence": "MIT",
            "use": "judge" if name == LABELS[0] and number >= _SOURCES - 2 else "train",
            "photo": photo,
        }
    with whole_file(out) as temporary:
        pq.write_table(pa.Table.from_pylist([rows[digest] for digest in sorted(rows)], SCHEMA), temporary)
