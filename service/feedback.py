"""What moderators said, on the command line, with the service's settings (LOG_URL).

python -m service.feedback export feedback.csv --since 30d     what was said, with the predictions it is about
python -m service.feedback disagreement --since 30d            where moderators disagree, slice by slice

Reviewed photos are not a random sample: the share of disagreement among them is not the service's error rate.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.drift.times import TimeRangeError, span
from service.log.prediction_log import PredictionLog
from service.log.tables import PREDICTIONS, now
from service.models import decision
from service.settings import load_settings

FAILED = 2  # exit code
_FIRST = ("request_id", "time", "reviewed", "reviewer", "label", "prediction", "agrees")
_INNER = {"id", "score", "embedding"}  # of no use to a person
COLUMNS = (*_FIRST, *(column.key for column in PREDICTIONS.columns if column.key not in {*_FIRST, *_INNER}))

Row = dict[str, Any]


def reviewed(log: PredictionLog, since: str | None, until: str | None, model: str | None = None) -> list[Row]:
    """Return one row for each reviewed prediction, with `COLUMNS`; of several labels the newest counts.

    Args:
        log: the prediction log.
        since: feedback from then on: 24h, 7d, or ISO 8601; None: all.
        until: feedback before; needs `since`.
        model: only of its predictions; None: of all models.

    Raises:
        TimeRangeError: the two are not a time range.
        sqlalchemy.exc.SQLAlchemyError, OSError: the log cannot be read.
    """
    begin, end = span(since, until, now()) or (None, None)
    rows = log.reviewed(begin, None if until is None else end, model)
    return [{name: (row | {"agrees": row["label"] == row["prediction"]})[name] for name in COLUMNS} for row in rows]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a table, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def slices(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Cut reviewed predictions into slices, by what a moderator may want to know: name -> rows, none empty."""
    found: dict[str, list[Mapping[str, Any]]] = {"all": list(rows)}
    middle = {name: median(row[name] for row in rows) for name in ("brightness", "sharpness")} if rows else {}
    for row in rows:
        size = max(row["width"], row["height"])
        names = [
            f"called {row['prediction']}",
            f"decision {row['decision']}",
            f"confidence {decision.confidence(row['probability'], row['in_domain'])}",
            "in domain" if row["in_domain"] else "out of domain",
            f"credential {row['credential'] or 'none'}",
            next((f"up to {side} px" for side in (32, 256, 1024) if size <= side), "over 1024 px"),
            *(f"{'upper' if row[name] > middle[name] else 'lower'} half of {name}" for name in middle),
            f"model {row['model']} {row['model_version']}",
        ]
        for name in names:
            found.setdefault(name, []).append(row)
    return found


def disagreement(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of how often moderators disagreed, the slice with the largest share first.

    `false accusations`: called AI-generated, and real; `missed`: called real, and AI-generated.
    """
    lines = [f"{'slice':<28}{'reviewed':>9}{'disagree':>9}{'share':>7}{'false accusations':>19}{'missed':>8}"]
    counted = []
    for name, part in slices(rows).items():
        wrong = [row for row in part if not row["agrees"]]
        missed = sum(row["label"] == "ai_generated" for row in wrong)
        counted.append((len(wrong) / max(1, len(part)), name, len(part), len(wrong), len(wrong) - missed, missed))
    whole, *parts = counted
    for share, name, count, wrong_ones, accused, missed in [whole, *sorted(parts, key=lambda each: -each[0])]:
        lines.append(f"{name:<28}{count:>9}{wrong_ones:>9}{share:>7.1%}{accused:>19}{missed:>8}")
    return "\n".join(lines)


def main() -> int:
    """Run a command; return its exit code: 0, or 2 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m service.feedback", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write feedback and the predictions it is about as CSV")
    export.add_argument("out", type=Path, metavar="OUT", help="such as feedback.csv")
    table = commands.add_parser("disagreement", help="where moderators disagree")
    for command in (export, table):
        command.add_argument("--since", help="feedback from then on: 24h, 7d, or ISO 8601; without it: all")
        command.add_argument("--until", help="feedback before")
        command.add_argument("--model", metavar="NAME", help="only of this model's predictions; without it: of all")
    arguments = parser.parse_args()
    log = PredictionLog(load_settings().log_url)
    try:
        rows = reviewed(log, arguments.since, arguments.until, arguments.model)
        if arguments.command == "export":
            write_csv(arguments.out, rows)
            print(f"{arguments.out}: {len(rows)} reviewed predictions")
        else:
            print(disagreement(rows))
    except (TimeRangeError, SQLAlchemyError, OSError) as error:
        print(f"error: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return FAILED
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
