"""What the prediction log and the rate limits share where they use SQLite."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread is in this block with the same lock file, which stays.

    For the change to a write-ahead log: SQLite waits for no lock there, whatever its `busy_timeout`.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
