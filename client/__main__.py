"""The detector on the command line.

aidetect check PHOTO …               what the service says of each
aidetect listing FOLDER              one answer for all photos in a folder, 1 to 20 of one listing
aidetect folder PHOTOS OUT           all photos below a folder to a .csv or .parquet file; stopped, it goes on
aidetect drift                       of each model: exit code 1 on drift, for cron; 2: the service cannot answer
aidetect explain PHOTO OUT.jpg       as check, and a picture of the places that speak for it
aidetect show REQUEST_ID             what was answered earlier, and the thresholds of that time
aidetect feedback REQUEST_ID real    what the photo of an earlier prediction is: real or ai_generated

The service is at API_URL (http://localhost:3000), and API_KEY is sent to it. `python -m client` does the same.
"""

import argparse
import json
import os
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from client.answers import Answer, Failure, Listing, Prediction
from client.client import Client
from client.folder import SUFFIXES, FolderError, photos_of, score_folder
from client.service import BATCH, ServiceError

_GROUP = "of the shop's photos, where its own calibration has groups: theirs are the thresholds"
BAD, FAILED, INTERRUPTED = 1, 2, 130  # exit codes: drift or a photo without a verdict; no answer; Ctrl-C


def main() -> int:
    """Run a command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="aidetect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--api-url", default=os.environ.get("API_URL", "http://localhost:3000"), help="or API_URL")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a request may wait and ask again")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="what the service says of photos")
    check.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    check.add_argument("--group", help=_GROUP)
    check.add_argument("--json", action="store_true", help="a line of JSON for each photo")
    listing = commands.add_parser("listing", help="one answer for all photos in a folder, those of one listing")
    listing.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with the photos; folders in it are looked through"
    )
    listing.add_argument("--id", help="your name for it, which the prediction log keeps")
    listing.add_argument("--group", help=_GROUP)
    listing.add_argument("--json", action="store_true", help="a line of JSON")
    folder = commands.add_parser("folder", help="all photos below a folder to a table")
    folder.add_argument("folder", type=Path, metavar="PHOTOS")
    folder.add_argument("out", type=Path, metavar="OUT", help=".csv or .parquet")
    folder.add_argument("--concurrency", type=int, default=4, help="requests at a time")
    folder.add_argument("--batch", type=int, default=BATCH, help="photos in a request")
    folder.add_argument("--group", help=_GROUP)
    drift = commands.add_parser("drift", help="exit code 1 on drift")
    drift.add_argument("--model", help="of this model alone; without it: of each model in service")
    explain = commands.add_parser("explain", help="which places of a photo speak for the answer")
    explain.add_argument("photo", type=Path, metavar="PHOTO")
    explain.add_argument("out", type=Path, metavar="OUT", help="a JPEG: red speaks for AI-generated, blue for real")
    explain.add_argument("--group", help=_GROUP)
    show = commands.add_parser("show", help="what was answered earlier")
    show.add_argument("request_id", metavar="REQUEST_ID")
    feedback = commands.add_parser("feedback", help="say what a photo is")
    feedback.add_argument("request_id", metavar="REQUEST_ID")
    feedback.add_argument("label", choices=["real", "ai_generated"])
    options = parser.parse_args()
    if options.command == "folder" and min(options.concurrency, options.batch) < 1:
        parser.error("--concurrency and --batch must be 1 or more")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name on disk may be any bytes
    try:
        key, patience = os.environ.get("API_KEY"), options.patience
        with Client(
            options.api_url, key, patience=patience, say=lambda _: _waiting(options.api_url, patience)
        ) as client:
            return _COMMANDS[options.command](client, options)
    except (ServiceError, FolderError, OSError) as error:
        return _given_up(f"error: {error}", FAILED, options)
    except KeyboardInterrupt:
        return _given_up("interrupted", INTERRUPTED, options)


@cache  # once is enough
def _waiting(url: str, patience: float) -> None:
    """Say what it is waiting for: minutes of silence would look like a fault."""
    where = f"{url} (API_URL) is busy or does not answer"
    print(f"{where}: trying for {patience:.0f} seconds (--patience)", file=sys.stderr, flush=True)


def _given_up(said: str, code: int, options: argparse.Namespace) -> int:
    print(said, file=sys.stderr, flush=True)
    if options.command == "folder" and Path(f"{options.out}.journal").exists():
        print("What is done is kept: the same command goes on from there.", file=sys.stderr, flush=True)
        os._exit(code)  # other requests may be waiting for a busy service, for minutes: nobody needs their answers
    return code


def _check(client: Client, options: argparse.Namespace) -> int:
    there = [path for path in options.photos if path.is_file()]
    found = dict(zip(there, client.predict_many(there, options.group), strict=True))
    answers = [found.get(path) or _unreadable(path) for path in options.photos]
    for path, answer in zip(options.photos, answers, strict=True):
        if options.json:
            print(answer.model_dump_json())
        elif isinstance(answer, Prediction):
            print(_line(path, answer))
        else:
            print(f"error   {answer.error}  {path}")
    return BAD if any(isinstance(answer, Failure) for answer in answers) else 0


def _listing(client: Client, options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise FolderError(f"{options.folder} is not a folder: name the one with the photos of the listing")
    names, _ = photos_of(options.folder)
    if not names:
        raise FolderError(f"{options.folder} holds no photo ({', '.join(sorted(SUFFIXES))})")
    found = client.predict_listing([options.folder / name for name in names], options.id, options.group)
    if options.json:
        print(found.model_dump_json())
    else:
        print(_whole(options.folder, found))
        for place, (name, answer) in enumerate(zip(names, found.answers, strict=True)):
            print(f"  {_of_listing(place, name, answer, found)}")
    return BAD if any(isinstance(answer, Failure) for answer in found.answers) else 0


def _whole(folder: Path, found: Listing) -> str:
    probability = "-----" if found.probability is None else f"{found.probability:.3f}"
    lines = [f"{found.decision:<6}  P(AI) {probability}  {found.id}  {folder}: {found.photos} photos"]
    return "\n".join([*lines, *(f"  {note}" for note in found.notes)])


def _of_listing(place: int, name: str, answer: Answer, found: Listing) -> str:
    if isinstance(answer, Failure):
        return f"error   {answer.error}  {name}"
    carries = f"  <- {_CARRIES[found.decision]}" if place in found.carried_by else ""
    return f"{_line(Path(name), answer)}{'  (there already)' if place in found.repeated else ''}{carries}"


_CARRIES = {"flag": "flags the listing", "review": "keeps it from being clear", "clear": ""}


def _unreadable(path: Path) -> Failure:
    what = "a folder: 'aidetect folder' checks all photos in it" if path.is_dir() else "no such file"
    return Failure(error=what, error_type="unreadable_file")


def _line(path: Path, answer: Prediction) -> str:
    # Out of domain the probability says nothing, so it is not shown as if it did.
    probability = f"{answer.probability:.3f}" if answer.in_domain else "-----"
    note = "" if answer.in_domain else "  (out of domain: the model knows no such photos)"
    note = _BY.get(answer.decided_by, note)
    return f"{answer.decision:<6}  P(AI) {probability}  {answer.request_id}  {path}{note}"


_BY = {"credential": "  (by its Content Credentials)", "mark": "  (by an unsigned mark)"}


def _explain(client: Client, options: argparse.Namespace) -> int:
    found = client.explain(options.photo, options.group)
    options.out.write_bytes(found.heatmap)
    print(f"{_line(options.photo, found.prediction)}\n{options.out}: red speaks for AI-generated, blue for real")
    return 0


def _show(client: Client, options: argparse.Namespace) -> int:
    print(json.dumps(client.prediction(options.request_id), indent=2))
    return 0


def _feedback(client: Client, options: argparse.Namespace) -> int:
    said = client.feedback(options.request_id, options.label)
    print(f"noted: {said.label}; the service had said {said.prediction}")
    return 0


def _folder(client: Client, options: argparse.Namespace) -> int:
    rows = score_folder(
        client, options.folder, options.out, concurrency=options.concurrency, batch=options.batch, group=options.group
    )
    decisions, errors = (Counter(row[name] for row in rows if row[name]) for name in ("decision", "error_type"))
    said = ", ".join(f"{count} {name}" for name, count in [*decisions.most_common(), *errors.most_common()])
    print(f"{options.out}: {len(rows)} photos ({said or 'none found'})")
    if others := photos_of(options.folder)[1]:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        print(f"passed over, no photos by their names: {kinds}", file=sys.stderr, flush=True)
    return BAD if errors else 0


def _drift(client: Client, options: argparse.Namespace) -> int:
    names = [options.model] if options.model else [card.get("name") for card in client.models()]
    detected = False
    for name in names:
        found = client.drift(name if len(names) > 1 or options.model else None)
        prefix = f"{name}: " if len(names) > 1 else ""
        print(f"{prefix}{found.status}: {found.window_size} predictions, drift score {found.drift_score:.3f}")
        for alert in found.alerts:
            print(f"  {alert}")
        detected |= found.drift_detected
    return BAD if detected else 0


_COMMANDS = {
    "check": _check, "listing": _listing, "explain": _explain, "folder": _folder, "drift": _drift, "show": _show,
    "feedback": _feedback,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
