"""When to look: on request, once a minute for the metrics, and at checks, whose windows never overlap.

A check takes `DRIFT_WINDOW` predictions that no check had before, and comes `DRIFT_CHECK_SECONDS` after the one before
at the earliest. Its report is kept. People are paged by checks that drift one after the other, never by one look
(docs/DRIFT.md).
"""

import logging
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

from service import metrics
from service.drift.references import BadReferenceError, Reference, References
from service.drift.reports import Reports
from service.drift.times import span
from service.drift.window import Look, look
from service.log.prediction_log import PredictionLog, now
from service.models.card import ModelError, read_card
from service.models.store import Stamp, digest, first_model, stamp, verify
from service.settings import Settings

logger = logging.getLogger(__name__)

RANGE_MOST = 20_000  # predictions of a time range that are looked at; of more, a random part
_RANGE_SECONDS = 10.0  # longest wait of a time range for the one before it
_CACHED = 4  # answers kept beside the one of the newest window
_RESTORED = 1000  # kept reports that are searched for the last of this model version

Range = tuple[str | None, str | None]  # since and until, as asked for
_NEWEST: Range = (None, None)


class BusyError(Exception):
    """Too much was asked at once; the message says so."""


class DriftMonitor:
    """Looks at the prediction log. Its methods read a database and compute: never call them on an event loop."""

    def __init__(self, settings: Settings) -> None:
        """Remember where everything lies; nothing is read yet."""
        self._settings = settings
        self._log = PredictionLog(settings.log_url)
        self._references = References(settings.drift_url, first_model(settings))
        self._reports = Reports(settings.drift_url, settings.drift_retention_days)
        self._cache: OrderedDict[Range, tuple[float, Look]] = OrderedDict()
        self._computing, self._ranging, self._drawing = threading.Lock(), threading.Lock(), threading.Lock()
        self._card: tuple[Stamp, str] | None = None  # what tells a change of the model file, and its version
        self._checked = 0.0  # time.time() of the last check
        self._last_row = 0  # of the prediction log, in the last check
        self._in_a_row = 0
        self._reference = ""  # of the last check, by name
        self._pending: tuple[Look, dict[str, Any]] | None = None  # a check's report that is not written yet
        self._version = ""  # whose checks these are

    def model_version(self) -> str:
        """Return the version of the model file.

        Raises:
            service.models.card.ModelError: it cannot be read.
        """
        path = first_model(self._settings)
        changed = stamp(path)
        if self._card is None or self._card[0] != changed:
            try:
                if self._card is not None:  # as the workers: what lies there at the start is taken
                    verify(path, digest(path))
                self._card = (changed, read_card(path).version)
            except (ModelError, OSError) as error:
                if self._card is None:
                    raise ModelError(str(error)) from error
                logger.warning("%s; the workers keep the model before it, and so do I", error)  # once a change
                self._card = (changed, self._card[1])
        return self._card[1]

    def rows(self, since: str | None = None, until: str | None = None) -> list[dict[str, Any]]:
        """Return the newest `DRIFT_WINDOW` rows, or those of a time range.

        Raises:
            TimeRangeError: the times are none.
            service.models.card.ModelError: the model file cannot be read.
            sqlalchemy.exc.SQLAlchemyError, OSError: the prediction log cannot be read.
        """
        version = self.model_version()
        times = span(since, until, now())
        if times is None:
            return self._log.recent(version, self._settings.drift_window)
        return self._log.between(version, *times, RANGE_MOST)

    def compute(self, since: str | None = None, until: str | None = None) -> Look:
        """Look at a window now; errors as `rows`."""
        return self._compare(self.rows(since, until))

    def _compare(self, rows: list[dict[str, Any]]) -> Look:
        labels = self._log.labels([row["request_id"] for row in rows])
        reference: Reference | str
        try:
            reference = self._references.current(self.model_version())
        except BadReferenceError as error:
            reference = str(error)
        return look(rows, labels, reference)

    def look(self, since: str | None = None, until: str | None = None) -> Look:
        """Return a look at a window that is `DRIFT_MAX_AGE_SECONDS` old at most; errors as `rows`.

        While the newest window is being computed, an older look at it is returned, so that nobody waits. One time range
        is computed at a time.

        Raises:
            BusyError: other time ranges come first.
        """
        asked = (since, until)
        if (found := self._cached(asked)) is not None:
            return found
        if asked == _NEWEST:
            if asked in self._cache and self._computing.locked():
                return self._cache[asked][1]
            with self._computing:
                return self._cached(asked) or self._remember(asked, self.compute())
        if not self._ranging.acquire(timeout=_RANGE_SECONDS):
            raise BusyError("other time ranges are being looked at; try again in a minute")
        try:
            return self._cached(asked) or self._remember(asked, self.compute(since, until))
        finally:
            self._ranging.release()

    def answer(self, since: str | None = None, until: str | None = None) -> dict[str, Any]:
        """Return the fields of `schemas.DriftResponse` but `request_id` and `report_url`; errors as `look`."""
        found = self.look(since, until).answer
        age = (datetime.now(UTC) - found["timestamp"]).total_seconds()
        return found | {"age_seconds": max(0.0, round(age, 1)), "checks_in_a_row": self._in_a_row}

    def page(self, of: str, since: str | None = None, until: str | None = None) -> str | None:
        """Return the HTML page of a window, or of its `reviewed` photos; None: too little; errors as `look`."""
        found = self.look(since, until)
        with self._drawing:  # one at a time; a look keeps its pages
            return found.reviewed_page if of == "reviewed" else found.page

    def kept(self) -> Reports:
        """Return the kept reports."""
        return self._reports

    def run(self, stop: threading.Event) -> None:
        """Look and check until `stop` is set; what fails is tried again."""
        failing = False
        while True:
            try:
                if self._version != self.model_version():  # at the start, and after another model
                    self._restore()
                self.look()
                self._check()
                self._keep()
                failing = False
            except Exception as error:  # a database that is away, a full disk, a model file that is being replaced
                metrics.DRIFT_ERRORS.inc()
                if not failing:
                    reason = " ".join(str(error).split())[:300]
                    logger.warning("the drift monitor cannot do its work and tries again: %s", reason)
                failing = True
            if stop.wait(min(5.0, self._settings.drift_max_age_seconds, self._settings.drift_check_seconds)):
                return

    def _cached(self, asked: Range) -> Look | None:
        at, found = self._cache.get(asked, (float("-inf"), None))
        return found if time.monotonic() - at <= self._settings.drift_max_age_seconds else None

    def _remember(self, asked: Range, found: Look) -> Look:
        self._cache[asked] = (time.monotonic(), found)
        self._cache.move_to_end(asked)
        if asked == _NEWEST:
            _measure(found.answer, found.answer["timestamp"].timestamp())
        others = [key for key in self._cache if key != _NEWEST]
        for key in others[:-_CACHED]:
            del self._cache[key]
        return found

    def _check(self) -> None:
        """Check if one is due: look at rows that no check had before, count, keep the report."""
        version, window = self.model_version(), self._settings.drift_window
        if self._log.newest(version) < self._last_row:  # another log
            self._last_row = 0
            self._count(0)
        if time.time() - self._checked < self._settings.drift_check_seconds:
            return
        if self._log.count_after(version, self._last_row) < window:
            return
        with self._computing:
            rows = self.rows()
            found = self._remember(_NEWEST, self._compare(rows))
        if found.reference is None:  # nothing was checked, so nothing is counted
            raise BadReferenceError(found.answer["alerts"][0])
        self._checked, self._last_row = time.time(), rows[0]["id"]
        before = self._in_a_row if found.reference.name == self._reference else 0  # another reference begins anew
        self._reference = found.reference.name
        self._count(before + 1 if found.answer["drift_detected"] else 0)
        self._pending = found, {"checks_in_a_row": self._in_a_row, "last_row": self._last_row, "model_version": version}

    def _count(self, in_a_row: int) -> None:
        self._in_a_row = in_a_row
        metrics.DRIFT_CHECKS.set(in_a_row)

    def _keep(self) -> None:
        """Write the last check's report, if it is not written yet; where that fails the next look tries again."""
        if self._pending is not None:
            found, state = self._pending
            with self._drawing:
                page = found.page
            self._reports.keep(found.answer | state, page or "")
            self._pending = None

    def _restore(self) -> None:
        """Go on where the last check of this model version stopped."""
        version = self.model_version()
        kept = next((one for one in self._reports.answers(_RESTORED) if one.get("model_version") == version), None)
        if kept is None:
            self._checked, self._last_row, self._reference = 0.0, 0, ""
            self._count(0)
        else:
            self._checked = datetime.fromisoformat(kept["timestamp"]).timestamp()
            self._last_row, self._reference = kept["last_row"], kept["reference"]["name"]
            self._count(kept["checks_in_a_row"])
            _measure(kept, self._checked)
        self._version = version


def _measure(answer: dict[str, Any], looked: float) -> None:
    """Set the gauges as an answer says."""
    accuracy = answer["estimated_accuracy"]
    metrics.DRIFT.set(answer["drift_detected"])
    metrics.DRIFT_SCORE.set(answer["drift_score"])
    metrics.DRIFT_WINDOW.set(answer["window_size"])
    metrics.DRIFT_ACCURACY.set(float("nan") if accuracy is None else accuracy)
    metrics.DRIFT_LOOKED.set(looked)
