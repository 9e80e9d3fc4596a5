"""One model's drift: on request, once a minute for the metrics, and at checks, whose windows never overlap.

A check takes `DRIFT_WINDOW` predictions of the model that no earlier check had, and comes at least
`DRIFT_CHECK_SECONDS` after the last one. Its report is kept. Several checks that drift one after the other page people;
one never does (docs/DRIFT.md).
"""

import logging
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import metrics
from service.drift.promise import Promises
from service.drift.references import BadReferenceError, Reference, References
from service.drift.reports import Reports
from service.drift.times import span
from service.drift.window import DriftResult, evaluate_window
from service.log.prediction_log import PredictionLog
from service.log.tables import now
from service.models.card import CARD, MODEL, Card, ModelError, check_digest, check_encoder, read_card
from service.models.shop import ShopCalibration, read_calibration
from service.models.store import Stamp, stamp
from service.schemas import DriftPromise
from service.settings import Settings

logger = logging.getLogger(__name__)

RANGE_MOST = 20_000  # predictions of a time range that are compared; of more, a random part
_RANGE_SECONDS = 10.0  # longest wait of a time range for the one before it
_CACHED = 4  # results kept beside the one of the newest window
_RESTORED = 1000  # kept reports that are searched for the last of this model version

Range = tuple[str | None, str | None]  # since and until, as asked for
_NEWEST: Range = (None, None)
_ranging, _drawing = threading.Lock(), threading.Lock()  # one time range at a time, and one page, of all models


class BusyError(Exception):
    """Too much was asked at once; the message says so."""


class ModelMonitor:
    """Compares the predictions of one model with its reference; as `DriftMonitor`, never on an event loop.

    Attributes:
        name: the model's.
        path: its folder, or a bare ONNX file.
        references: what its predictions may be compared with.
    """

    def __init__(self, name: str, path: Path, settings: Settings, log: PredictionLog, reports: Reports) -> None:
        """Remember where everything is; nothing is read yet.

        Args:
            name: the model's.
            path: its folder, or a bare ONNX file (MODEL_PATH).
            settings: the service's.
            log: the prediction log.
            reports: where the reports of checks are kept.
        """
        self.name, self.path = name, path
        self.references = References(settings.drift_url, name, path if path.is_dir() else path.parent)
        self._settings, self._log, self._reports = settings, log, reports
        self._cache: OrderedDict[Range, tuple[float, DriftResult]] = OrderedDict()
        self._computing = threading.Lock()
        self._promises = Promises(log)
        self._shop: ShopCalibration | None = None  # the last that could be read
        self._card: tuple[Stamp, Card] | None = None  # what tells a change of the model's files, and its card
        self._checked = 0.0  # time.time() of the last check
        self._last_row = 0  # of the prediction log, in the last check
        self._in_a_row = 0
        self._reference = ""  # of the last check, by name
        self._pending: tuple[DriftResult, dict[str, Any]] | None = None  # a check's report that is not written yet
        self._version = ""  # whose checks these are
        metrics.DRIFT_ERRORS.labels(name)  # there from the start, so that an alert sees the first one

    def version(self) -> str:
        """Return the version of the model; errors as `card`."""
        return self.card().version

    def card(self) -> Card:
        """Return the model's card.

        Raises:
            service.models.card.ModelError: its card cannot be read.
        """
        changed = stamp(self.path)
        if self._card is None or self._card[0] != changed:
            try:
                if self._card is not None:  # as the workers: what lies there at the start is taken
                    file = self.path / MODEL if self.path.is_dir() else self.path
                    data = file.read_bytes()
                    if file.with_name(CARD).exists():
                        card = read_card(file.parent)
                        check_digest(file, data, card)
                        check_encoder(file.parent, card)
                self._card = (changed, read_card(self.path))
            except (ModelError, OSError) as error:
                if self._card is None:
                    raise ModelError(str(error)) from error
                logger.warning("%s; the workers keep the model before it, and so do I", error)  # once a change
                self._card = (changed, self._card[1])
        return self._card[1]

    def rows(self, since: str | None = None, until: str | None = None) -> list[dict[str, Any]]:
        """Return the newest `DRIFT_WINDOW` rows, or those of a time range.

        Raises:
            TimeRangeError: the times cannot be read.
            service.models.card.ModelError: the model's card cannot be read.
            sqlalchemy.exc.SQLAlchemyError, OSError: the prediction log cannot be read.
        """
        version = self.version()
        times = span(since, until, now())
        if times is None:
            return self._log.recent(self.name, version, self._settings.drift_window)
        return self._log.between(self.name, version, *times, RANGE_MOST)

    def evaluate(self, since: str | None = None, until: str | None = None) -> DriftResult:
        """Compare a window now; errors as `rows`."""
        return self._evaluate(self.rows(since, until))

    def _evaluate(self, rows: list[dict[str, Any]]) -> DriftResult:
        labels = self._log.labels([row["request_id"] for row in rows])
        reference: Reference | str
        try:
            reference = self.references.current(self.version())
        except BadReferenceError as error:
            reference = str(error)
        settings = self._settings
        promises = self._promises.look(self.card(), self._calibration(), settings.alpha, settings.ai_prior)
        return evaluate_window(self.name, rows, labels, reference, promises)

    def _calibration(self) -> ShopCalibration | None:
        """Return the shop's calibration of this model; where its file is damaged the one before, as the workers do."""
        if self._settings.calibration is not None:
            with suppress(ModelError):  # the workers say so
                self._shop = read_calibration(self._settings.calibration)
        shop = self._shop
        ours = shop is not None and (shop.model, shop.model_version) == (self.name, self.version())
        return shop if ours else None

    def result(self, since: str | None = None, until: str | None = None) -> DriftResult:
        """Return the result for a window, `DRIFT_MAX_AGE_SECONDS` old at most; errors as `rows`.

        While the newest window is being compared, an older result is returned, so that nobody waits. One time range
        is compared at a time.

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
                return self._cached(asked) or self._remember(asked, self.evaluate())
        if not _ranging.acquire(timeout=_RANGE_SECONDS):
            raise BusyError("other time ranges are being compared; try again in a minute")
        try:
            return self._cached(asked) or self._remember(asked, self.evaluate(since, until))
        finally:
            _ranging.release()

    def answer(self, since: str | None = None, until: str | None = None) -> dict[str, Any]:
        """Return the fields of `schemas.DriftResponse` but `request_id` and `report_url`; errors as `result`."""
        found = self.result(since, until).answer
        age = (datetime.now(UTC) - found["timestamp"]).total_seconds()
        return found | {"age_seconds": max(0.0, round(age, 1)), "checks_in_a_row": self._in_a_row}

    def page(self, of: str, since: str | None = None, until: str | None = None) -> str | None:
        """Return the HTML page of a window, or of its `reviewed` photos; None: too little; errors as `result`."""
        found = self.result(since, until)
        with _drawing:  # a result keeps its pages
            return found.reviewed_page if of == "reviewed" else found.page

    def update(self) -> None:
        """Renew the metrics, and check if a check is due; errors as `rows`, and those of the kept reports."""
        if self._version != self.version():  # at the start, and after another version
            self._restore()
        self.result()
        self._check()
        self._keep()

    def _cached(self, asked: Range) -> DriftResult | None:
        at, found = self._cache.get(asked, (float("-inf"), None))
        return found if time.monotonic() - at <= self._settings.drift_max_age_seconds else None

    def _remember(self, asked: Range, found: DriftResult) -> DriftResult:
        self._cache[asked] = (time.monotonic(), found)
        self._cache.move_to_end(asked)
        if asked == _NEWEST:
            self._measure(found.answer, found.answer["timestamp"].timestamp())
        others = [key for key in self._cache if key != _NEWEST]
        for key in others[:-_CACHED]:
            del self._cache[key]
        return found

    def _check(self) -> None:
        """Check if one is due: compare rows that no check had before, count, keep the report."""
        version, window = self.version(), self._settings.drift_window
        if self._log.newest(self.name, version) < self._last_row:  # another log
            self._last_row = 0
            self._count(0)
        if time.time() - self._checked < self._settings.drift_check_seconds:
            return
        if self._log.count_after(self.name, version, self._last_row) < window:
            return
        with self._computing:
            rows = self.rows()
            found = self._remember(_NEWEST, self._evaluate(rows))
        if found.reference is None:  # nothing was checked, so nothing is counted
            raise BadReferenceError(found.answer["alerts"][0])
        self._checked, self._last_row = time.time(), rows[0]["id"]
        before = self._in_a_row if found.reference.name == self._reference else 0  # another reference begins anew
        self._reference = found.reference.name
        self._count(before + 1 if found.answer["drift_detected"] else 0)
        self._pending = found, {"checks_in_a_row": self._in_a_row, "last_row": self._last_row, "model_version": version}

    def _count(self, in_a_row: int) -> None:
        self._in_a_row = in_a_row
        metrics.DRIFT_CHECKS.labels(self.name).set(in_a_row)

    def _keep(self) -> None:
        """Write the last check's report, if it is not written yet; where that fails the next update tries again."""
        if self._pending is not None:
            found, state = self._pending
            with _drawing:
                page = found.page
            self._reports.keep(found.answer | state, page or "")
            self._pending = None

    def _restore(self) -> None:
        """Go on where the last check of this version stopped."""
        version = self.version()
        answers = self._reports.answers(self.name, _RESTORED)
        kept = next((one for one in answers if one.get("model_version") == version), None)
        if kept is None:
            self._checked, self._last_row, self._reference = 0.0, 0, ""
            self._count(0)
        else:
            self._checked = datetime.fromisoformat(kept["timestamp"]).timestamp()
            self._last_row, self._reference = kept["last_row"], kept["reference"]["name"]
            self._count(kept["checks_in_a_row"])
            self._measure(kept, self._checked)
        self._version = version

    def _measure(self, answer: dict[str, Any], evaluated: float) -> None:
        """Set the gauges as an answer says."""
        accuracy = answer["estimated_accuracy"]
        metrics.DRIFT.labels(self.name).set(answer["drift_detected"])
        metrics.DRIFT_SCORE.labels(self.name).set(answer["drift_score"])
        metrics.DRIFT_WINDOW.labels(self.name).set(answer["window_size"])
        metrics.DRIFT_ACCURACY.labels(self.name).set(float("nan") if accuracy is None else accuracy)
        promise = answer.get("promise")  # a kept answer has it as JSON, and one of an earlier version not at all
        broken = promise is not None and DriftPromise.model_validate(promise).holds is False
        metrics.PROMISE.labels(self.name).set(broken)
        metrics.DRIFT_LOOKED.labels(self.name).set(evaluated)
