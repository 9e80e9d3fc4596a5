"""The models in service: which one answers for a photo, and how each is replaced while requests go on."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service import metrics
from service.models.card import CARD, ENCODERS, MODEL, ModelError, read_card
from service.models.choice import overlap
from service.models.detector import Detector
from service.settings import Settings

logger = logging.getLogger(__name__)

_MOST_THREADS = 4  # of one forward pass: for a small network more of them wait for each other
_SETTLED = 1.0  # seconds that new files must have been left alone
_ONE_MODEL = "MODEL_PATH"  # stands for the folder's name where that setting names the only model

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass
class _Place:
    """Where a model lies.

    Attributes:
        path: the model's folder, or a bare ONNX file.
        detector: the last that could be loaded from there.
        fault: why the files that lie there now are not in service.
        seen: the stamp of the files that `detector` and `fault` are about.
        waiting: the stamp of newer files, and since when they lie there so.
    """

    path: Path
    detector: Detector | None = None
    fault: str | None = None
    seen: Stamp | None = None
    waiting: tuple[Stamp, float] | None = None


class ModelStore:
    """Holds the models in service. A request takes `models` once, and keeps it to its end.

    Attributes:
        models: by name, in alphabetical order; replaced as a whole, never changed.
        refused: why the files of a model are not in service, by its name, or by its folder's where none is in service.
    """

    def __init__(self, settings: Settings) -> None:
        """Load all models; each one that cannot be loaded is logged in one line and left out."""
        self._settings = settings
        self._places: dict[str, _Place] = {}
        self.models: Mapping[str, Detector] = {}
        self.refused: Mapping[str, str] = {}
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
                self._places.setdefault(key, _Place(path)).path = path
        except ModelError as error:
            fault = str(error)
        else:
            for key, place in self._places.items():
                self._reload(key, place, settled)
        self._publish({} if fault is None else {"MODELS": fault}, starting=settled == 0)

    def _reload(self, key: str, place: _Place, settled: float) -> None:
        now = stamp(place.path)
        if now == place.seen:
            return
        if place.waiting is None or place.waiting[0] != now:
            place.waiting = (now, time.monotonic())
        if time.monotonic() - place.waiting[1] < settled:
            return
        detector, fault = place.detector, None
        try:
            detector = self._load(key, place.path)
        except ModelError as error:
            fault = str(error)
        if settled and stamp(place.path) != now:
            return  # it changed meanwhile: the next call sees it whole
        place.detector, place.fault, place.seen, place.waiting = detector, fault, now, None

    def _load(self, key: str, path: Path) -> Detector:
        if key != _ONE_MODEL and path.is_dir() and (name := read_card(path).name) != key:
            raise ModelError(f"{path / CARD} is the card of {name}: name the folder {name}, or put {key}'s card there")
        threads = max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // self._settings.workers))
        return Detector(path, alpha=self._settings.alpha, ai_prior=self._settings.ai_prior, threads=threads)

    def _publish(self, refused: dict[str, str], *, starting: bool) -> None:
        """Put what was loaded into service, and log what changed."""
        before, faults = self.models, self.refused
        self.models = models = self._fitting(refused)
        self.refused = refused
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
        places = sorted(self._places.items(), key=lambda each: (each[1].detector not in served, each[0]))
        for key, place in places:
            name = place.detector.name if place.detector else key
            if place.fault is not None:
                refused[name] = place.fault
            if place.detector is None:
                continue
            if (other := rival(place.detector)) is not None:
                refused[name] = (
                    f"{place.path} claims sizes of photos that {other.name} claims too: give each model a "
                    "domain.geometry of its own"
                )
            for detector in (place.detector, self.models.get(name)):
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

    def _note_refused(self, name: str, fault: str, *, starting: bool) -> None:
        if name in self.models:
            serving = f"{name} {self.models[name].version} stays in service"
        elif self.models:
            serving = f"in service: {', '.join(self.models)}"
        else:
            serving = "there is no model: until then predictions and /readyz answer 503"
        logger.critical("%s; %s", fault, serving)
        if not starting:
            metrics.SWAPS.labels(name, "refused").inc()
        if name not in self.models:
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
