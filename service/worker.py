"""What the routes of one worker share: the model, the log, and threads to work in."""

import hashlib
import logging
import time
from dataclasses import dataclass

import anyio

from service import metrics
from service.card import ModelError
from service.detector import Detector
from service.drift import DriftMonitor
from service.errors import ApiError
from service.log import PredictionLog
from service.settings import Settings

logger = logging.getLogger("bentoml.aidetect")

NOT_LOADED = "the model is not loaded; the service's log says why"


@dataclass(frozen=True)
class Model:
    """A loaded model file.

    Attributes:
        detector: the model.
        sha256: of its file.
        drift: looks at its predictions.
    """

    detector: Detector
    sha256: str
    drift: DriftMonitor


@dataclass(frozen=True)
class Worker:
    """What the routes of one worker share.

    Attributes:
        settings: as read from the environment.
        model: None where it could not be loaded.
        log: the prediction log.
        slots: how many requests are decoded and scored at a time.
        side_slot: one look at drift or metrics at a time, apart from predictions.
        started: `time.monotonic()` at the start.
    """

    settings: Settings
    model: Model | None
    log: PredictionLog
    slots: anyio.CapacityLimiter
    side_slot: anyio.CapacityLimiter
    started: float

    def loaded(self) -> Model:
        """Return the model.

        Raises:
            ApiError: 503, there is none.
        """
        if self.model is None:
            raise ApiError(503, "model_not_loaded", NOT_LOADED)
        return self.model


def start_worker(settings: Settings) -> Worker:
    """Load the model and open the log; a model that cannot be loaded is logged in one line and left out."""
    metrics.forget_dead_workers()
    log = PredictionLog(settings.log_url)
    try:
        model = _load(settings, log)
    except ModelError as error:
        logger.critical("%s; until then predictions and /readyz answer 503", error)
        model = None
    metrics.LOADED.set(model is not None)
    return Worker(
        settings=settings,
        model=model,
        log=log,
        slots=anyio.CapacityLimiter(settings.threads),
        side_slot=anyio.CapacityLimiter(1),
        started=time.monotonic(),
    )


def _load(settings: Settings, log: PredictionLog) -> Model:
    path = settings.model_path
    detector = Detector(path, alpha=settings.alpha, ai_prior=settings.ai_prior)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    metrics.MODEL.labels(detector.version, sha256).set(1)
    monitor = DriftMonitor(log, path.with_name("reference.npz"), detector.version, settings.drift_window)
    return Model(detector, sha256, monitor)
