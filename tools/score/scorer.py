"""Scores one part of a catalogue and writes it whole: what a worker of `tools.score.__main__` does."""

import dataclasses
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.models.card import CARD, MODEL, ModelError, read_card
from service.models.choice import choose, overlap
from service.models.detector import Detector
from service.models.images import Uint8
from service.models.shop import Decided, InForce, ShopCalibration, in_force
from service.photo import ImageError, decode, marks
from service.photo.credentials import CredentialReader
from service.photo.provenance import Provenance, provenance
from stages.common import whole_file
from stages.training.prefetch import prefetch
from tools.score.catalogue import Catalogue, Photo, read

# A field of the answer is a column of the same name; what lies in these two gets columns of its own.
_NESTED = {"domain", "provenance"}
# The columns' types by those of the fields; all others are strings.
_TYPES: dict[Any, pa.DataType] = {
    float: pa.float64(),
    int: pa.int64(),
    bool: pa.bool_(),
    list[str]: pa.list_(pa.string()),
}
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("listing", pa.string()),  # null, and the next: the run was told of no listings
        ("digest", pa.string()),  # sha256 of the file
        *(
            (name, _TYPES.get(field.annotation, pa.string()))
            for name, field in Decided.model_fields.items()
            if name not in _NESTED
        ),
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

# Arrow and Ray pass over what begins with an underscore, so that OUT as a whole is one table.
PLAN, PARTS, MODELS = "_plan.json", "_parts.parquet", "_models"


@dataclass(frozen=True)
class Job:
    """The job as it is written in OUT: everything that a worker needs, on any machine.

    Attributes:
        out: a folder or a bucket's prefix (any URL of fsspec).
        catalogue: what to score.
        models: by name, each on one core, with the thresholds that decide by it.
        credentials: reads Content Credentials, with the list of trusted signers.
        review_marked: whether a photo with an unsigned mark of AI goes to a person.
    """

    out: str
    catalogue: Catalogue
    models: dict[str, InForce]
    credentials: CredentialReader
    review_marked: bool


def find_models(path: Path) -> list[Path]:
    """Return the models that a path names: itself, or the models' folders in it.

    Raises:
        ModelError: it is a folder without any.
    """
    if not path.is_dir() or (path / CARD).is_file():
        return [path]
    found = sorted(card.parent for card in path.glob(f"*/{CARD}"))
    if not found:
        raise ModelError(f"{path} holds no model: name an ONNX file, or a folder with {CARD} and {MODEL}")
    return found


def load_models(path: Path, *, alpha: float, ai_prior: float) -> dict[str, Detector]:
    """Load a model, or all models of a folder; return them by name.

    Args:
        path: an ONNX file, a model's folder, or a folder of such folders.
        alpha: as the service's ALPHA.
        ai_prior: as the service's AI_PRIOR.

    Raises:
        ModelError: there is no model, one cannot be used, or two are for the same photos.
    """
    found: dict[str, Detector] = {}
    for each in find_models(path):
        detector = Detector(each, alpha=alpha, ai_prior=ai_prior)
        known = detector.card.domain.geometry
        for name, other in found.items():
            if name == detector.name or overlap(known, other.card.domain.geometry):
                raise ModelError(f"{each} has the name of {name}, or claims photos of the same sizes: name one of both")
        found[detector.name] = detector
    return found


def load_job(out: str) -> Job:
    """Read the job that `tools.score.__main__.plan` wrote."""
    fs, folder = url_to_fs(out)
    plan = json.loads(fs.cat_file(f"{folder}/{PLAN}"))
    parts = pq.read_table(io.BytesIO(fs.cat_file(f"{folder}/{PARTS}")))
    with tempfile.TemporaryDirectory() as temporary:
        for name in plan["models"]:
            copy = Path(temporary) / name
            copy.mkdir()
            fs.get_file(f"{folder}/{MODELS}/{name}/{CARD}", str(copy / CARD))
            encoder = read_card(copy).encoder
            for file in [MODEL, *([encoder.file] if encoder else [])]:
                fs.get_file(f"{folder}/{MODELS}/{name}/{file}", str(copy / file))
        detectors = load_models(Path(temporary), alpha=plan["alpha"], ai_prior=plan["ai_prior"])
    catalogue = Catalogue(plan["source"], plan["column"], parts, plan["listing_by"])
    credentials = CredentialReader(
        plan["trust_anchors"], time_stamp_anchors=plan["time_stamp_anchors"], key_usages=tuple(plan["key_usages"])
    )
    shop = ShopCalibration.model_validate(plan["calibration"]) if plan["calibration"] else None
    deciding = {name: in_force(detector, shop, plan["group"]) for name, detector in detectors.items()}
    return Job(out, catalogue, deciding, credentials, plan["ai_marks"] == "review")


def part_name(part: int) -> str:
    """Return the file name of a part's scores."""
    return f"part-{part:08d}.parquet"


@dataclass(frozen=True)
class _Decoded:
    """A photo that can be scored.

    Attributes:
        row: of the table; what is said of the photo is added to it.
        model: the name of the one that knows such photos.
        pixels: as that model takes them.
        provenance: what the file says of its making.
        notes: what was passed over in the file.
    """

    row: dict[str, Any]
    model: str
    pixels: Uint8
    provenance: Provenance
    notes: list[str]


class Scorer:
    """Holds the models between parts."""

    def __init__(self, out: str) -> None:
        self.job = load_job(out)
        self.cards = {name: by.detector.card for name, by in self.job.models.items()}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the parts that `batch["part"]` numbers, write each, and return how many photos there were."""
        return {"photos": np.array([self._score(int(part)) for part in batch["part"]])}

    def _score(self, part: int) -> int:
        pieces = [
            pa.Table.from_pylist(self._rows(photos), SCHEMA) for photos in prefetch(read(self.job.catalogue, part))
        ]
        table = pa.concat_tables([SCHEMA.empty_table(), *pieces])
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write(self.job.out, part_name(part), buffer.getvalue())
        return len(table)

    def _rows(self, photos: list[Photo]) -> list[dict[str, Any]]:
        """Return a row for each photo, in order; each model scores its photos in one forward pass."""
        rows: list[dict[str, Any]] = [{"name": photo.name, "listing": photo.listing} for photo in photos]
        for row, photo in zip(rows, photos, strict=True):
            if photo.listing is not None and isinstance(photo.data, bytes):
                row["digest"] = hashlib.sha256(photo.data).hexdigest()
        decoded = list(self._decoded(rows, [photo.data for photo in photos]))
        decoded.sort(key=lambda photo: photo.model)
        for name, group in groupby(decoded, key=lambda photo: photo.model):
            self._judge(self.job.models[name], list(group))
        return rows

    def _decoded(self, rows: list[dict[str, Any]], files: list[bytes | Exception]) -> Iterator[_Decoded]:
        for row, data in zip(rows, files, strict=True):
            if isinstance(data, Exception):
                row |= {"error_type": "unreadable", "error": _said(data)}
                continue
            try:
                photo = decode(data)
                credential = self.job.credentials.read(data, kind=photo.format, xmp=photo.metadata.xmp)
                said = provenance(credential, *marks.read(photo.metadata))
                model = choose(self.cards, *photo.image.size)
                pixels = self.job.models[model].detector.prepare(photo.image)
            except ImageError as error:
                row |= {"error_type": error.error_type, "error": error.message}
            except Exception as error:  # whatever one photo does, the others of its part are scored
                row |= {"error_type": "internal_error", "error": _said(error)}
            else:
                row |= {"width": photo.image.width, "height": photo.image.height}
                yield _Decoded(row, model, pixels, said, list(photo.notes))

    def _judge(self, by: InForce, photos: list[_Decoded]) -> None:
        scores = by.detector.score(np.stack([photo.pixels for photo in photos]))
        for place, photo in enumerate(photos):
            verdict = by.judge(
                scores,
                place,
                width=photo.row["width"],
                height=photo.row["height"],
                provenance=photo.provenance,
                notes=photo.notes,
                review_marked=self.job.review_marked,
            )
            c2pa = photo.provenance.c2pa
            photo.row.update(
                verdict.model_dump(exclude=_NESTED),
                domain_embedding=verdict.domain.embedding,
                domain_geometry=verdict.domain.geometry,
                c2pa_status=c2pa and c2pa.status,
                c2pa_declares=c2pa and list(c2pa.declares),
                ai_markers=photo.provenance.ai_markers,
                marks=[dataclasses.asdict(mark) for mark in photo.provenance.marks],
            )


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def write(out: str, name: str, data: bytes) -> None:
    """Write a file whole or not at all; writes to an object store are so already."""
    fs, folder = url_to_fs(out)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(f"{folder}/{name}", data)
        return
    with whole_file(Path(folder) / name) as temporary:
        temporary.write_bytes(data)
