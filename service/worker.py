"""What the routes of one worker share: the model, the log, and threads to work in."""

import hashlib
import logging
import time
from dataclasses import dataclass

from service import metrics
from service.admission import Slots
from service.card import ModelError
from service.detector import Detector
from service.errors import ApiError
from service.prediction_log import PredictionLog
from service.settings import Settings

logger = logging.getLogger(__name__)

_SIDE_WORK = 100  # requests for metrics, drift, feedback, … that may wait at a time
NOT_LOADED = "the model is not loaded; the service's log says why"


@dataclass(frozen=True)
class Model:
    """A loaded model file.

    Attributes:
        detector: the model.
        sha256: of its file.
    """

    detector: Detector
    sha256: str


@dataclass(frozen=True)
class Worker:
    """What the routes of one worker share.

    Attributes:
        settings: as read from the environment.
        model: None where it could not be loaded.
        log: the prediction log.
        slots: where photos are decoded and scored.
        log_slot: where the prediction log is asked.
        side_slot: for all other work that must not hold up the event loop.
        started: `time.monotonic()` at the start.
    """

    settings: Settings
    model: Model | None
    log: PredictionLog
    slots: Slots
    log_slot: Slots
    side_slot: Slots
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
    log = PredictionLog(settings.log_url, settings.log_retention_days)
    try:
        model = _load(settings)
    except ModelError as error:
        logger.critical("%s; until then predictions and /readyz answer 503", error)
        model = None
    metrics.LOADED.set(model is not None)
    metrics.MONITORED.set(settings.monitored())
    return Worker(
        settings=settings,
        model=model,
        log=log,
        slots=Slots(settings.threads, settings.max_images_in_flight, settings.queue_seconds),
        log_slot=Slots(1, _SIDE_WORK, settings.queue_seconds),
        side_slot=Slots(1, _SIDE_WORK, settings.queue_seconds),
        started=time.monotonic(),
    )


def _load(settings: Settings) -> Model:
    path = settings.model_path
    detector = Detector(path, alpha=settings.alpha, ai_prior=settings.ai_prior)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    metrics.MODEL.labels(detector.version, sha256).set(1)
    return Model(detector, sha256)
