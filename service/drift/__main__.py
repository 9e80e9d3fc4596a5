"""Drift on the command line, with the service's settings (LOG_URL, MODELS, DRIFT_URL, …).

python -m service.drift report --since 24h --out report.html    exit code 1 on drift, for cron; 2: an error
python -m service.drift baseline --since 7d                     adopt your own traffic as the reference
python -m service.drift baseline --undo                         go back to the one before
python -m service.drift baseline                                say what is in force
python -m service.drift report --model cifake                   of this model; without it: of the first one
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from service.drift.columns import Table, take
from service.drift.comparison import TESTED, compare
from service.drift.model_monitor import ModelMonitor
from service.drift.monitor import DriftMonitor
from service.drift.references import BadReferenceError, Reference
from service.models.card import ModelError
from service.settings import load_settings

DRIFT, FAILED = 1, 2  # exit codes


def main() -> int:
    """Run a command; return its exit code: 0, 1 on drift, 2 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m service.drift", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="compare a window with the reference; exit code 1 on drift")
    report.add_argument("--out", type=Path, help="write Evidently's HTML page there")
    baseline = commands.add_parser("baseline", help="the reference: adopt, undo, or say which is in force")
    baseline.add_argument("--undo", action="store_true", help="go back to the reference before the one in force")
    for command in (report, baseline):
        command.add_argument("--model", metavar="NAME", help="without it: the first in alphabetical order")
        command.add_argument("--since", help="24h, 7d, or ISO 8601; of a report, without it: the newest DRIFT_WINDOW")
        command.add_argument("--until", help="likewise; without it: now")
    arguments = parser.parse_args()
    settings = load_settings()
    try:
        all_models = DriftMonitor(settings)
        monitor, names = all_models.monitor(arguments.model), list(all_models.monitors())
        if arguments.model is None and len(names) > 1:
            print(f"of {monitor.name}, the first of {', '.join(names)}; --model takes another")
        if arguments.command == "report":
            return _report(monitor, arguments.since, arguments.until, arguments.out)
        _baseline(monitor, arguments.since, arguments.until, settings.drift_window, undo=arguments.undo)
    except (BadReferenceError, ModelError, SQLAlchemyError, OSError, ValueError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return FAILED
    return 0


def _report(monitor: ModelMonitor, since: str | None, until: str | None, out: Path | None) -> int:
    found = monitor.evaluate(since, until)
    answer = found.answer
    if found.reference is None:
        raise BadReferenceError(answer["alerts"][0])
    print(f"{answer['status']}: {answer['window_size']} predictions, drift score {answer['drift_score']:.3f}")
    if answer["estimated_accuracy"] is not None:
        low, high = answer["estimated_accuracy_interval"]
        print(f"estimated accuracy {answer['estimated_accuracy']:.3f} ({low:.3f} to {high:.3f})")
    for line in answer["alerts"]:
        print(f"  {line}")
    if out is not None:
        if found.page is None:
            raise ValueError(f"{out} is not written: too few predictions to compare")
        out.write_text(found.page, encoding="utf-8")
    return DRIFT if answer["drift_detected"] else 0


def _baseline(monitor: ModelMonitor, since: str | None, until: str | None, size: int, *, undo: bool) -> None:
    references, version = monitor.references, monitor.version()
    if undo:
        print(f"given up: {references.undo()}")
    elif since is not None:
        reference = references.adopt(monitor.rows(since, until), version)
        print(f"adopted: {_said(reference)}")
        if absent := [name for name in TESTED if name not in reference.table]:
            print(f"without {', '.join(absent)}: some of these predictions are from before it was logged")
        windows, alarms = own_alarms(reference.table, size)
        if windows:
            print(f"of its own windows of {size} in a row, {alarms} of {windows} are unlike the rest of it")
        if alarms > max(1, windows // 10):
            print(
                "note: its days or sellers differ among themselves, so expect alarms. "
                "Adopt a longer time, or raise DRIFT_WINDOW"
            )
        return
    elif until is not None:
        raise ValueError("--until needs --since: where does the window begin?")
    print(f"in force: {_said(references.current(version))}")


def own_alarms(table: Table, size: int) -> tuple[int, int]:
    """Return how many windows a reference holds, and how many of them would alarm against the rest of it.

    Photos come in series: one seller's, one day's. Then windows differ although nothing has changed, and the promise of
    few false alarms, which is one for independent photos, does not hold. So they are counted here, before an alarm
    wakes anybody.

    Args:
        table: in the order of time.
        size: predictions in a window; two windows at least must fit.
    """
    count = len(table["score"])
    windows = count // size if count >= 2 * size else 0
    rows = np.arange(count)
    parts = [(rows >= size * place) & (rows < size * (place + 1)) for place in range(windows)]
    alarms = sum(
        any(column.drifted for column in compare(take(table, rows[part]), take(table, rows[~part]))) for part in parts
    )
    return windows, alarms


def _said(reference: Reference) -> str:
    rows = len(reference.table["score"])
    return f"{reference.name}, {rows} predictions, {reference.ai_share:.1%} AI-generated"


if __name__ == "__main__":
    sys.exit(main())
