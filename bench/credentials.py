"""Is our state of each file's Content Credentials that of c2pa-python itself? Both read every photo below a folder.

python bench/credentials.py FOLDER          with the service's settings (C2PA_TRUST_ANCHORS, …)

The library runs with its own defaults, but for the list of trusted signers, and does not check identity assertions.
Where it raises an error, ours must be `unreadable`, `elsewhere`, or none. Only a signer that is in
C2PA_TIME_STAMP_ANCHORS alone may differ: the library has one list for both. Exit code 1: there is a difference.
"""

import argparse
import io
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from c2pa import C2paError, Context, Reader
from tqdm import tqdm

from service.photo.credentials import Credential, library_state, read_certificates
from service.photo.formats import format_of
from service.settings import load_settings

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".hif"}
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif", "HEIF": "image/heic"}
STATES = ("Trusted", "Valid", "Invalid")


def plain(data: bytes, mime: str, context: Context) -> str:
    """Return the library's own state, or the beginning of its error."""
    try:
        with Reader(mime, io.BytesIO(data), context=context) as reader:
            state: str = json.loads(reader.json())["validation_state"]
    except C2paError as error:
        return str(error).partition(":")[0]
    return state


def agree(theirs: str, ours: Credential | None) -> bool:
    """Tell whether both say the same of a file."""
    if theirs in STATES:
        return ours is not None and ours.status not in {"unreadable", "elsewhere"} and library_state(ours) == theirs
    allowed = {"Remote": {"elsewhere"}, "ManifestNotFound": {None, "elsewhere"}}.get(theirs, {None, "unreadable"})
    return (ours.status if ours else None) in allowed


def main() -> None:
    """Print the files that have a manifest, and where the two differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    settings = load_settings()
    anchors = [read_certificates(path) for path in (settings.c2pa_trust_anchors, settings.c2pa_time_stamp_anchors)]
    trust = {"trust_anchors": "\n".join(filter(None, anchors)), "trust_config": "\n".join(settings.key_usages())}
    wanted = {
        "trust": {name: value for name, value in trust.items() if value},
        "core": {"decode_identity_assertions": False},
        "verify": {"remote_manifest_fetch": False},
    }
    context, reader = Context.from_dict(wanted), settings.credential_reader()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    differences, states, rows = 0, Counter[str](), []
    for path in tqdm(paths, desc="reading", unit=" photos", mininterval=1):
        data = path.read_bytes()
        if (kind := format_of(data)) is None:
            states["no photo"] += 1
            continue
        theirs, ours = plain(data, MIME[kind], context), reader.read(data)
        same = agree(theirs, ours)
        differences += not same
        if ours is None and theirs not in STATES and same:
            states["no manifest"] += 1
            continue
        states[theirs] += 1
        problems = ", ".join(ours.problems) if ours else ""
        state = library_state(ours) if ours and ours.status not in {"unreadable", "elsewhere"} else "-"
        row = (str(path.relative_to(folder)), theirs, state, ours.status if ours else "none", problems)
        rows.append(f"| {' | '.join(row)} |{'' if same else ' DIFFERS'}")
    print("| file | c2pa-python's state | ours | status | problems |\n|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{len(paths):,} photos: {dict(states)}; {differences} differences")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
