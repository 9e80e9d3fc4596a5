"""A catalogue of photos to score: a folder, a glob or Parquet files, on a disk or in a bucket (any URL of fsspec).

It is cut into parts once, and the parts are written to a file: a later start has the same parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from service.photo.formats import SUFFIXES
from stages.common import StageError

SCHEMA = pa.schema([("part", pa.int32()), ("path", pa.string()), ("row_group", pa.int32()), ("photos", pa.int64())])

_CHUNK = 32  # photos fetched at a time; from a bucket all at once
_NAMES = ("name", "path", "filename", "id")  # columns of Parquet files that tell a photo's name, first found first

FOLDER, OF_COLUMN = "folder", "column:"  # what tells the listing of a photo


class Photo(NamedTuple):
    """A photo of a catalogue.

    Attributes:
        name: its path, or what the Parquet file calls it.
        data: its bytes, or why there are none.
        listing: the listing that it is of; None: nothing says so.
    """

    name: str
    data: bytes | Exception
    listing: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """Where photos are, and in which parts they are scored.

    Attributes:
        source: as it was named.
        column: of Parquet files, where the photos are.
        table: `SCHEMA`. One row is one photo's file, or one row group of a Parquet file.
        listing_by: `folder`: photos in one folder are of one listing; `column:NAME`: those with the same value there;
            empty: nothing is known of listings.
    """

    source: str
    column: str
    table: pa.Table
    listing_by: str = ""

    def parts(self) -> dict[int, int]:
        """Return each part's number and how many photos it has."""
        sums = self.table.group_by("part").aggregate([("photos", "sum")])
        return dict(zip(sums["part"].to_pylist(), sums["photos_sum"].to_pylist(), strict=True))

    def rows(self, part: int) -> list[dict[str, Any]]:
        """Return the rows of a part."""
        first, end = np.searchsorted(self.table["part"].to_numpy(), [part, part + 1])
        rows: list[dict[str, Any]] = self.table.slice(first, end - first).to_pylist()
        return rows


def survey(source: str, column: str, part_photos: int, listing_by: str = "") -> pa.Table:
    """List the photos of `source`, cut into parts: `SCHEMA`.

    Args:
        source: a folder, a glob or one file, local or a URL. Parquet files are read where their names say so; else
            every file that is called like a photo, in folders below it, too.
        column: of Parquet files, the one with the photos: their bytes, or `datasets`' struct of bytes and path.
        part_photos: files in a part. Of Parquet files a row group is a part.
        listing_by: as `Catalogue.listing_by`.

    Raises:
        StageError: there is nothing to score, or no such column.
    """
    try:
        fs, path = url_to_fs(source)
        if not has_magic(path) and not fs.exists(path):
            raise StageError(f"{source} does not exist: name a folder, a glob or a file")
        found = sorted([path] if fs.isfile(path) else fs.find(path) if fs.isdir(path) else fs.glob(path))
    except (ImportError, ValueError, OSError) as error:
        raise StageError(f"{source} cannot be listed: {' '.join(str(error).split())}") from error
    tables = [each for each in found if each.endswith(".parquet")]
    photos = [each for each in found if _is_photo(PurePosixPath(each))]
    if tables and photos:
        raise StageError(f"{source} holds Parquet files and photos: name one kind, such as '{source}/*.parquet'")
    if tables and (groups := _row_groups(fs, tables, column, listing_by)).num_rows:
        return groups
    if not photos:
        raise StageError(
            f"{source} holds no .parquet, {', '.join(sorted(SUFFIXES))}: name a folder, glob or bucket with some"
        )
    if listing_by.startswith(OF_COLUMN):
        raise StageError(f"{source} holds photos, and columns are of Parquet files: take --listing-by {FOLDER}")
    part = [place // part_photos for place in range(len(photos))]
    columns = {"part": part, "path": photos, "row_group": [-1] * len(photos), "photos": [1] * len(photos)}
    return pa.table(columns, schema=SCHEMA)


def read(catalogue: Catalogue, part: int) -> Iterator[list[Photo]]:
    """Yield a part's photos in order, some at a time: each one's name, and its bytes or why there are none."""
    fs, _ = url_to_fs(catalogue.source)
    rows = catalogue.rows(part)
    if rows[0]["row_group"] >= 0:
        for row in rows:
            yield from _from_row_group(fs, row["path"], row["row_group"], catalogue)
        return
    for start in range(0, len(rows), _CHUNK):
        names = [row["path"] for row in rows[start : start + _CHUNK]]
        found = zip(names, fs.cat_ranges(names, None, None, on_error="return"), strict=True)
        yield [Photo(name, data, _listing(catalogue, name)) for name, data in found]


def _listing(catalogue: Catalogue, name: str) -> str | None:
    """Return the folder of a photo, where that tells its listing."""
    parent = str(PurePosixPath(name).parent)
    return parent if catalogue.listing_by == FOLDER and parent != "." else None


def _is_photo(path: PurePosixPath) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._")  # macOS puts such beside each file


def _row_groups(fs: fsspec.AbstractFileSystem, tables: list[str], column: str, listing_by: str) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for path in tables:
        try:
            with fs.open(path) as file, pq.ParquetFile(file) as parquet:
                names, metadata = parquet.schema_arrow.names, parquet.metadata
        except (OSError, pa.ArrowException) as error:
            raise StageError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())[:300]}") from error
        if column not in names:
            raise StageError(f"{path} has no column '{column}', but {', '.join(names)}: name it with --column")
        if listing_by.startswith(OF_COLUMN) and (listing := listing_by.removeprefix(OF_COLUMN)) not in names:
            raise StageError(
                f"{path} has no column '{listing}', but {', '.join(names)}: name it with --listing-by {OF_COLUMN}NAME"
            )
        for group in range(metadata.num_row_groups):
            if photos := metadata.row_group(group).num_rows:
                for name, value in zip(SCHEMA.names, (len(rows["part"]), path, group, photos), strict=True):
                    rows[name].append(value)
    return pa.table(rows, schema=SCHEMA)


def _from_row_group(
    fs: fsspec.AbstractFileSystem, path: str, group: int, catalogue: Catalogue
) -> Iterator[list[Photo]]:
    column, by = catalogue.column, catalogue.listing_by
    listing = by.removeprefix(OF_COLUMN) if by.startswith(OF_COLUMN) else None
    with fs.open(path) as file, pq.ParquetFile(file) as parquet:
        names = [name for name in _NAMES if name in parquet.schema_arrow.names and name != column][:1]
        wanted = list(dict.fromkeys([column, *names, *([listing] if listing else [])]))
        place = 0
        for batch in parquet.iter_batches(_CHUNK, row_groups=[group], columns=wanted):
            photos: list[Photo] = []
            for row in batch.to_pylist():
                value = row[column]
                inner = value.get("path") if isinstance(value, dict) else None
                data = value.get("bytes") if isinstance(value, dict) else value
                name = row[names[0]] if names else inner
                known = str(name) if name is not None else f"{path}#{group}:{place}"
                of = row[listing] if listing else _listing(catalogue, known)
                bytes_ = data if isinstance(data, bytes) else ValueError("the row holds no bytes")
                photos.append(Photo(known, bytes_, None if of is None else str(of)))
                place += 1
            yield photos
