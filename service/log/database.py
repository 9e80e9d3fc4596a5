"""The database behind the prediction log: opened when it is first needed, and brought up to date then."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Index, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex

from service.log.migrations import migrate
from service.log.tables import INDEXES, SUPERSEDED_INDEXES
from service.sqlite import one_at_a_time, use_write_ahead_log

logger = logging.getLogger(__name__)

_SQLITE_SECONDS = 5  # how long the other workers may write before this one gives up
_POSTGRESQL = {  # so that a server that hangs is known as such soon: seconds, and milliseconds
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=10000",
}
# Any numbers that no other program takes for its locks on the same database; workers of earlier versions take the
# first, too.
_MIGRATION_LOCK, _INDEX_LOCK = 7142026, 7142027


class Database:
    """Opens the database once; several threads may ask, and several processes may open it at the same time."""

    def __init__(self, url: str) -> None:
        """Remember where it is; nothing is opened yet.

        Args:
            url: SQLAlchemy URL, such as `sqlite:////var/lib/aidetect/predictions.db`.
        """
        self._url = make_url(url)
        self._opening = threading.Lock()
        self._engine: Engine | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether it was opened."""
        return self._engine is not None

    def open(self) -> Engine:
        """Return the engine; the first call makes the tables, or migrates those of an earlier version.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened.
        """
        with self._opening:
            if self._engine is None:
                is_sqlite = self._url.get_backend_name() == "sqlite"
                self._engine = self._open_sqlite() if is_sqlite else self._open_postgresql()
            return self._engine

    def close(self) -> None:
        """Close its connections."""
        if self._engine is not None:
            self._engine.dispose()

    def _open_sqlite(self) -> Engine:
        if self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(self._url)
        event.listen(engine, "connect", self._prepare_sqlite)
        with _writing(engine) as connection:
            migrate(connection)
        for index in INDEXES:  # each alone: for a large log one takes seconds, and others write in between
            with _writing(engine) as connection:
                connection.execute(CreateIndex(index, if_not_exists=True))
        with _writing(engine) as connection:
            for name in SUPERSEDED_INDEXES:
                connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
        return engine

    def _prepare_sqlite(self, connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout = {_SQLITE_SECONDS * 1000}")  # milliseconds
        with one_at_a_time(Path(f"{self._url.database}-lock")) if self._url.database else nullcontext():
            use_write_ahead_log(connection, _SQLITE_SECONDS)
        connection.execute("PRAGMA synchronous = NORMAL")  # survives a kill of the process; safe with WAL

    def _open_postgresql(self) -> Engine:
        # A restarted server costs no row: a connection is tried before it is used.
        engine = create_engine(self._url, pool_pre_ping=True, connect_args=_POSTGRESQL)
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            migrate(connection)
            stale = any(_stale_indexes(connection))
        if stale:  # for a large log this takes minutes: rows are written meanwhile, and queries are only slower
            threading.Thread(target=_renew_indexes, args=(engine,), name="prediction-log-indexes", daemon=True).start()
        return engine


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that nobody writes beside: two processes at once would both add a column."""
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def _stale_indexes(connection: Connection) -> tuple[list[Index], list[str]]:
    """Return the indexes that are not there, or not whole, and the names of those that are no longer needed."""
    query = (
        "SELECT relname FROM pg_class JOIN pg_index ON indexrelid = oid WHERE indisvalid AND pg_table_is_visible(oid)"
    )
    valid = set(connection.execute(text(query)).scalars())
    return [index for index in INDEXES if index.name not in valid], [one for one in SUPERSEDED_INDEXES if one in valid]


def _renew_indexes(engine: Engine) -> None:
    """Build and drop indexes in PostgreSQL without a lock that stops writers.

    One process does it, and the others go on.
    """
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()  # so that its time limit and its lock end with it
            connection.execute(text("SET statement_timeout = 0"))
            # Tried, not waited for: the build waits for all other statements, so for one that waits for the lock, too.
            if not connection.execute(select(func.pg_try_advisory_lock(_INDEX_LOCK))).scalar():
                return
            missing, superseded = _stale_indexes(connection)
            for index in missing:
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"))  # from a build cut short
                definition = str(CreateIndex(index).compile(dialect=connection.dialect))
                connection.execute(text(definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)))
            for name in superseded:
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
    except SQLAlchemyError as error:
        reason = " ".join(str(error).split())[:300]
        logger.warning("some indexes of the prediction log are missing, the next start builds them: %s", reason)
