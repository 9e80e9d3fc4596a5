"""The prediction log: one row a prediction, what moderators said of it, and never an image.

Predictions are queued on the request's path and written by a thread of their own, in batches, so that a slow, full
or broken database costs no prediction anything. All workers write to the same database.
"""

import logging
import queue
import threading
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from service import metrics

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
EMBEDDING_COMPONENTS = 8
_QUEUE = 10_000  # rows kept while the database does not answer; beyond it the newest are lost and counted
_BATCH = 1000
_SWEEP_SECONDS = 3600.0  # between looks for rows that are too old

_METADATA = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")  # 32 bits are used up after 25 days of 1,000 a second

PREDICTIONS = Table(
    "predictions",
    _METADATA,
    Column("id", _ID, primary_key=True),
    Column("request_id", String(200), nullable=False),
    Column("time", DateTime, nullable=False),  # UTC
    Column("model_version", String(100), nullable=False),
    Column("score", Float, nullable=False),  # P(AI-generated) at the prior of the model's calibration
    Column("probability", Float, nullable=False),  # P(AI-generated) as answered, at AI_PRIOR
    Column("prediction", String(20), nullable=False),
    Column("decision", String(20), nullable=False),
    Column("in_domain", Boolean, nullable=False),
    Column("distance", Float, nullable=False),
    Column("brightness", Float, nullable=False),
    Column("contrast", Float, nullable=False),
    Column("sharpness", Float, nullable=False),
    Column("embedding", JSON, nullable=False),  # the first EMBEDDING_COMPONENTS numbers
    Column("width", Integer, nullable=False),  # of the photo as it came, upright, in pixels
    Column("height", Integer, nullable=False),
    Column("jpeg_quality", Integer),  # 1 to 100; 0: no JPEG; null: a row from before there was this column
    # What joins must be nullable: an earlier version's log gets the column when it is opened, and has no value for it.
    Column("credential", String(20)),  # `Credential.status`; null: none, or an older row
    Column("ai_prior", Float),  # what AI_PRIOR was
    Column("flag_threshold", Float),  # where the decisions began, on the scale of `probability`
    Column("clear_threshold", Float),
    Column("model", String(40)),  # its name; null: a row from when there was one model
)
FEEDBACK = Table(
    "feedback",
    _METADATA,
    Column("id", _ID, primary_key=True),
    Column("request_id", String(200), nullable=False),  # of the prediction; its newest row counts
    Column("time", DateTime, nullable=False),  # UTC
    Column("label", String(20), nullable=False),
    Column("api_key", String(40)),  # whose, by name
)
_INDEXES = (
    Index("predictions_version_id", PREDICTIONS.c.model_version, PREDICTIONS.c.id),
    Index("predictions_request_id", PREDICTIONS.c.request_id),
    Index("predictions_time", PREDICTIONS.c.time),
    Index("predictions_version_time", PREDICTIONS.c.model_version, PREDICTIONS.c.time),
    Index("feedback_request_id", FEEDBACK.c.request_id),
    Index("feedback_time", FEEDBACK.c.time),
)
_POSTGRESQL = {  # so that a server that hangs is known as such soon: seconds, and milliseconds
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=10000",
}
_CREATION = 7142026  # any number that no other program takes for its lock on the same database


def now() -> datetime:
    """Return the time as the log keeps it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


class PredictionLog:
    """A queue, the thread that empties it, and the database behind."""

    def __init__(self, url: str, retention_days: float = 0, share: float = 1) -> None:
        """Start the thread; the database is opened when the first row is there.

        Args:
            url: SQLAlchemy URL, such as `sqlite:////var/lib/aidetect/predictions.db`.
            retention_days: rows older than this are deleted now and then; 0 keeps them.
            share: of the rows that are kept at all; a request id alone decides.
        """
        self._url = url
        self._share = share
        self._retention_days = retention_days
        self._swept = float("-inf")
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(_QUEUE)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Queue rows, each with the columns of `PREDICTIONS` except `id`; never blocks and never fails."""
        for row in rows:
            if self._share < 1 and zlib.crc32(row["request_id"].encode()) >= self._share * 2**32:
                continue
            try:
                self._queue.put_nowait(row)
            except queue.Full:
                metrics.LOG_LOST.inc()

    def recent(self, model_version: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` rows of a model version, newest first.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = (
            select(PREDICTIONS)
            .where(PREDICTIONS.c.model_version == model_version)
            .order_by(PREDICTIONS.c.id.desc())
            .limit(limit)
        )
        return self._read(query)

    def between(self, model_version: str, since: datetime, until: datetime, limit: int) -> list[dict[str, Any]]:
        """Return the rows of a model version with `since` <= time < `until` (UTC, without zone), newest first.

        Of more than `limit` a random part is returned, so that it stands for the whole time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        inside = and_(
            PREDICTIONS.c.model_version == model_version, PREDICTIONS.c.time >= since, PREDICTIONS.c.time < until
        )
        chosen = select(PREDICTIONS.c.id).where(inside).order_by(func.random()).limit(limit)
        return self._read(select(PREDICTIONS).where(PREDICTIONS.c.id.in_(chosen)).order_by(PREDICTIONS.c.id.desc()))

    def newest(self, model_version: str) -> int:
        """Return the id of the newest row of a model version; 0 where there is none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = select(func.max(PREDICTIONS.c.id)).where(PREDICTIONS.c.model_version == model_version)
        with self._open().connect() as connection:
            return connection.execute(query).scalar() or 0

    def count_after(self, model_version: str, row_id: int) -> int:
        """Return how many rows of a model version came after the one with this id.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        later = and_(PREDICTIONS.c.model_version == model_version, PREDICTIONS.c.id > row_id)
        with self._open().connect() as connection:
            return connection.execute(select(func.count()).where(later)).scalar_one()

    def labels(self, request_ids: Sequence[str]) -> dict[str, str]:
        """Return what moderators said last of these predictions; those without a word are left out.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        found: dict[str, str] = {}
        for start in range(0, len(request_ids), 500):  # databases limit the values of one query
            some = FEEDBACK.c.request_id.in_(request_ids[start : start + 500])
            query = select(FEEDBACK.c.request_id, FEEDBACK.c.label).where(some).order_by(FEEDBACK.c.id)
            found |= {row["request_id"]: row["label"] for row in self._read(query)}
        return found

    def reviewed(self, since: datetime | None, until: datetime | None) -> list[dict[str, Any]]:
        """Return the predictions that moderators gave a verdict on in this time, oldest verdict first.

        Each has the columns of `PREDICTIONS` and of its newest verdict: `label`, `reviewed` (UTC) and `reviewer`.

        Args:
            since: only verdicts from then on (UTC, without zone); None: from the first.
            until: only verdicts before; None: to the last.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        verdicts = select(func.max(FEEDBACK.c.id)).group_by(FEEDBACK.c.request_id)
        answers = select(func.max(PREDICTIONS.c.id)).group_by(PREDICTIONS.c.request_id)
        query = (
            select(
                PREDICTIONS,
                FEEDBACK.c.label,
                FEEDBACK.c.time.label("reviewed"),
                FEEDBACK.c.api_key.label("reviewer"),
            )
            .join(FEEDBACK, FEEDBACK.c.request_id == PREDICTIONS.c.request_id)
            .where(FEEDBACK.c.id.in_(verdicts), PREDICTIONS.c.id.in_(answers))
            .order_by(FEEDBACK.c.id)
        )
        if since is not None:
            query = query.where(FEEDBACK.c.time >= since)
        if until is not None:
            query = query.where(FEEDBACK.c.time < until)
        return self._read(query)

    def _read(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self._open().connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Return the newest prediction with this id, or None.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = (
            select(PREDICTIONS).where(PREDICTIONS.c.request_id == request_id).order_by(PREDICTIONS.c.id.desc()).limit(1)
        )
        return next(iter(self._read(query)), None)

    def add_feedback(self, request_id: str, label: str, api_key: str | None) -> None:
        """Keep a moderator's verdict on a prediction; it is written when this returns.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or written.
        """
        row = {"request_id": request_id, "time": now(), "label": label, "api_key": api_key}
        with self._open().begin() as connection:
            connection.execute(insert(FEEDBACK), row)

    def close(self, seconds: float = 5) -> None:
        """Write what is queued and stop the thread, within `seconds`."""
        self._closing.set()
        self._thread.join(seconds)
        if self._engine is not None:
            self._engine.dispose()

    def _run(self) -> None:
        pending: list[dict[str, Any]] = []
        failing = False
        while True:
            closing = self._closing.wait(FLUSH_SECONDS)
            while len(pending) < _BATCH and not self._queue.empty():
                pending.append(self._queue.get_nowait())
            if pending:
                try:
                    with self._open().begin() as connection:
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
            if self._engine is not None:
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
            with self._open().begin() as connection:
                for table in (PREDICTIONS, FEEDBACK):
                    connection.execute(delete(table).where(table.c.time < oldest))
        except Exception as error:  # the next hour tries again
            logger.warning("old predictions cannot be deleted: %s", " ".join(str(error).split())[:300])

    def _open(self) -> Engine:
        with self._opening:
            if self._engine is None:
                url = make_url(self._url)
                if url.get_backend_name() == "sqlite" and url.database:
                    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
                server = url.get_backend_name() == "postgresql"
                engine = create_engine(
                    url,
                    pool_pre_ping=True,  # a restarted database server costs no row
                    connect_args=_POSTGRESQL if server else {},
                )
                if url.get_backend_name() == "sqlite":
                    event.listen(engine, "connect", _prepare_sqlite)
                with engine.begin() as connection:
                    if server:  # IF NOT EXISTS fails where two do it at once
                        connection.execute(
                            text("SET LOCAL statement_timeout = 0")
                        )  # an index of a large log takes long
                        connection.execute(select(func.pg_advisory_xact_lock(_CREATION)))
                    elif url.get_backend_name() == "sqlite":
                        connection.exec_driver_sql("BEGIN IMMEDIATE")  # two at once would both add a column
                    for table in _METADATA.sorted_tables:
                        connection.execute(CreateTable(table, if_not_exists=True))
                        _add_columns(connection, table)
                    for index in _INDEXES:
                        connection.execute(CreateIndex(index, if_not_exists=True))
                self._engine = engine
            return self._engine


def _add_columns(connection: Connection, table: Table) -> None:
    """Give a log of an earlier version the columns that came since; they are all nullable."""
    known = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in known:
            said = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {said}"))


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 5000")  # milliseconds: the other workers write, too
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")  # survives a kill of the process; safe with WAL
    cursor.close()
