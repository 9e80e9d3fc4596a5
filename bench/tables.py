"""Write the figures of the benches' reports into docs/ (PERFORMANCE, SCALING, ACCURACY): python bench/tables.py

The benches print the same tables. A test holds that the pages are what this writes.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(ROOT / "docs" / f"{name}.md" for name in ("PERFORMANCE", "SCALING", "ACCURACY"))
BLOCK = re.compile(r"(<!-- (\w+) of reports/(\w+)\.json -->\n).*?(<!-- end -->)", re.DOTALL)

Report = dict[str, Any]


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def ratios(report: Report) -> str:
    """Return what is asked for and what was found."""
    targets = report["targets"]
    return _table(
        ["ratio", "asked for", "found"],
        [[f"`{name}`", targets.get(name, ""), found] for name, found in report["ratios"].items()],
    )


def serving(report: Report) -> str:
    """Return every row of bench/serving.py."""
    rows = []
    for each in report["rows"]:
        times = [each.get(name) for name in ("p50_ms", "p95_ms", "p99_ms")]
        cells = [f"{each['side']} px, {each['kind']}", each["concurrency"] or "", each["who"]]
        cells += [f"{each['images_per_second']:.0f}", f"{each['over_floor']:.2f}"]
        rows.append([*cells, *("" if t is None else f"{t:.1f}" for t in times), sum(each.get("refused", {}).values())])
    head = ["photos", "at a time", "who", "photos/s", "of floor", "p50 ms", "p95 ms", "p99 ms", "refused"]
    return _table(head, rows)


def decode(report: Report) -> str:
    """Return what reading a file costs, by bench/decode.py."""
    head = ["file", "ms", "times the earlier version's", "of it the colour profile, ms"]
    rows = [
        [name, f"{row['ms']:.2f}", row["times_before"] or "", "" if row["profile_ms"] is None else row["profile_ms"]]
        for name, row in report["photos"].items()
    ]
    return _table(head, rows)


def bulk(report: Report) -> str:
    """Return every row of bench/bulk.py."""
    head = ["workers", "photos", "photos/s", "of its cores' floor"]
    return _table(
        head,
        [[r["workers"], f"{r['photos']:,}", r["photos_per_second"], f"{r['over_floor']:.2f}"] for r in report["rows"]],
    )


def stages(report: Report) -> str:
    """Return time and peak memory of each stage and size of bench/pipeline.py."""
    sizes = list(dict.fromkeys(row["images"] for row in report["rows"]))
    found: dict[str, dict[int, str]] = {}
    for row in report["rows"]:
        found.setdefault(row["stage"], {})[row["images"]] = f"{row['seconds']:.0f} s, {row['peak_mb']:,} MB"
    rows = [[stage, *(cells.get(size, "") for size in sizes)] for stage, cells in found.items()]
    return _table(["stage", *(f"{size:,} images" for size in sizes)], rows)


def processes(report: Report) -> str:
    """Return the trainings of bench/pipeline.py, alone and shared."""
    rows = report["processes"]["rows"]
    return _table(
        ["processes", "seconds", "validation accuracy"], [[r["processes"], r["seconds"], r["accuracy"]] for r in rows]
    )


def draft(report: Report) -> str:
    """Return every row of bench/draft.py."""
    return _table(
        ["side", "decoded to at least", "times faster", "largest change of a score", "changed by more than 0.005"],
        [
            [r["side"], f"{r['gap']} x 32", r["faster"], r["largest_change"], f"{r['changed_more']:.0%}"]
            for r in report["rows"]
        ],
    )  # fmt: skip


def int8(report: Report) -> str:
    """Return both files of bench/int8.py."""
    rows = [[r["file"], r["mb"], r["ms_single"], r["ms_in_batch"], r["validation_accuracy"]] for r in report["rows"]]
    return _table(["file", "MB", "ms a photo", "ms a photo in a batch of 20", "accuracy on validation"], rows)


def backbones(report: Report) -> str:
    """Return the networks of bench/backbones.py, the fastest first."""
    rows = [
        [r["name"], f"{r['parameters'] / 1e6:.1f}M", f"{r['milliseconds']:.1f}", f"{r['times_released']:.2f}",
         f"{r['accuracy']:.4f}", f"{r['auc']:.4f}", "yes" if r["on_front"] else ""]
        for r in sorted(report["backbones"], key=lambda row: row["milliseconds"])
    ]  # fmt: skip
    head = ["network", "parameters", "ms a photo", "times the released", "accuracy", "AUC", "beaten by none"]
    return _table(head, rows)


def epochs(report: Report) -> str:
    """Return what longer trainings of the released network reach."""
    rows = [[r["epochs"], r["minutes"], f"{r['accuracy']:.4f}", f"{r['auc']:.4f}"] for r in report["epochs"]]
    return _table(["epochs", "minutes", "accuracy", "AUC"], rows)


# The arithmetic of docs/SCALING.md; these three are assumptions, everything else is measured.
WANTED = 1000  # photos a second
USED = 0.6  # of a core, on average: the rest is for peaks and for a replica that is gone
PRICE = 0.04  # dollars for an hour of a core


def online(report: Report) -> str:
    """Return the cores that `WANTED` photos a second need, by size of the photos."""
    rows = []
    for each in report["rows"]:
        if each["who"] == "ours" and each["kind"] == "single" and each["concurrency"] == 8:
            rate = each["images_per_second"] / report["cores"]
            cores = math.ceil(WANTED / (rate * USED))
            dollars = f"{cores * PRICE * 24 * 30:,.0f}"
            rows.append([f"{each['side']} px", f"{rate:.0f}", f"{WANTED:,} / ({rate:.0f} x {USED}) = {cores}", dollars])
    return _table(["photos", "photos/s a core", "cores", "dollars a month"], rows)


def logged(report: Report) -> str:
    """Return what the prediction log holds at `WANTED` photos a second."""
    size = report["log_bytes_per_prediction"]
    rows = []
    for share in (1, 0.1, 0.01):
        daily = WANTED * share * 86_400
        gigabytes = [f"{daily * days * size / 1e9:,.1f} GB" for days in (1, 7, 90)]
        rows.append([share, f"{WANTED * share:,.0f}", f"{daily / 1e6:,.2f} million", *gigabytes])
    return _table(["`LOG_SHARE`", "rows/s", "rows a day", "a day", "7 days", "90 days"], rows)


def backlog(report: Report) -> str:
    """Return what a billion photos cost `python -m tools.score`."""
    rate = report["rows"][-1]["photos_per_second"] / report["cores"]
    rows = []
    for cores in (report["cores"], 64, 1024):
        days = 1e9 / (rate * cores) / 86_400
        rows.append([f"{cores:,}", f"{rate * cores:,.0f}", f"{days:,.1f}", f"{1e9 / rate / 3600 * PRICE:,.0f}"])
    return _table(["cores", "photos/s", "days for a billion", "dollars"], rows)


TABLES: dict[str, Callable[[Report], str]] = {
    each.__name__: each
    for each in (
        ratios,
        serving,
        decode,
        bulk,
        stages,
        processes,
        draft,
        int8,
        backbones,
        epochs,
        online,
        logged,
        backlog,
    )
}


def with_tables(page: str) -> str:
    """Return the page with all tables as the reports have them."""

    def renewed(match: re.Match[str]) -> str:
        report = json.loads((ROOT / "reports" / f"{match[3]}.json").read_text(encoding="utf-8"))
        return match[1] + TABLES[match[2]](report) + match[4]

    return BLOCK.sub(renewed, page)


def main() -> None:
    """Bring the pages up to date."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
