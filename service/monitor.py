"""The drift monitor: a BentoML service of its own, which the API asks, and never waits for."""

import asyncio
import contextlib
import os
import threading
from typing import Any

import bentoml
from anyio import to_thread
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from service import metrics
from service.card import ModelError
from service.drift.monitor import DriftMonitor
from service.drift.reports import is_name
from service.lifecycle import end_with_parent
from service.settings import load_settings

Answer = dict[str, Any]  # {"found": …}, or {"status", "error", "detail"}: what the API refuses with


@bentoml.service(
    name="drift-monitor",
    workers=1,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    traffic={"timeout": 60},
)
class Monitor:
    """Answers the API's routes about drift; a thread looks and checks meanwhile."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            os.nice(10)  # predictions go first
        metrics.stand_aside()
        self._monitor = DriftMonitor(load_settings())
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @bentoml.on_startup
    async def start(self) -> None:
        """Start the thread that looks; Evidently is imported there, so that nobody waits for it."""
        threading.Thread(target=self._monitor.run, args=(self._stop,), name="drift-monitor", daemon=True).start()
        self._tasks.append(asyncio.create_task(end_with_parent()))

    @bentoml.on_shutdown
    def end(self) -> None:
        """Stop the thread."""
        self._stop.set()

    @bentoml.api
    async def look(self, since: str | None = None, until: str | None = None) -> Answer:
        """Return the answer for a window."""
        return await _tried(lambda: self._monitor.answer(since, until))

    @bentoml.api
    async def page(self, since: str | None = None, until: str | None = None, of: str = "window") -> Answer:
        """Return the HTML page of a window, or of its reviewed photos."""

        def work() -> str | Answer:
            found = self._monitor.look(since, until)
            page = found.page() if of == "window" else found.reviewed_page()
            return page or _refusal(404, "no_report", f"too few predictions or reviews for a report of the {of}")

        return await _tried(work)

    @bentoml.api
    async def kept(self) -> Answer:
        """Return the list of kept reports, newest first."""
        reports = self._monitor.kept()
        return await _tried(lambda: [reports.answer(name) | {"name": name} for name in reports.names()])

    @bentoml.api
    async def kept_page(self, name: str) -> Answer:
        """Return a kept HTML page."""

        def work() -> str | Answer:
            try:
                if is_name(name):
                    return self._monitor.kept().page(name)
            except FileNotFoundError:
                pass
            return _refusal(404, "no_report", "no kept report has this name; /drift/reports lists them")

        return await _tried(work)


async def _tried(work: Any) -> Answer:
    """Run `work` in a thread; turn what it raises into a refusal."""
    try:
        found = await to_thread.run_sync(work)
    except ValueError as error:
        return _refusal(422, "validation_error", str(error))
    except ModelError as error:
        return _refusal(503, "model_not_loaded", str(error))
    except (SQLAlchemyError, OSError) as error:
        return _refusal(503, "log_unavailable", f"log or reports cannot be read: {' '.join(str(error).split())[:200]}")
    if isinstance(found, dict) and "error" in found:
        return found
    plain: Any = TypeAdapter(Any).dump_python(found, mode="json")
    return {"found": plain}


def _refusal(status: int, error: str, detail: str) -> Answer:
    return {"status": status, "error": error, "detail": detail}
