"""Another version of this project beside this one, for the benches that compare the two in one run."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def checked_out(revision: str, tree: Path) -> Iterator[Path]:
    """Check a revision of git out into the folder `tree` until the block ends."""
    git = ["git", "-C", str(_ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)  # noqa: S603 - our own git
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)  # noqa: S603 - our own git
