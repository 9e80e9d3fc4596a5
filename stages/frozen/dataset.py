"""The data set of a model of the recipe `frozen`: a table of photos, and beside it what the encoder made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stages.common import LABELS, StageError, whole_file
from stages.frozen.subjects import subject_of

PHOTOS, DESCRIBED = "photos.parquet", "features.npz"  # in each of the two folders that preprocess writes
DRAWINGS = "drawings.npy"  # in the first: features of pictures that are no photos

RENDER = 2  # label of what is neither real nor AI-generated
_NAMES = (*LABELS, "render")
_ROWS = 64  # photos written at a time
OWN = "own/"  # a source of your own photos begins with it


@dataclass(frozen=True)
class _Columns:
    """Arrays of N rows each.

    Attributes:
        sha256: str [N], of the photos' files.
    """

    sha256: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sha256)

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Return the given rows, in the given order."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Described(_Columns):
    """N photos as the head sees them. The rows of all arrays are those of `sha256`.

    Attributes:
        features: float16 [N, 1 + views, D]; the first is of the photo as it was found, then one for each rewrite.
        hash: uint64 [N], perceptual hashes.
        width: int64 [N], of the upright photo, in pixels.
        height: likewise.
        jpeg_quality: int64 [N], 0 for other formats.
        format: str [N], such as JPEG.
        white: float32 [N], share of the outer frame of the photo that is white.
        statistics: float32 [N, 3], brightness, contrast and sharpness of the photo as found, as the service has them.
    """

    features: npt.NDArray[np.float16]
    hash: npt.NDArray[np.uint64]
    width: npt.NDArray[np.int64]
    height: npt.NDArray[np.int64]
    jpeg_quality: npt.NDArray[np.int64]
    format: npt.NDArray[np.str_]
    white: npt.NDArray[np.float32]
    statistics: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write all of it as one .npz file, whole or not at all."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{field.name: getattr(self, field.name) for field in fields(self)})

    @staticmethod
    def load(path: Path) -> "Described":
        """Read what `save` wrote.

        Raises:
            StageError: the file is missing or damaged.
        """
        try:
            with np.load(path) as stored:
                return Described(**{field.name: stored[field.name] for field in fields(Described)})
        except Exception as error:  # numpy and zipfile have many classes for a damaged file
            raise StageError(f"{path} is missing or damaged ({error}): run 'dvc repro' again") from error


@dataclass(frozen=True)
class Rows(_Columns):
    """What is known of N photos, in the order of their digests.

    Attributes:
        label: int64 [N], an index of LABELS, or `RENDER`.
        source: str [N], the shop, catalogue or repository.
        generator: str [N], of an AI image.
        date: str [N].
        licence: str [N].
        train: bool [N], whether it may be learned from.
        subject: str [N], what it shows, as `subject_of` tells.
    """

    label: npt.NDArray[np.int64]
    source: npt.NDArray[np.str_]
    generator: npt.NDArray[np.str_]
    date: npt.NDArray[np.str_]
    licence: npt.NDArray[np.str_]
    train: npt.NDArray[np.bool_]
    subject: npt.NDArray[np.str_]

    @property
    def own(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which are your own."""
        return np.char.startswith(self.source, OWN)

    @property
    def of_source(self) -> npt.NDArray[np.float64]:
        """float64 [N]: how many of these photos are of the same source."""
        _, place, count = np.unique(self.source, return_inverse=True, return_counts=True)
        return count[place].astype(np.float64)


@dataclass(frozen=True)
class PhotoSet:
    """Photos, and what the encoder made of them.

    Attributes:
        rows: N photos.
        seen: of the same N.
    """

    rows: Rows
    seen: Described

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: npt.NDArray[Any]) -> "PhotoSet":
        """Return the given rows, in the given order."""
        return PhotoSet(self.rows.take(rows), self.seen.take(rows))


def rows_of(table: pa.Table) -> Rows:
    """Return the columns of a table of photos that are not the photos themselves."""
    column = {name: np.array(table[name].to_pylist(), dtype=np.str_) for name in table.column_names if name != "photo"}
    return Rows(
        sha256=column["sha256"],
        label=np.array([_NAMES.index(name) for name in column["label"].tolist()], np.int64),
        source=column["source"],
        generator=column["generator"],
        date=column["date"],
        licence=column["licence"],
        train=column["use"] == "train",
        subject=np.array([subject_of(*of) for of in zip(column["source"], column["path"], strict=True)], np.str_),
    )


def read_rows(path: Path) -> Rows:
    """Read a table of photos without the photos.

    Raises:
        StageError: the file is missing or damaged.
    """
    try:
        return rows_of(pq.read_table(path, columns=[name for name in pq.read_schema(path).names if name != "photo"]))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise StageError(f"{path} is missing or damaged ({error}): run 'dvc repro' again") from error


def load(folder: Path) -> PhotoSet:
    """Read what preprocess wrote into a folder.

    Raises:
        StageError: a file is missing or damaged, or they are of different photos.
    """
    found = PhotoSet(read_rows(folder / PHOTOS), Described.load(folder / DESCRIBED))
    if found.rows.sha256.tolist() != found.seen.sha256.tolist():
        raise StageError(f"{folder / PHOTOS} and {folder / DESCRIBED} are of different photos: run 'dvc repro' again")
    return found


def read_photos(path: Path, digests: Sequence[str]) -> dict[str, bytes]:
    """Return the files of some photos of a table, by their digests."""
    wanted, found = set(digests), {}
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=["sha256", "photo"]):
        for digest, photo in zip(batch["sha256"].to_pylist(), batch["photo"], strict=True):
            if digest in wanted:
                found[digest] = photo.as_py()
    return found


def write_photos(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Write a table of photos, whole or not at all; `photo` of a row is a function that reads the file."""
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="none") as table:
        for start in range(0, len(rows), _ROWS):
            part = [row | {"photo": row["photo"]()} for row in rows[start : start + _ROWS]]
            table.write_table(pa.Table.from_pylist(part, schema))


def joined(parts: Sequence[Described]) -> Described:
    """Put several of them one after another."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Described)}
    return Described(**{name: np.concatenate(values) for name, values in columns.items()})


def kept_array(path: Path, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the array of an .npy file; where there is none, make it and write it, whole or not at all."""
    if not path.exists():
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, make())
    array: npt.NDArray[Any] = np.load(path)
    return array
