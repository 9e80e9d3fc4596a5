"""Scores one part of a catalogue and writes it whole: what a worker of `tools.score.__main__` does."""

import dataclasses
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.models import images
from service.models.decision import Verdict, judge
from service.models.detector import Detector
from service.photo import ImageError, decode, marks
from service.photo.credentials import CredentialReader
from service.photo.provenance import Provenance, provenance
from stages.common import whole_file
from stages.training.prefetch import ahead
from tools.score.catalogue import Catalogue, Photo, read

_ARROW = {bool: pa.bool_(), float: pa.float64(), int: pa.int64()}  # text, of which Literals are, is what is left
_FLAT = {  # fields of an answer that are one value, and so a column of the same name
    name: _ARROW.get(field.annotation, pa.string())  # type: ignore[arg-type]
    for name, field in Verdict.model_fields.items()
    if name not in ("domain", "provenance", "notes")
}
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        *_FLAT.items(),
        ("domain_embedding", pa.bool_()),
        ("domain_geometry", pa.bool_()),
        ("c2pa_status", pa.string()),
        ("c2pa_declares", pa.list_(pa.string())),
        ("ai_markers", pa.list_(pa.string())),
        ("marks", pa.list_(pa.struct([(name, pa.string()) for name in ("kind", "where", "says", "generator")]))),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("error_type", pa.string()),
        ("error", pa.string()),
    ]
)


# Arrow and Ray pass over files that begin with an underscore, so that OUT as a whole is one table.
PLAN, PARTS, MODEL = "_plan.json", "_parts.parquet", "_model.onnx"


@dataclass(frozen=True)
class Job:
    """What OUT says of itself: all that a worker needs to know, wherever it runs.

    Attributes:
        out: a folder or a bucket's prefix (any URL of fsspec).
        catalogue: what to score.
        detector: the model, on one core.
        credentials: knows whose Content Credentials are trusted.
        review_marked: whether a photo with an unsigned mark of AI goes to a person.
    """

    out: str
    catalogue: Catalogue
    detector: Detector
    credentials: CredentialReader
    review_marked: bool


def load_job(out: str) -> Job:
    """Read the job that `tools.score.__main__.plan` wrote."""
    fs, folder = url_to_fs(out)
    plan = json.loads(fs.cat_file(f"{folder}/{PLAN}"))
    parts = pq.read_table(io.BytesIO(fs.cat_file(f"{folder}/{PARTS}")))
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model.onnx"
        model.write_bytes(fs.cat_file(f"{folder}/{MODEL}"))
        detector = Detector(model, alpha=plan["alpha"], ai_prior=plan["ai_prior"])
    catalogue = Catalogue(plan["source"], plan["column"], parts)
    credentials = CredentialReader(
        plan["trust_anchors"], time_stamp_anchors=plan["time_stamp_anchors"], key_usages=tuple(plan["key_usages"])
    )
    return Job(out, catalogue, detector, credentials, plan["ai_marks"] == "review")


def part_name(part: int) -> str:
    """Return the file name of a part's scores."""
    return f"part-{part:08d}.parquet"


class Scorer:
    """Holds the model between parts."""

    def __init__(self, out: str) -> None:
        self.job = load_job(out)
        self.detector = self.job.detector

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the parts that `batch["part"]` numbers, write each, and return how many photos there were."""
        return {"photos": np.array([self._score(int(part)) for part in batch["part"]])}

    def _score(self, part: int) -> int:
        pieces = [pa.Table.from_pylist(self._rows(photos), SCHEMA) for photos in ahead(read(self.job.catalogue, part))]
        table = pa.concat_tables([SCHEMA.empty_table(), *pieces])
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write(self.job.out, part_name(part), buffer.getvalue())
        return len(table)

    def _rows(self, photos: list[Photo]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        good: list[tuple[dict[str, Any], Provenance]] = []
        pixels: list[images.Uint8] = []
        for name, data in photos:
            row: dict[str, Any] = {"name": name, "model": self.detector.name, "model_version": self.detector.version}
            rows.append(row)
            if isinstance(data, Exception):
                row |= {"error_type": "unreadable", "error": _said(data)}
                continue
            try:
                photo = decode(data)
                credential = self.job.credentials.read(data, kind=photo.format, xmp=photo.metadata.xmp)
                said = provenance(credential, *marks.read(photo.metadata))
            except ImageError as error:
                row |= {"error_type": error.error_type, "error": error.message}
                continue
            except Exception as error:  # whatever one photo does, the others of its part are scored
                row |= {"error_type": "internal_error", "error": _said(error)}
                continue
            pixels.append(self.detector.prepare(photo.image))
            row |= {"width": photo.image.width, "height": photo.image.height}
            good.append((row, said))
        if good:
            scores = self.detector.score(np.stack(pixels))
            for place, (row, said) in enumerate(good):
                verdict = judge(
                    self.detector,
                    scores,
                    place,
                    width=row["width"],
                    height=row["height"],
                    provenance=said,
                    review_marked=self.job.review_marked,
                )
                row.update(_flat(verdict))
        return rows


def _flat(verdict: Verdict) -> dict[str, Any]:
    """Return the columns of a photo's answer."""
    said = verdict.provenance
    row = {name: getattr(verdict, name) for name in _FLAT}
    row |= {"domain_embedding": verdict.domain.embedding, "domain_geometry": verdict.domain.geometry}
    row |= {"ai_markers": said.ai_markers, "marks": [dataclasses.asdict(mark) for mark in said.marks]}
    if said.c2pa is not None:
        row |= {"c2pa_status": said.c2pa.status, "c2pa_declares": list(said.c2pa.declares)}
    return row


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def write(out: str, name: str, data: bytes) -> None:
    """Write a file whole or not at all; an object store's own writes are."""
    fs, folder = url_to_fs(out)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(f"{folder}/{name}", data)
        return
    with whole_file(Path(folder) / name) as temporary:
        temporary.write_bytes(data)
