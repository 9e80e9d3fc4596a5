"""One row for each listing of a catalogue that is scored: `_listings.parquet` beside the parts.

Photos of a listing may lie anywhere in the catalogue. So the rows of all parts are first spread over files by a hash of
their listing, each small enough to be sorted in memory.
"""

import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.models.listing import Judge, ListingVerdict, Member, distinct, judge_listing
from stages.common import whole_file
from tools.score.scorer import Job, part_name

LISTINGS = "_listings.parquet"  # in OUT; the underscore keeps it out of the table of photos
SCHEMA = pa.schema(
    [
        ("listing", pa.string()),
        ("decision", pa.string()),
        ("decided_by", pa.string()),
        ("probability", pa.float64()),
        ("carried_by", pa.list_(pa.string())),  # names of photos, the most suspicious first
        ("photos", pa.int64()),
        ("in_domain", pa.int64()),
        ("repeated", pa.int64()),
        ("failed", pa.int64()),
        ("alpha", pa.float64()),
        ("notes", pa.list_(pa.string())),
    ]
)
_READ = ("listing", "digest", "name", "probability", "in_domain", "decision", "decided_by", "model", "error_type")
_SORTED = 1_000_000  # rows that are sorted in memory, about
_MOST_FILES = 500  # open at a time
_ROWS = 10_000  # handled at a time


def write_listings(job: Job, judges: Mapping[str, Judge], alpha: float) -> Counter[str]:
    """Write what is said of each listing; return how many there are of each decision.

    Args:
        job: whose parts are all written.
        judges: of the job's models, by their names.
        alpha: the share of real listings that may be flagged.
    """
    counts: Counter[str] = Counter()
    fs, folder = url_to_fs(job.out)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / LISTINGS
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for spread in _spread(job, Path(temporary)):
                rows: list[dict[str, Any]] = []
                for row in _judged(spread, judges, alpha):
                    counts[row["decision"]] += 1
                    rows.append(row)
                    if len(rows) == _ROWS:
                        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                        rows = []
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        if isinstance(fs, LocalFileSystem):
            with whole_file(Path(folder) / LISTINGS) as written:
                shutil.copyfile(file, written)
        else:
            fs.put_file(str(file), f"{folder}/{LISTINGS}")
    return counts


def _spread(job: Job, temporary: Path) -> list[Path]:
    """Write the rows that have a listing to files, all those of a listing to one; return the files."""
    fs, folder = url_to_fs(job.out)
    names = [f"{folder}/{part_name(part)}" for part in job.catalogue.parts()]
    parts = ds.dataset(names, filesystem=fs, format="parquet")
    count = min(_MOST_FILES, 1 + parts.count_rows() // _SORTED)
    files = [temporary / f"{place}.parquet" for place in range(count)]
    schema = pa.schema([parts.schema.field(name) for name in _READ] + [("place", pa.int64())])
    place = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(file, schema)) for file in files]
        for batch in parts.to_batches(columns=list(_READ), batch_size=_ROWS):
            table = pa.Table.from_batches([batch])
            table = table.append_column("place", pa.array(range(place, place + len(table)), pa.int64()))
            place += len(table)
            chosen = [
                -1 if listing is None else zlib.crc32(listing.encode()) % count
                for listing in batch["listing"].to_pylist()
            ]
            for each in set(chosen) - {-1}:
                writers[each].write_table(table.filter(pa.array([one == each for one in chosen])))
    return files


def _judged(file: Path, judges: Mapping[str, Judge], alpha: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each listing of a file, in the order of their names."""
    table = pq.read_table(file).sort_by([("listing", "ascending"), ("place", "ascending")])
    rows = (row for batch in table.to_batches(_ROWS) for row in batch.to_pylist())
    for listing, photos in groupby(rows, key=lambda row: row["listing"]):
        yield _row(listing, list(photos), judges, alpha)


def _row(listing: str, rows: list[dict[str, Any]], judges: Mapping[str, Judge], alpha: float) -> dict[str, Any]:
    read = [(place, row) for place, row in enumerate(rows) if row["error_type"] is None]
    photos, repeated = distinct(
        (
            (row["model"], row["digest"]),
            Member(
                place, row["probability"], row["in_domain"], row["decision"], row["decided_by"], judges[row["model"]]
            ),
        )
        for place, row in read
    )
    verdict: ListingVerdict = judge_listing(photos, alpha)
    return verdict.model_dump() | {
        "listing": listing,
        "carried_by": [rows[place]["name"] for place in verdict.carried_by],
        "repeated": len(repeated),
        "failed": len(rows) - len(read),
    }
