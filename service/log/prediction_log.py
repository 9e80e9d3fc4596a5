"""The prediction log: rows to be written, queries, and what moderators said.

Predictions are queued on the request's path and written by a thread of their own, in batches, so that a slow, full
or broken database costs no prediction anything. All workers write to the same database.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, select

from service.log.database import Database
from service.log.tables import FEEDBACK, PREDICTIONS, now
from service.log.writer import Writer

_COLUMNS = tuple(column.label(column.key) for column in PREDICTIONS.columns)  # as they are called here


class PredictionLog:
    """The database, what writes to it, and its queries."""

    def __init__(self, url: str, retention_days: float = 0, share: float = 1) -> None:
        """Start the thread that writes; the database is opened when the first row is there, or with the first query.

        Args:
            url: SQLAlchemy URL, such as `sqlite:////var/lib/aidetect/predictions.db`.
            retention_days: rows older than this are deleted now and then; 0 keeps them.
            share: of the rows that are kept at all; a request id alone decides.
        """
        self._database = Database(url)
        self._writer = Writer(self._database, retention_days, share)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Queue rows, each with the columns of `PREDICTIONS` except `id`; never blocks and never fails."""
        self._writer.add(rows)

    def close(self, seconds: float = 5) -> None:
        """Write what is queued and stop the thread, within `seconds`."""
        self._writer.close(seconds)
        self._database.close()

    def recent(self, model: str, version: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest `limit` rows of a version of a model, newest first.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = select(*_COLUMNS).where(_of(model, version)).order_by(PREDICTIONS.c.id.desc()).limit(limit)
        return self._read(query)

    def between(self, model: str, version: str, since: datetime, until: datetime, limit: int) -> list[dict[str, Any]]:
        """Return the rows of a version of a model with `since` <= time < `until` (UTC, without zone), newest first.

        Of more than `limit` a random part is returned, so that it stands for the whole time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        inside = and_(_of(model, version), PREDICTIONS.c.time >= since, PREDICTIONS.c.time < until)
        chosen = select(PREDICTIONS.c.id).where(inside).order_by(func.random()).limit(limit)
        return self._read(select(*_COLUMNS).where(PREDICTIONS.c.id.in_(chosen)).order_by(PREDICTIONS.c.id.desc()))

    def newest(self, model: str, version: str) -> int:
        """Return the id of the newest row of a version of a model; 0 where there is none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = select(func.max(PREDICTIONS.c.id)).where(_of(model, version))
        with self._database.open().connect() as connection:
            return connection.execute(query).scalar() or 0

    def count_after(self, model: str, version: str, row_id: int) -> int:
        """Return how many rows of a version of a model came after the one with this id.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        later = and_(_of(model, version), PREDICTIONS.c.id > row_id)
        with self._database.open().connect() as connection:
            return connection.execute(select(func.count()).where(later)).scalar_one()

    def labels(self, request_ids: Sequence[str]) -> dict[str, str]:
        """Return what moderators said last of these predictions; those without feedback are left out.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        found: dict[str, str] = {}
        for start in range(0, len(request_ids), 500):  # databases limit the values of one query
            some = FEEDBACK.c.request_id.in_(request_ids[start : start + 500])
            query = select(FEEDBACK.c.request_id, FEEDBACK.c.label).where(some).order_by(FEEDBACK.c.id)
            found |= {row["request_id"]: row["label"] for row in self._read(query)}
        return found

    def reviewed(
        self, since: datetime | None, until: datetime | None, model: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the predictions that moderators gave feedback on in this time, oldest feedback first.

        Each has the columns of `PREDICTIONS` and of its newest feedback: `label`, `reviewed` (UTC) and `reviewer`.

        Args:
            since: only feedback from then on (UTC, without zone); None: from the first.
            until: only feedback before; None: to the last.
            model: only of its predictions; None: of all.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        newest = select(func.max(FEEDBACK.c.id)).group_by(FEEDBACK.c.request_id)
        answers = select(func.max(PREDICTIONS.c.id)).group_by(PREDICTIONS.c.request_id)
        query = (
            select(
                *_COLUMNS,
                FEEDBACK.c.label,
                FEEDBACK.c.time.label("reviewed"),
                FEEDBACK.c.api_key.label("reviewer"),
            )
            .join(FEEDBACK, FEEDBACK.c.request_id == PREDICTIONS.c.request_id)
            .where(FEEDBACK.c.id.in_(newest), PREDICTIONS.c.id.in_(answers))
            .order_by(FEEDBACK.c.id)
        )
        if since is not None:
            query = query.where(FEEDBACK.c.time >= since)
        if until is not None:
            query = query.where(FEEDBACK.c.time < until)
        if model is not None:
            query = query.where(PREDICTIONS.c.model == model)
        return self._read(query)

    def _read(self, query: Select[Any]) -> list[dict[str, Any]]:
        with self._database.open().connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def find(self, request_id: str) -> dict[str, Any] | None:
        """Return the newest prediction with this id, or None.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        query = (
            select(*_COLUMNS).where(PREDICTIONS.c.request_id == request_id).order_by(PREDICTIONS.c.id.desc()).limit(1)
        )
        return next(iter(self._read(query)), None)

    def add_feedback(self, request_id: str, label: str, api_key: str | None) -> None:
        """Keep what a moderator says of a prediction; it is written when this returns.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or written.
        """
        row = {"request_id": request_id, "time": now(), "label": label, "api_key": api_key}
        with self._database.open().begin() as connection:
            connection.execute(insert(FEEDBACK), row)


def _of(model: str, version: str) -> ColumnElement[bool]:
    return and_(PREDICTIONS.c.model == model, PREDICTIONS.c.model_version == version)
