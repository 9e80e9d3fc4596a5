"""Drift on the command line, with the service's settings (LOG_URL, MODEL_PATH, DRIFT_URL, …).

python -m service.drift report --since 24h --out report.html    1 on drift, for cron
python -m service.drift baseline --since 7d                     adopt your own traffic as the reference
python -m service.drift baseline --undo                         go back to the one before
python -m service.drift baseline                                say what is in force
"""

import argparse
import sys
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.card import ModelError
from service.drift.monitor import DriftMonitor
from service.drift.references import BadReferenceError, Reference, References
from service.settings import Settings, load_settings

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
        command.add_argument("--since", help="24h, 7d, or ISO 8601; of a report, without it: the newest DRIFT_WINDOW")
        command.add_argument("--until", help="likewise; without it: now")
    arguments = parser.parse_args()
    settings = load_settings()
    try:
        if arguments.command == "report":
            return _report(settings, arguments.since, arguments.until, arguments.out)
        _baseline(settings, arguments.since, arguments.until, undo=arguments.undo)
    except (BadReferenceError, ModelError, SQLAlchemyError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return FAILED
    return 0


def _report(settings: Settings, since: str | None, until: str | None, out: Path | None) -> int:
    found = DriftMonitor(settings).compute(since, until)
    answer = found.answer
    print(f"{answer['status']}: {answer['window_size']} predictions, drift score {answer['drift_score']:.3f}")
    if answer["estimated_accuracy"] is not None:
        low, high = answer["estimated_accuracy_interval"]
        print(f"estimated accuracy {answer['estimated_accuracy']:.3f} ({low:.3f} to {high:.3f})")
    for line in answer["alerts"]:
        print(f"  {line}")
    if out is not None:
        if (page := found.page()) is None:
            print(f"{out} is not written: too few predictions, or no reference", file=sys.stderr)
        else:
            out.write_text(page, encoding="utf-8")
    return DRIFT if answer["drift_detected"] else 0


def _baseline(settings: Settings, since: str | None, until: str | None, *, undo: bool) -> None:
    monitor = DriftMonitor(settings)
    references = References(settings.drift_url, settings.model_path)
    version = monitor.model_version()
    if undo:
        print(f"given up: {references.undo()}")
    elif since is not None:
        print(f"adopted: {_said(references.adopt(monitor.rows(since, until), version))}")
        return
    elif until is not None:
        raise ValueError("--until needs --since: where does the window begin?")
    print(f"in force: {_said(references.current(version))}")


def _said(reference: Reference) -> str:
    note = f" ({reference.note})" if reference.note else ""
    rows = len(reference.table["score"])
    return f"{reference.name}, {rows} predictions, {reference.ai_share:.1%} AI-generated{note}"


if __name__ == "__main__":
    sys.exit(main())
