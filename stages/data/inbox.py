"""The inbox of your own photos, and what DVC imported from it."""

from pathlib import Path

import yaml

from stages.common import StageError

POINTER = Path("data.dvc")
OWN = Path("data")  # <label>/[group/]*.{jpg,png,webp}
IMPORT = "'dvc repro data.dvc' imports photos/ anew, which 'dvc exp run' does not"


def check_import(pointer: Path = POINTER, folder: Path = OWN) -> None:
    """Refuse to train on yesterday's photos: `dvc exp run` imports the inbox only where there is no `data/` yet.

    An inbox without photos is not an error: the photos may have come by `dvc pull data`, or from a bucket.

    Args:
        pointer: data.dvc, which names the inbox.
        folder: what was imported from it.

    Raises:
        StageError: photos were added to the inbox, or taken out of it, since.
    """
    if not pointer.exists():
        return
    inbox = Path(yaml.safe_load(pointer.read_text(encoding="utf-8"))["deps"][0]["path"])
    here, there = ({f.relative_to(place): f.stat().st_size for f in files_of(place)} for place in (inbox, folder))
    if here and here != there:
        names = sorted({str(name) for name, _ in here.items() ^ there.items()})
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise StageError(f"{inbox}/ and {folder}/ differ in {', '.join(names[:3])}{more}: {IMPORT}")


def files_of(folder: Path) -> list[Path]:
    """Return all files below a folder, in order, without hidden ones; none where there is no such folder."""
    return sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")) if folder.is_dir() else []
