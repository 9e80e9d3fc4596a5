"""What the Content Credentials of a folder's photos come to, under the service's settings (C2PA_…).

python -m service.check_credentials FOLDER

One line a file: its state, the four facts (yes, no, or - where it is not known), what it declares, the signer, and what
is wrong. A file that is not a photo, or cannot be read, has a line that says so. docs/PROVENANCE.md explains the words.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from service.photo.credentials import CredentialReader
from service.photo.formats import format_of
from service.photo.provenance import Credential
from service.settings import load_settings

FAILED = 2  # exit code
HEADERS = ("file", "state", "signature", "unchanged", "signer known", "in time", "declares", "signer", "problems")
_FACT = {True: "yes", False: "no", None: "-"}


def lines(folder: Path, reader: CredentialReader) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each file's state and line, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        name = _clean(str(path.relative_to(folder)))
        try:
            data = path.read_bytes()
        except OSError as error:
            yield "cannot be read", (name, f"cannot be read: {error.strerror}")
            continue
        kind = format_of(data)
        found = reader.read(data, kind=kind)
        state = found.status if found else "none" if kind else "no photo"
        yield state, (name, state, *(_columns(found) if found else ()))


def main() -> None:
    """Print the lines, and how many there are of each state."""
    parser = argparse.ArgumentParser(
        prog="python -m service.check_credentials", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    folder: Path = parser.parse_args().folder
    reader = load_settings().credential_reader()
    if not folder.is_dir():
        print(f"error: {folder} is not a folder", file=sys.stderr)
        sys.exit(FAILED)
    states: Counter[str] = Counter()
    print("\t".join(HEADERS))
    for state, line in lines(folder, reader):
        states[state] += 1
        print("\t".join(line))
    counts = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    print(f"{states.total():,} files{': ' if counts else ''}{counts}")


def _columns(found: Credential) -> tuple[str, ...]:
    facts = (found.signature_holds, found.unchanged, found.signer_trusted, found.in_time)
    words = (" ".join(found.declares), found.signer or "", " ".join(found.problems))
    return *(_FACT[fact] for fact in facts), *(word or "-" for word in words)


def _clean(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


if __name__ == "__main__":
    main()
