"""The models in service: which one answers for a photo, and how each is replaced while requests go on."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from service import metrics
from service.models.card import CARD, ENCODERS, MODEL, ModelError, read_card
from service.models.choice import overlap
from service.models.detector import Detector
from service.models.listing import Rule, load_rule
from service.models.shop import ShopCalibration, read_calibration
from service.settings import Settings

logger = logging.getLogger(__name__)

_MOST_THREADS = 4  # of one forward pass: for a small network more of them wait for each other
_SETTLED = 1.0  # seconds that new files must have been left alone
_ONE_MODEL = "MODEL_PATH"  # stands for the folder's name where that setting names the only model
CALIBRATION = "CALIBRATION"  # stands for a model's name where the shop's calibration is refused

Stamp = tuple[tuple[int, int, int] | None, ...]
Held = TypeVar("Held")


@dataclass
class _Files(Generic[Held]):
    """Files that may be replaced, and what was made of them.

    Attributes:
        held: the last that could be loaded from there.
        fault: why the files that lie there now are not in service.
        seen: the stamp of the files that `held` and `fault` are about.
        waiting: the stamp of newer files, and since when they lie there so.
    """

    held: Held | None = None
    fault: str | None = None
    seen: Stamp | None = None
    waiting: tuple[Stamp, float] | None = None

    def are_new(self, now: Stamp, settled: float) -> bool:
        """Tell whether there are other files than those seen, which have been left alone for `settled` seconds."""
        if now == self.seen:
            return False
        if self.waiting is None or self.waiting[0] != now:
            self.waiting = (now, time.monotonic())
        return time.monotonic() - self.waiting[1] >= settled

    def note(self, now: Stamp, held: Held | None, fault: str | None) -> None:
        """Keep what was made of the files with this stamp; what was held before stays where nothing could be made."""
        self.held, self.fault, self.seen, self.waiting = held or self.held, fault, now, None


@dataclass
class _Place(_Files[Detector]):
    """Where a model lies: its folder, or a bare ONNX file."""

    path: Path = Path()


class ModelStore:
    """Holds the models in service. A request takes `models` once, and keeps it to its end.

    Attributes:
        models: by name, in alphabetical order; replaced as a whole, never changed.
        refused: why the files of a model are not in service, by its name, or by its folder's where none is in service;
            and why the file of CALIBRATION is not, by that name.
        shop: the shop's own calibration, which was checked with the model that it belongs to; None: there is none.
    """

    def __init__(self, settings: Settings) -> None:
        """Load all models; each one that cannot be loaded is logged in one line and left out."""
        self._settings = settings
        self._places: dict[str, _Place] = {}
        self._rules: dict[str, Rule] = {}  # by the digest of the model file
        self.models: Mapping[str, Detector] = {}
        self.refused: Mapping[str, str] = {}
        self.shop: ShopCalibration | None = None
        self._calibration = _Files[ShopCalibration]()
        if settings.model_path is not None:
            logger.warning("MODEL_PATH names the only model in service: unset it, and set MODELS to a folder of models")
        self.update(settled=0)

    def update(self, settled: float = _SETTLED) -> None:
        """Take what was put in place since the last call into service; call it once a second.

        New files are loaded, verified and run once. The model before them stays in service until then, and longer where
        anything is wrong, also where its folder is gone.

        Args:
            settled: seconds that new files must have been left alone.
        """
        fault = None
        try:
            for key, path in model_folders(self._settings).items():
                self._places.setdefault(key, _Place(path=path)).path = path
        except ModelError as error:
            fault = str(error)
        else:
            for key, place in self._places.items():
                self._reload(key, place, settled)
        self._read_calibration(settled)
        self._publish({} if fault is None else {"MODELS": fault}, starting=settled == 0)

    def _reload(self, key: str, place: _Place, settled: float) -> None:
        now = stamp(place.path)
        if not place.are_new(now, settled):
            return
        detector, fault = None, None
        try:
            detector = self._load(key, place.path)
        except ModelError as error:
            fault = str(error)
        if settled and stamp(place.path) != now:
            return  # it changed meanwhile: the next call sees it whole
        place.note(now, detector, fault)

    def _load(self, key: str, path: Path) -> Detector:
        if key != _ONE_MODEL and path.is_dir() and (name := read_card(path).name) != key:
            raise ModelError(f"{path / CARD} is the card of {name}: name the folder {name}, or put {key}'s card there")
        threads = max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // self._settings.workers))
        detector = Detector(path, alpha=self._settings.alpha, ai_prior=self._settings.ai_prior, threads=threads)
        self._rules[detector.sha256] = rule = load_rule(path, detector.card, detector.alpha)
        if rule.note:
            logger.info("%s: %s", detector.name, rule.note)
        return detector

    def rule(self, detector: Detector) -> Rule:
        """Return what listings are judged by whose photos a model answered that is in service, or was."""
        return self._rules[detector.sha256]

    def _read_calibration(self, settled: float) -> None:
        """Read the shop's calibration where its file is new and was left alone."""
        path = self._settings.calibration
        if path is None or not self._calibration.are_new(now := (_stat(path),), settled):
            return
        shop, fault = None, None
        try:
            shop = read_calibration(path)
        except ModelError as error:
            fault = f"CALIBRATION: {error}"
        self._calibration.note(now, shop, fault)

    def _calibrated(self) -> tuple[ShopCalibration | None, str | None]:
        """Return the calibration that serves with the models as they are, and why the file's is another one.

        The file's own, where it belongs to a model in service; else the one before it, as long as that does.
        """
        fault = self._calibration.fault
        for shop in filter(None, (self._calibration.held, self.shop)):
            if (wrong := self._misfit(shop)) is None:
                return shop, fault
            fault = fault or f"CALIBRATION={self._settings.calibration}: {wrong}"
        return None, fault

    def _misfit(self, shop: ShopCalibration) -> str | None:
        if (detector := self.models.get(shop.model)) is None:
            return f"it is for {shop.model}, and no such model is in service"
        try:
            shop.check(detector.card, detector.sha256, detector.alpha)
        except ModelError as error:
            return str(error)
        return None

    def _publish(self, refused: dict[str, str], *, starting: bool) -> None:
        """Put what was loaded into service, and log what changed."""
        before, faults, shop = self.models, self.refused, self.shop
        self.models = models = self._fitting(refused)
        self.shop, fault = self._calibrated()
        if fault is not None:
            refused[CALIBRATION] = fault
        self.refused = refused
        if self.shop is not shop:
            self._note_shop(starting=starting)
        for name in sorted({*models, *before}):
            self._note_served(name, before.get(name), models.get(name), starting=starting)
        for name, fault in refused.items():
            if faults.get(name) != fault:
                self._note_refused(name, fault, starting=starting)
        for name in faults.keys() - refused.keys():
            metrics.LOADED.labels(name).set(True)
            if name in models and models[name] is before.get(name):
                logger.warning("the files of %s are those in service again", name)

    def _fitting(self, refused: dict[str, str]) -> dict[str, Detector]:
        """Return the models that can be served together, and add to `refused` why the others cannot.

        Of two that claim the same sizes of photos, the one that is in service is served, else the first in
        alphabetical order. A model whose new files claim another's sizes goes on with those before.
        """
        models: dict[str, Detector] = {}

        def rival(detector: Detector) -> Detector | None:
            known = detector.card.domain.geometry
            return next((other for other in models.values() if overlap(known, other.card.domain.geometry)), None)

        served = self.models.values()
        places = sorted(self._places.items(), key=lambda each: (each[1].held not in served, each[0]))
        for key, place in places:
            name = place.held.name if place.held else key
            if place.fault is not None:
                refused[name] = place.fault
            if place.held is None:
                continue
            if (other := rival(place.held)) is not None:
                refused[name] = (
                    f"{place.path} claims sizes of photos that {other.name} claims too: give each model a "
                    "domain.geometry of its own"
                )
            for detector in (place.held, self.models.get(name)):
                if detector is not None and rival(detector) is None:
                    models[name] = detector
                    break
        return dict(sorted(models.items()))

    def _note_served(self, name: str, before: Detector | None, now: Detector | None, *, starting: bool) -> None:
        if before is now:
            return
        for detector, value in ((before, 0), (now, 1)):
            if detector is not None:
                metrics.MODEL.labels(name, detector.version, detector.sha256).set(value)
        for result in ("done", "refused"):
            metrics.SWAPS.labels(name, result)  # there from the start, so that an alert sees the first one
        metrics.LOADED.labels(name).set(now is not None)
        if now is not None and not starting and (before is None or before.sha256 != now.sha256):  # not only a new card
            metrics.SWAPS.labels(name, "done").inc()
            logger.warning("%s: version %s is in service now, sha256 %s", name, now.version, now.sha256)

    def _note_shop(self, *, starting: bool) -> None:
        for result in ("done", "refused"):
            metrics.SWAPS.labels(CALIBRATION, result)
        metrics.LOADED.labels(CALIBRATION).set(self.shop is not None)
        if self.shop is None:
            logger.critical("no calibration is in service any more: the thresholds of the models' cards decide")
            return
        if not starting:
            metrics.SWAPS.labels(CALIBRATION, "done").inc()
        logger.warning(
            "the thresholds of %s are the shop's own now: from %d photos, made at %s",
            self.shop.model,
            self.shop.shop.photos,
            self.shop.made_at,
        )

    def _note_refused(self, name: str, fault: str, *, starting: bool) -> None:
        there = name in self.models
        if name == CALIBRATION:
            there = self.shop is not None
            stays = f"that of {self.shop.made_at} stays in service" if self.shop else ""
            serving = stays or "the thresholds of the models' cards decide"
        elif there:
            serving = f"{name} {self.models[name].version} stays in service"
        elif self.models:
            serving = f"in service: {', '.join(self.models)}"
        else:
            serving = "there is no model: until then predictions and /readyz answer 503"
        logger.critical("%s; %s", fault, serving)
        if not starting:
            metrics.SWAPS.labels(name, "refused").inc()
        if not there:
            metrics.LOADED.labels(name).set(False)


def model_folders(settings: Settings) -> dict[str, Path]:
    """Return where the models lie, by the folder's name, in alphabetical order.

    With MODEL_PATH there is one, under that name: the folder of that file, or the file alone where it has no card.json
    beside it.

    Raises:
        ModelError: MODELS is not a folder, or holds no model.
    """
    if (path := settings.model_path) is not None:
        folder = path if path.is_dir() else path.parent
        whole = (folder / CARD).is_file() and path in (folder, folder / MODEL)
        return {_ONE_MODEL: folder if whole else path}
    ask = "name the folder that holds a folder for each model"
    try:
        entries = sorted(settings.models.iterdir())
    except FileNotFoundError as error:
        raise ModelError(f"MODELS={settings.models} does not exist: {ask}") from error
    except NotADirectoryError as error:
        raise ModelError(f"MODELS={settings.models} is a file: {ask}") from error
    except OSError as error:
        raise ModelError(f"MODELS={settings.models} cannot be read ({error.strerror}): {ask}") from error
    found = {
        entry.name: entry
        for entry in entries
        if not entry.name.startswith(".") and ((entry / CARD).is_file() or (entry / MODEL).is_file())
    }
    if not found:
        raise ModelError(f"MODELS={settings.models} holds no model: put a model's folder, with its {CARD}, there")
    return found


def stamp(path: Path) -> Stamp:
    """Return what changes when a model's files are replaced, also through a link to their folder.

    Args:
        path: the model's folder, or its ONNX file.
    """
    file = path if path.suffix == ".onnx" else path / MODEL
    return tuple(_stat(each) for each in (file, file.with_name(CARD), *sorted(file.parent.glob(ENCODERS))))


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
