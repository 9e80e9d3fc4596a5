"""What the prediction log and the rate limits share where they use SQLite."""

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RETRY_SECONDS = 0.01


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread is in this block with the same lock file, which stays."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def use_write_ahead_log(connection: sqlite3.Connection, seconds: float) -> None:
    """Change a database to a write-ahead log; where it has one, nothing happens.

    For this change SQLite waits for no lock, whatever its `busy_timeout`, so this function waits for who writes.

    Args:
        connection: outside a transaction.
        seconds: how long another program may hold its lock.

    Raises:
        sqlite3.OperationalError: the lock was held for longer, or the file cannot be written.
    """
    last = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
