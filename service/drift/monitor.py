"""All models that are watched, each by a monitor of its own (`model_monitor.py`)."""

import logging
import threading

from service import metrics
from service.drift.model_monitor import ModelMonitor
from service.drift.reports import Reports
from service.log.prediction_log import PredictionLog
from service.models.card import ModelError, read_card
from service.models.store import model_folders
from service.settings import Settings

logger = logging.getLogger(__name__)


class UnknownModelError(ValueError):
    """No model has this name; the message names those there are."""


class DriftMonitor:
    """Watches the predictions of every model in MODELS.

    Its methods read files and a database, and compute: never call them on an event loop.
    """

    def __init__(self, settings: Settings) -> None:
        """Remember where everything is; nothing is read yet."""
        self._settings = settings
        self._log = PredictionLog(settings.log_url)
        self._monitors: dict[str, ModelMonitor] = {}
        self._finding = threading.Lock()
        self.reports = Reports(settings.drift_url, settings.drift_retention_days)

    def monitors(self) -> dict[str, ModelMonitor]:
        """Return the monitor of each model by its name, in alphabetical order.

        A model that was added is among them. One whose folder is gone still is: the workers go on answering with it.

        Raises:
            service.models.card.ModelError: there is no model.
        """
        with self._finding:
            try:
                folders = model_folders(self._settings)
            except ModelError:
                if not self._monitors:
                    raise
                folders = {}
            known = {monitor.path for monitor in self._monitors.values()}
            for name, path in folders.items():
                if path not in known:
                    model = name if self._settings.model_path is None else read_card(path).name
                    self._monitors[model] = ModelMonitor(model, path, self._settings, self._log, self.reports)
            return dict(sorted(self._monitors.items()))

    def monitor(self, model: str | None = None) -> ModelMonitor:
        """Return the monitor of a model; None: of the first in alphabetical order.

        Raises:
            UnknownModelError: there is no such model.
            service.models.card.ModelError: as `monitors`.
        """
        known = self.monitors()
        name = next(iter(known)) if model is None else model
        if name not in known:
            raise UnknownModelError(f"there is no model '{name[:50]}'; there is {', '.join(known)}")
        return known[name]

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set. A model that fails is tried again; the others are watched meanwhile."""
        failing: set[str] = set()
        while True:
            try:
                monitors = self.monitors()
            except ModelError as error:
                monitors = {}
                metrics.DRIFT_ERRORS.labels("").inc()
                if "" not in failing:
                    logger.warning("the drift monitor has nothing to watch and tries again: %s", error)
                failing.add("")
            else:
                failing.discard("")
            for name, monitor in monitors.items():
                try:
                    monitor.update()
                    failing.discard(name)
                except Exception as error:  # a database that is away, a full disk, a model that is being replaced
                    metrics.DRIFT_ERRORS.labels(name).inc()
                    if name not in failing:
                        reason = " ".join(str(error).split())[:300]
                        logger.warning("the drift monitor cannot watch %s and tries again: %s", name, reason)
                    failing.add(name)
            if stop.wait(min(5.0, self._settings.drift_max_age_seconds, self._settings.drift_check_seconds)):
                return
