"""The prediction log: rows to be written, queries, and what moderators said.

Predictions are queued on the request's path and written by a thread of their own, in batches, so that a slow, full
or broken database costs no prediction anything. All workers write to the same database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, insert, or_, select

from service.log.database import Database
from service.log.tables import FEEDBACK, PREDICTIONS, now
from service.log.writer import Writer

_COLUMNS = tuple(column.label(column.key) for column in PREDICTIONS.columns)  # as they are called here


_SAME = 1e-9  # thresholds that differ by less are the same one
_FLAGGED = case(
    (
        and_(
            PREDICTIONS.c.in_domain.is_(True),
            PREDICTIONS.c.probability >= 0.5,
            PREDICTIONS.c.probability >= PREDICTIONS.c.flag_threshold,
        ),
        1,
    ),
    else_=0,
)


@dataclass(frozen=True)
class ThresholdsInForce:
    """Which predictions were decided by the thresholds that are in force now.

    Attributes:
        model: its name.
        version: of the model.
        calibration: `shop` or `released`.
        groups: the shop's groups whose thresholds they are; None stands for photos of no group. Of released ones
            nothing.
        flag: where flagging begins, at the prior in force.
    """

    model: str
    version: str
    calibration: str
    groups: tuple[str | None, ...]
    flag: float


@dataclass(frozen=True)
class ReviewCounts:
    """Predictions, those of them that moderators reviewed, and those that they called real; since when (UTC)."""

    flagged: int = 0
    flagged_reviewed: int = 0
    flagged_real: int = 0
    others: int = 0
    others_reviewed: int = 0
    others_real: int = 0
    since: datetime | None = None


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

    def newest_feedback(self) -> int:
        """Return the id of the newest feedback; 0 where there is none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        with self._database.open().connect() as connection:
            return connection.execute(select(func.max(FEEDBACK.c.id))).scalar() or 0

    def review_counts(self, thresholds: ThresholdsInForce, until: int, newest: int) -> ReviewCounts:
        """Count what became of the predictions by some thresholds, from the `newest`-th confirmed real on.

        A photo counts as flagged by its pixels: in domain, and with a probability of 0.5 and the threshold at least,
        whatever its credential says. It ends with the last prediction that was reviewed. Of several labels the newest
        counts, and of several predictions with one id the newest.

        Args:
            thresholds: which predictions.
            until: id of the last feedback that counts.
            newest: so many predictions that were called real at most.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be opened or read.
        """
        pairs = (
            select(func.max(PREDICTIONS.c.id).label("prediction"), func.max(FEEDBACK.c.id).label("feedback"))
            .select_from(FEEDBACK.join(PREDICTIONS, FEEDBACK.c.request_id == PREDICTIONS.c.request_id))
            .where(FEEDBACK.c.id <= until)
            .group_by(FEEDBACK.c.request_id)
            .subquery()
        )
        verdicts = (
            select(PREDICTIONS.c.id, _FLAGGED.label("flagged"), FEEDBACK.c.label)
            .select_from(pairs)
            .join(PREDICTIONS, PREDICTIONS.c.id == pairs.c.prediction)
            .join(FEEDBACK, FEEDBACK.c.id == pairs.c.feedback)
            .where(_by(thresholds))
            .subquery()
        )
        real = verdicts.c.label == "real"
        first = select(verdicts.c.id).where(real).order_by(verdicts.c.id.desc()).offset(newest - 1).limit(1)
        with self._database.open().connect() as connection:
            last = connection.execute(select(func.max(verdicts.c.id))).scalar()
            if last is None:
                return ReviewCounts()
            begin = connection.execute(first).scalar() or 0
            inside = and_(_by(thresholds), PREDICTIONS.c.id >= begin, PREDICTIONS.c.id <= last)
            query = select(func.count(), func.sum(_FLAGGED), func.min(PREDICTIONS.c.time)).where(inside)
            photos, flagged, since = connection.execute(query).one()
            was_flagged = verdicts.c.flagged == 1
            columns = [func.sum(case((which, 1), else_=0)) for which in (was_flagged, real, and_(was_flagged, real))]
            inside = verdicts.c.id >= begin
            reviewed, flagged_reviewed, reals, flagged_real = connection.execute(
                select(func.count(), *columns).where(inside)
            ).one()
        return ReviewCounts(
            flagged=flagged,
            flagged_reviewed=flagged_reviewed,
            flagged_real=flagged_real,
            others=photos - flagged,
            others_reviewed=reviewed - flagged_reviewed,
            others_real=reals - flagged_real,
            since=since,
        )

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


def _by(thresholds: ThresholdsInForce) -> ColumnElement[bool]:
    table = PREDICTIONS.c
    if thresholds.calibration == "released":
        whose = or_(table.calibration == "released", table.calibration.is_(None))  # null: before there were others
    else:
        named = table.shop_group.in_([name for name in thresholds.groups if name is not None])
        group = or_(named, table.shop_group.is_(None)) if None in thresholds.groups else named
        whose = and_(table.calibration == thresholds.calibration, group)
    same = table.flag_threshold.between(thresholds.flag - _SAME, thresholds.flag + _SAME)
    return and_(_of(thresholds.model, thresholds.version), whose, same)
