"""What writes predictions: a queue and a thread of its own, so that no prediction ever waits for the database."""

import logging
import queue
import threading
import time
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, insert

from service import metrics
from service.log.database import Database
from service.log.tables import FEEDBACK, PREDICTIONS, now

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
_QUEUE = 10_000  # rows kept while the database does not answer; beyond it the newest are lost and counted
_BATCH = 1000
_SWEEP_SECONDS = 3600.0  # between two deletions of old rows


class Writer:
    """A queue, and the thread that empties it into the database, in batches."""

    def __init__(self, database: Database, retention_days: float, share: float) -> None:
        """Start the thread; it opens the database when the first row is there.

        Args:
            database: where rows go.
            retention_days: rows older than this are deleted now and then; 0 keeps them.
            share: of the rows that are kept at all; a request id alone decides.
        """
        self._database = database
        self._share = share
        self._retention_days = retention_days
        self._swept = float("-inf")
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(_QUEUE)
        self._closing = threading.Event()
        self.thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self.thread.start()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Queue rows of `PREDICTIONS`; never blocks and never fails."""
        for row in rows:
            if self._share < 1 and zlib.crc32(row["request_id"].encode()) >= self._share * 2**32:
                continue
            try:
                self._queue.put_nowait(row)
            except queue.Full:
                metrics.LOG_LOST.inc()

    def close(self, seconds: float) -> None:
        """Write what is queued and stop the thread, within `seconds`."""
        self._closing.set()
        self.thread.join(seconds)

    def _run(self) -> None:
        pending: list[dict[str, Any]] = []
        failing = False
        while True:
            closing = self._closing.wait(FLUSH_SECONDS)
            while len(pending) < _BATCH and not self._queue.empty():
                pending.append(self._queue.get_nowait())
            if pending:
                try:
                    with self._database.open().begin() as connection:
                        connection.execute(insert(PREDICTIONS), pending)
                except Exception as error:  # any driver's, a full disk's: predictions go on without the log
                    metrics.LOG_ERRORS.inc()
                    if not failing:
                        reason = " ".join(str(error).split())[:300]
                        logger.warning("the prediction log cannot be written and is tried again: %s", reason)
                    failing = True
                    if closing:
                        metrics.LOG_LOST.inc(len(pending) + self._queue.qsize())
                        return
                    continue
                if failing:
                    logger.warning("the prediction log is written again")
                    failing = False
                metrics.LOG_WRITTEN.inc(len(pending))
                pending = []
            if self._database.is_open:
                self._sweep()
            if closing and self._queue.empty():
                return

    def _sweep(self) -> None:
        """Delete rows that are too old, once an hour; every worker does, and the second finds nothing."""
        if not self._retention_days or time.monotonic() - self._swept < _SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        oldest = now() - timedelta(days=self._retention_days)
        try:
            with self._database.open().begin() as connection:
                for table in (PREDICTIONS, FEEDBACK):
                    connection.execute(delete(table).where(table.c.time < oldest))
        except Exception as error:  # the next hour tries again
            logger.warning("old predictions cannot be deleted: %s", " ".join(str(error).split())[:300])
