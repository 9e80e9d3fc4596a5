"""A release takes the place of the one before by renaming folders: at any moment one of the two is whole."""

import shutil

from stages.paths import ModelPaths


def publish(paths: ModelPaths) -> None:
    """Rename the next release to the released one.

    A kill between the two renames leaves no released folder for a moment; `repair` then ends what was begun.
    """
    if paths.released.path.exists():
        paths.released.path.rename(paths.last_release.path)
    paths.released.path.parent.mkdir(exist_ok=True)
    paths.next_release.path.rename(paths.released.path)
    repair(paths)


def repair(paths: ModelPaths) -> None:
    """End a `publish` that was killed, and remove what a killed release left; nothing, where all is well."""
    begun, before = paths.next_release.path, paths.last_release.path
    if before.exists() and not paths.released.path.exists():
        # The next one was whole, or the one before would not have been moved.
        (begun if begun.exists() else before).rename(paths.released.path)
    for folder in (begun, before):
        shutil.rmtree(folder, ignore_errors=True)
