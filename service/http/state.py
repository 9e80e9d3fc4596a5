"""What the routes of one worker share: the models, the log, and threads to work in."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from service import metrics
from service.http.errors import ApiError
from service.http.work_queue import WorkQueue
from service.log.prediction_log import PredictionLog
from service.models.detector import Detector
from service.models.shop import InForce, ShopCalibration, in_force
from service.models.store import ModelStore
from service.photo.credentials import CredentialReader
from service.settings import Settings

_SIDE_WORK = 100  # requests for metrics, drift, feedback, … that may wait at a time
NOT_LOADED = "no model is loaded; the service's log says why"


@dataclass(frozen=True)
class AppState:
    """What the routes of one worker share.

    Attributes:
        settings: as read from the environment.
        store: the models, each of which may be replaced while requests go on.
        log: the prediction log.
        credentials: knows whose Content Credentials are trusted.
        photo_queue: decodes and scores photos.
        log_queue: reads and writes the prediction log.
        side_queue: does all other work that would block the event loop.
        started: `time.monotonic()` at the start.
    """

    settings: Settings
    store: ModelStore
    log: PredictionLog
    credentials: CredentialReader
    photo_queue: WorkQueue
    log_queue: WorkQueue
    side_queue: WorkQueue
    started: float

    def models(self) -> Mapping[str, Detector]:
        """Return the models in service by name, in alphabetical order; a request keeps them to its end.

        Raises:
            ApiError: 503, there is none.
        """
        if not (models := self.store.models):
            raise ApiError(503, "model_not_loaded", NOT_LOADED)
        return models

    def in_force(self, group: str | None = None) -> Mapping[str, InForce]:
        """Return the models in service by name, each with the thresholds that decide now.

        Args:
            group: of the shop's photos; its thresholds decide, where a shop's calibration is in service.

        Raises:
            ApiError: 503, there is no model; 404, nobody calibrated that group.
        """
        models, shop = self.models(), self.store.shop
        if group and (shop is None or not shop.knows(group)):
            raise ApiError(404, "unknown_group", f"group: {_unknown(group, shop)}")
        return {name: in_force(detector, shop, group) for name, detector in models.items()}


def _unknown(group: str, shop: ShopCalibration | None) -> str:
    if shop is None:
        return "no shop's calibration is in service (CALIBRATION): leave the field out"
    return f"nobody calibrated '{group[:100]}': {shop.groups_in_words()}"


def start_worker(settings: Settings) -> AppState:
    """Load the models and open the log."""
    metrics.forget_dead_workers()
    log = PredictionLog(settings.log_url, settings.log_retention_days, settings.log_share)
    metrics.MONITORED.set(settings.monitored())
    return AppState(
        settings=settings,
        store=ModelStore(settings),
        log=log,
        credentials=settings.credential_reader(),
        photo_queue=WorkQueue(settings.threads, settings.max_images_in_flight, settings.queue_seconds),
        log_queue=WorkQueue(1, _SIDE_WORK, settings.queue_seconds),
        side_queue=WorkQueue(1, _SIDE_WORK, settings.queue_seconds),
        started=time.monotonic(),
    )
