"""Tab "Check many": hundreds of photos in batches, a table of verdicts that grows, a CSV to take along."""

import csv
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from client.patience import patiently
from client.service import Service, ServiceError, batches
from ui import words

HEADERS = [
    "photo", "file", "decision", "likely", "P(AI) %", "in domain", "provenance", "model", "listing", "error",
    "request id",
]  # fmt: skip
_TYPES = ["html", "str", "str", "str", "number", "str", "str", "str", "str", "str", "str"]
_WIDTHS = ["64px", "220px", "90px", "130px", "90px", "100px", "130px", "110px", "220px", "260px", "260px"]
ALONE, ALL, BY_NAME = "alone", "all", "name"
_LISTINGS = [
    ("none: each photo alone", ALONE),
    ("all are one listing", ALL),
    ("by name: lamp-1.jpg and lamp-2.jpg are one", BY_NAME),
]
_THUMBNAIL = 48  # pixels
_PATIENCE = 120  # seconds that a batch waits where the service asks for it, before it is given up

Row = list[Any]  # in the order of HEADERS
Rows = dict[str, Row]  # by path


def build(client: Service) -> None:
    """Fill the tab."""
    rows = gr.State({})
    files = gr.File(file_count="multiple", label="Photos: drop or choose any number", height=160)
    together = gr.Radio(_LISTINGS, value=ALONE, label="Listings, which get one decision for all their photos")
    with gr.Row():
        start = gr.Button("Check them", variant="primary", interactive=False)
        download = gr.DownloadButton("Download as CSV", interactive=False)
    said = gr.HTML()
    table = gr.Dataframe(
        headers=HEADERS, datatype=_TYPES, column_widths=_WIDTHS, interactive=False, show_search="filter",  # type: ignore[arg-type]
        max_height=700, label="Verdicts: click a head to sort, type to filter", visible=False,
    )  # fmt: skip

    def chosen(paths: list[str] | None) -> tuple[Any, ...]:
        said = words.hint(f"{len(paths)} chosen.") if paths else ""
        return (
            {},
            said,
            gr.Button(interactive=bool(paths)),
            gr.DownloadButton(interactive=False),
            gr.Dataframe(visible=False),
        )

    def run(
        paths: list[str], how: str, before: Rows, progress: gr.Progress = gr.Progress()  # noqa: B008 - Gradio's way
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        paths = list(dict.fromkeys(paths))  # the same file twice has one path
        found = (
            checked(client, paths, before, progress)
            if how == ALONE
            else checked_listings(client, listings_of(paths, how), before, progress)
        )
        for rows in found:
            yield (
                rows,
                words.hint(summary(rows, len(paths))),
                gr.Dataframe(list(rows.values()), visible=True),
                gr.skip(),
            )
        yield gr.skip(), gr.skip(), gr.skip(), gr.DownloadButton(value=write_csv(list(rows.values())), interactive=True)

    files.change(chosen, files, [rows, said, start, download, table])
    together.change(chosen, files, [rows, said, start, download, table])  # what was said holds no more
    start.click(run, [files, together, rows], [rows, said, table, download], show_progress_on=said)


def checked(client: Service, paths: list[str], before: Rows, progress: gr.Progress) -> Iterator[Rows]:
    """Check photos in batches; yield all rows after each.

    Photos that have a verdict in `before` are not asked for again: photos that failed are tried again.
    """
    rows = {path: row for path, row in before.items() if not row[HEADERS.index("error")]}
    unanswered = [path for path in paths if path not in rows]
    down = None
    progress((len(rows), len(paths)), unit="photos")
    yield rows
    for batch in batches(unanswered):
        try:
            if down:
                raise down
            answers = _patiently(client.batch, batch, partial(progress, (len(rows), len(paths))))["results"]
            found = [row(path, item) for path, item in zip(batch, answers, strict=True)]
        except ServiceError as error:
            down = error if error.down else None  # the other batches need not wait for the same silence
            found = [failed(path, str(error)) for path in batch]
        rows |= dict(zip(batch, found, strict=True))
        progress((len(rows), len(paths)), unit="photos")
        yield {path: rows[path] for path in paths if path in rows}


def listings_of(paths: list[str], how: str) -> dict[str, list[str]]:
    """Return the photos of each listing, by its name.

    A browser sends the files of a folder without the folder's name. So photos are of one listing where their names are
    the same up to the last `-`, `_`, space or bracket, and what follows is a number.
    """
    if how == ALL:
        return {"all": paths}
    found: dict[str, list[str]] = {}
    for path in paths:
        name = Path(path).stem
        numbered = _NUMBERED.fullmatch(name)
        found.setdefault(numbered[1] if numbered else name, []).append(path)
    return found


_NUMBERED = re.compile(r"(.+?)[-_ (]+\d{1,3}\)?")


def checked_listings(
    client: Service, listings: dict[str, list[str]], before: Rows, progress: gr.Progress
) -> Iterator[Rows]:
    """Check photos listing by listing; yield all rows after each.

    A listing whose photos all have a verdict in `before` is not asked for again.
    """
    paths = [path for photos in listings.values() for path in photos]
    done = {path for path, row in before.items() if not row[HEADERS.index("error")]}
    rows: Rows = {}
    down = None
    for name, photos in listings.items():
        if set(photos) <= done:
            rows |= {path: before[path] for path in photos}
            continue
        progress((len(rows), len(paths)), unit="photos")
        try:
            if down:
                raise down
            rows |= _rows_of_listing(client, name, photos, partial(progress, (len(rows), len(paths))))
        except ServiceError as error:
            down = error if error.down else None
            rows |= {path: failed(path, str(error)) for path in photos}
        yield {path: rows[path] for path in paths if path in rows}
    yield rows


def _rows_of_listing(client: Service, name: str, photos: list[str], say: Callable[..., Any]) -> Rows:
    answer = _patiently(client.listing, photos, say)
    said = answer["listing"]
    rows = {path: row(path, item) for path, item in zip(photos, answer["results"], strict=True)}
    for place, path in enumerate(photos):
        because = ", because of this photo" if place in said["carried_by"] and said["decision"] != "clear" else ""
        rows[path][HEADERS.index("listing")] = f"{name}: {said['decision']}{because}"
    return rows


def _patiently(
    ask: Callable[[list[str]], dict[str, Any]], photos: list[str], say: Callable[..., Any]
) -> dict[str, Any]:
    """Ask for a batch or a listing; where the service says how long to wait, wait and ask again."""

    def tell(seconds: float) -> None:
        say(desc=f"The detector asks to wait {seconds:.0f} seconds")

    answer: dict[str, Any] = patiently(_PATIENCE, tell, when_down=False)(ask, photos)
    return answer


def summary(rows: Rows, total: int) -> str:
    """Say what came out so far."""
    decisions = [row[HEADERS.index("decision")] for row in rows.values()]
    counts = ", ".join(f"{decisions.count(name)} {name}" for name in ("flag", "review", "clear"))
    failures = decisions.count("")
    more = f", {failures} without a verdict: the table says why; the button tries them again" if failures else ""
    return f"{len(rows)} of {total} photos: {counts}{more}.{_of_listings(rows)}"


def _of_listings(rows: Rows) -> str:
    cells = [cell.rpartition(": ") for row in rows.values() if (cell := row[HEADERS.index("listing")])]
    found = {name: said.partition(",")[0] for name, _, said in cells}
    if not found:
        return ""
    decisions = list(found.values())
    counts = ", ".join(f"{decisions.count(name)} {name}" for name in ("flag", "review", "clear"))
    return f" {len(found)} listing{'' if len(found) == 1 else 's'}: {counts}."


def row(path: str, item: dict[str, Any]) -> Row:
    """Return the row of one item of a batch's answer."""
    if item["error"]:
        return failed(path, item["error"], item["request_id"])
    likely, c2pa = words.LABELS[item["prediction"]], item["provenance"]["c2pa"]
    signed = [f"c2pa: {c2pa['status']}"] if c2pa else []
    made = ", ".join([*signed, *(f"{mark['where']}: {mark['says']}" for mark in item["provenance"].get("marks", []))])
    inside = "yes" if item["in_domain"] else "no"
    # Out of domain the probability says nothing.
    likely, share = (likely, round(100 * item["probability"], 2)) if item["in_domain"] else ("", None)
    return [
        thumbnail(path), Path(path).name, item["decision"], likely, share, inside, made, words.model(item), "",
        "", item["request_id"],
    ]  # fmt: skip


def failed(path: str, sentence: str, request_id: str = "") -> Row:
    """Return the row of a photo without a verdict."""
    return [thumbnail(path), Path(path).name, "", "", None, "", "", "", "", sentence, request_id]


def thumbnail(path: str) -> str:
    """Return a small picture as HTML; nothing if the file is not a picture."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
            small = image.convert("RGB")
    except Exception:  # whatever is wrong with it, its row says it
        return ""
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return f'<img alt="" src="{words.picture(small)}">'


def write_csv(rows: list[Row]) -> str:
    """Write rows without their pictures as CSV; return the file's path.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it: file names come from strangers.
    """
    path = Path(tempfile.mkdtemp(prefix="verdicts-")) / "verdicts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADERS[1:])
        writer.writerows([_harmless(cell) for cell in row[1:]] for row in rows)
    return str(path)


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
