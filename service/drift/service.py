"""The drift monitor: a BentoML service of its own, which the API asks, and never waits for."""

import asyncio
import contextlib
import logging
import os
import threading
from typing import Any

import bentoml
from anyio import to_thread
from pydantic import TypeAdapter

from service.drift.model_monitor import BusyError
from service.drift.monitor import DriftMonitor, UnknownModelError
from service.drift.reports import model_of
from service.drift.times import TimeRangeError
from service.http.lifecycle import end_with_parent
from service.models.card import ModelError
from service.settings import load_settings

logger = logging.getLogger(__name__)

_LISTED = 500  # kept reports in a list
_TOO_FEW = {
    "window": "too few predictions for a report, or no reference: /drift says which",
    "reviewed": "too few reviewed photos in the window for a report, or all of one kind",
}
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    BusyError: (503, "too_busy"),
    TimeRangeError: (422, "validation_error"),
    UnknownModelError: (404, "unknown_model"),
}
Answer = dict[str, Any]  # {"found": …}, or {"status", "error", "detail"}: what the API refuses with


@bentoml.service(
    name="drift-monitor",
    workers=1,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class DriftService:
    """Answers the API's routes about drift; meanwhile a thread watches the models."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            os.nice(10)  # predictions go first
        self._monitor = DriftMonitor(load_settings())
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @bentoml.on_startup
    async def start(self) -> None:
        """Start the thread that watches; Evidently is imported there, so that nobody waits for it."""
        threading.Thread(target=self._monitor.run, args=(self._stop,), name="drift-monitor", daemon=True).start()
        self._tasks.append(asyncio.create_task(end_with_parent()))

    @bentoml.on_shutdown
    def end(self) -> None:
        """Stop the thread."""
        self._stop.set()

    @bentoml.api
    async def drift(self, model: str | None = None, since: str | None = None, until: str | None = None) -> Answer:
        """Return the answer for a window of a model."""
        return await _tried(lambda: self._monitor.monitor(model).answer(since, until))

    @bentoml.api
    async def page(
        self, model: str | None = None, since: str | None = None, until: str | None = None, of: str = "window"
    ) -> Answer:
        """Return the HTML page of a window of a model, or of its reviewed photos."""

        def work() -> str | Answer:
            page = self._monitor.monitor(model).page(of, since, until)
            return page or _refusal(404, "no_report", _TOO_FEW[of])

        return await _tried(work)

    @bentoml.api
    async def reports(self, model: str | None = None) -> Answer:
        """Return the name of the model, and the list of its kept reports, newest first."""

        def work() -> Answer:
            name = self._monitor.monitor(model).name
            return {"model": name, "reports": self._monitor.reports.answers(name, _LISTED)}

        return await _tried(work)

    @bentoml.api
    async def report_page(self, name: str) -> Answer:
        """Return a kept HTML page."""

        def work() -> str | Answer:
            try:
                if model_of(name):
                    return self._monitor.reports.page(name)
            except FileNotFoundError:
                pass
            return _refusal(404, "no_report", "no kept report has this name; /drift/reports lists them")

        return await _tried(work)


async def _tried(work: Any) -> Answer:
    """Run `work` in a thread; turn what it raises into a refusal."""
    try:
        found = await to_thread.run_sync(work)
    except (BusyError, TimeRangeError, UnknownModelError) as error:
        return _refusal(*_REFUSALS[type(error)], str(error))
    except ModelError as error:
        logger.warning("%s", error)
        return _refusal(503, "model_not_loaded", "the drift monitor cannot read the model; the service's log says why")
    except Exception as error:  # any database's or bucket's driver has its own; what they say is not for clients
        logger.warning("the drift monitor cannot answer: %s", " ".join(str(error).split())[:300])
        return _refusal(503, "log_unavailable", "the prediction log or the kept reports do not answer; try again later")
    if isinstance(found, dict) and "error" in found:
        return found
    plain: Any = TypeAdapter(Any).dump_python(found, mode="json")
    return {"found": plain}


def _refusal(status: int, error: str, detail: str) -> Answer:
    return {"status": status, "error": error, "detail": detail}
