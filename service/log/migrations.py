"""How a log of an earlier version is brought up to date: numbered migrations, each of which adds columns.

Rules for a new one: append it, never change an old one; a column is nullable or has a constant default. Then a table of
any size is changed in an instant (SQLite, and PostgreSQL since 11, keep the default once and touch no row), and workers
of an earlier version go on writing beside the new ones.
"""

import logging
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.schema import CreateColumn

from service.log.tables import FIRST_MODEL, METADATA, PREDICTIONS, SCHEMA_VERSION, now

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migration:
    """One step from a version of the log to the next.

    Attributes:
        number: from 1 on, without gaps.
        description: what it adds, in words.
        columns: of the table `predictions`, by their names in the database.
    """

    number: int
    description: str
    columns: tuple[str, ...] = ()


MIGRATIONS = (
    Migration(1, "the tables"),
    Migration(2, "the quality of JPEG files", ("jpeg_quality",)),
    Migration(3, "the status of Content Credentials", ("credential",)),
    Migration(4, "the prior and the thresholds in force", ("ai_prior", "flag_threshold", "clear_threshold")),
    # By a default, and not by an UPDATE: that would rewrite every row of a large log under a lock. And not by reading
    # null as the first model's name: then every query, and every other reader of the table, would have to know that.
    # Rows that a worker of an earlier version still writes get the default too, and rightly: it knows no other model.
    Migration(5, f"the model's name (older rows count as {FIRST_MODEL}'s)", ("model",)),
    Migration(6, "whose thresholds decided, and the listing", ("calibration", "shop_group", "listing")),
)


def migrate(connection: Connection) -> None:
    """Make the tables, or bring those of an earlier version up to date; the caller holds the lock and commits.

    A log from before the table `schema_version` is recognised by its columns. One of a later version stays as it is.
    """
    exists = inspect(connection).has_table(PREDICTIONS.name)
    METADATA.create_all(connection)  # with their indexes; a table that exists is left alone
    number = connection.execute(select(func.max(SCHEMA_VERSION.c.number))).scalar()
    if number is None:
        number = _recognise(connection)
        _note(connection, MIGRATIONS[:number])
    pending = MIGRATIONS[number:]
    for migration in pending:
        for name in migration.columns:
            column = next(column for column in PREDICTIONS.columns if column.name == name)
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {PREDICTIONS.name} ADD COLUMN {definition}"))
    _note(connection, pending)
    if exists and pending:
        added = "; ".join(f"{migration.number}: {migration.description}" for migration in pending)
        logger.warning(
            "the prediction log was of version %d and is of version %d now, with %s", number, len(MIGRATIONS), added
        )


def _recognise(connection: Connection) -> int:
    """Return the number of the last migration whose columns, and all before them, are there."""
    known = {column["name"] for column in inspect(connection).get_columns(PREDICTIONS.name)}
    missing = (migration.number for migration in MIGRATIONS if not known.issuperset(migration.columns))
    return next(missing, len(MIGRATIONS) + 1) - 1


def _note(connection: Connection, applied: tuple[Migration, ...]) -> None:
    if applied:
        rows = [{"number": migration.number, "time": now()} for migration in applied]
        connection.execute(insert(SCHEMA_VERSION), rows)
