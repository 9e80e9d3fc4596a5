"""Scores all photos of a folder into one table, several requests at a time; stopped and started again, it continues.

Every answer is written to a journal beside the table as soon as it is there; the table is made of it at the end.
"""

import csv
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client.answers import Answer, Failure, Prediction
from client.client import Client
from client.service import BATCH, Photo, ServiceError, batches

SUFFIXES = frozenset({".avif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp"})
COLUMNS = (
    "path", "decision", "decided_by", "prediction", "probability", "confidence", "in_domain", "domain_embedding",
    "domain_geometry", "trust", "c2pa_status", "c2pa_declares", "ai_markers", "marks", "notes", "model",
    "model_version", "calibration", "request_id", "error_type", "error",
)  # fmt: skip

Row = dict[str, Any]
Ask = Callable[[Sequence[Photo]], list[Answer]]


class FolderError(Exception):
    """The folder or the table cannot be used; the message says what to do."""


def score_folder(
    client: Client, folder: Path, out: Path, *, concurrency: int = 4, batch: int = BATCH, group: str | None = None
) -> list[Row]:
    """Score every JPEG, PNG, WebP, AVIF and HEIC file below a folder, each exactly once.

    Args:
        client: the service that answers.
        folder: looked through with the folders in it; links to folders are not followed.
        out: the table, `.csv` or `.parquet`, with `COLUMNS`. While photos are missing, `<out>.journal` holds what is
            there.
        concurrency: requests at a time.
        batch: photos in a request, at most.
        group: of the shop's photos, where its own calibration has groups: theirs are the thresholds.

    Returns:
        The table's rows, sorted by path (relative to the folder, with `/`). A photo that cannot be scored is a row
        with its error.

    Raises:
        FolderError: the folder cannot be read, the table is there already, or the journal is another folder's or
            group's.
        ServiceError: the service cannot answer; what is done stays done.
    """
    if out.suffix.lower() not in {".csv", ".parquet"}:
        raise FolderError(f"{out}: name a .csv or .parquet file")
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    if out.exists():
        raise FolderError(f"{out} is there already: remove it, or name another file")
    names, _ = photos_of(folder)
    with _journal(Path(f"{out}.journal"), folder, group) as (file, rows):
        left = [name for name in names if name not in rows]
        with tqdm(total=len(names), initial=len(names) - len(left), unit=" photos") as bar:
            for found in _ask(partial(client.predict_batch, group=group), folder, left, concurrency, batch):
                file.writelines(json.dumps(row) + "\n" for row in found)
                file.flush()
                rows |= {row["path"]: row for row in found}
                bar.update(len(found))
        table = [rows[name] for name in names]
        write_table(out, table)
        Path(file.name).unlink()
    return table


def photos_of(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the photos below a folder, and what else is there.

    Returns:
        The photos' relative paths, sorted; and how many other files there are of each suffix. Hidden files are not
        counted, nor asked for the `._name.jpg` that macOS writes beside each file.

    Raises:
        FolderError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise FolderError(f"{error.filename} cannot be read: {error.strerror}")

    found: list[str] = []
    others: Counter[str] = Counter()
    for place, _, files in os.walk(folder, onerror=refuse):
        for path in (Path(place, name) for name in files):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("._"):
                found.append(path.relative_to(folder).as_posix())
            elif not path.name.startswith("."):
                others[path.suffix.lower() or "no suffix"] += 1
    return sorted(found), others


def write_table(out: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV or Parquet, whole or not at all.

    In CSV a list is one cell, its items divided by `;`. Cells that a spreadsheet would take for formulas are marked:
    names and credentials come from strangers.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        if out.suffix.lower() == ".parquet":
            _write_parquet(temporary, rows)
        else:
            with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows([_cell(name, row.get(name)) for name in COLUMNS] for row in rows)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _cell(name: str, value: Any) -> Any:
    text = ";".join(value) if isinstance(value, list) else value
    if isinstance(text, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"./{text}" if name == "path" else f"'{text}"  # as a path it is the same
    return text


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"probability": pa.float64(), "c2pa_declares": pa.list_(pa.string()), "ai_markers": pa.list_(pa.string())}
    types |= dict.fromkeys(("marks", "notes"), pa.list_(pa.string()))
    types |= dict.fromkeys(("in_domain", "domain_embedding", "domain_geometry"), pa.bool_())
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    printable = [row | {"path": row["path"].encode("utf-8", "replace").decode()} for row in rows]
    pq.write_table(pa.Table.from_pylist(printable, schema), path)


@contextmanager
def _journal(path: Path, folder: Path, group: str | None) -> Iterator[tuple[TextIOWrapper, dict[str, Row]]]:
    """Open the journal, one process at a time; yield it and what it holds. A torn last line is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{path} is in use: another run is at work") from None
        file.seek(0)
        whole, newline, torn = file.read().rpartition("\n")
        head, *lines = whole.split("\n") if newline else [torn]  # a crash may have torn the first line, too
        here = {"folder": str(folder.resolve())} | ({"group": group} if group else {})
        this = json.dumps(here)
        try:
            there = json.loads(head if newline or not this.startswith(torn) else this)
            other, others_group = there["folder"], there.get("group")
            rows = {row["path"]: row for row in map(json.loads, lines)}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FolderError(f"{path} is not a journal of this program: remove it, or name another OUT") from None
        if other != str(folder.resolve()):
            raise FolderError(f"{path} is of another folder, {other}: remove it, or name another OUT")
        if others_group != group:
            raise FolderError(f"{path} is of --group {others_group}: give that, remove it, or name another OUT")
        file.truncate(len((whole + newline).encode()))
        if not newline:
            file.write(this + "\n")
        yield file, rows


def _ask(ask: Ask, folder: Path, names: Sequence[str], concurrency: int, batch: int) -> Iterator[list[Row]]:
    """Yield rows as they come, a batch's at a time."""
    todo = batches(names, batch, lambda name: _size(folder / name))
    threads = ThreadPoolExecutor(concurrency)
    asked: set[Future[list[Row]]] = set()
    try:
        while True:
            more = islice(todo, concurrency - len(asked))
            asked |= {threads.submit(_score, ask, folder, some) for some in more}
            if not asked:
                return
            done, asked = wait(asked, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
    finally:  # without waiting: what is asked may have to wait for a busy service, for minutes
        threads.shutdown(wait=False, cancel_futures=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it will be told why when it is read
        return 0


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # such as a pipe: nobody may ever write to it
        raise OSError(f"{path.name} is not a file")
    return path.read_bytes()


def _score(ask: Ask, folder: Path, names: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    photos: dict[str, bytes] = {}
    for name in names:
        try:
            photos[name] = _read(folder / name)
        except OSError as error:
            rows.append(_row(name, Failure(error=error.strerror or str(error), error_type="unreadable")))
    if not photos:
        return rows
    answers = _answers(ask, list(photos.values()))
    return rows + [_row(name, answer) for name, answer in zip(photos, answers, strict=True)]


def _answers(ask: Ask, photos: list[bytes]) -> list[Answer]:
    """Ask for a batch. If that fails, ask photo by photo, so that one photo cannot stop the others."""
    try:
        return ask(photos)
    except ServiceError as error:
        if error.status not in {413, 500}:
            raise
        if len(photos) > 1:
            return [answer for photo in photos for answer in _answers(ask, [photo])]
        return [Failure(error=str(error), error_type=error.error or "refused")]


def _row(name: str, answer: Answer) -> Row:
    row: Row = dict.fromkeys(COLUMNS) | {"path": name}
    if isinstance(answer, Prediction):
        c2pa = answer.provenance.c2pa
        row |= {
            "domain_embedding": answer.domain.embedding,
            "domain_geometry": answer.domain.geometry,
            "trust": answer.provenance.trust,
            "ai_markers": answer.provenance.ai_markers,
            "marks": [f"{mark.where}: {mark.says}" for mark in answer.provenance.marks],
            "c2pa_status": c2pa and c2pa.status,
            "c2pa_declares": c2pa and c2pa.declares,
        }
    said = answer.model_dump(exclude={"domain", "provenance"})
    return row | said
