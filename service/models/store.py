"""The model file that a worker answers with, and how another one takes its place while requests go on."""

import hashlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from service import metrics
from service.models.card import CARD, ModelError, read_card
from service.models.detector import Detector
from service.settings import Settings

logger = logging.getLogger(__name__)

_ALONE_CORES = 4  # at most: for a small network more of them wait for each other
_SETTLED = 1.0  # seconds that a new file must have been left alone

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Model:
    """A loaded model file.

    Attributes:
        detector: the model, on one core: what answers under load, where each core has a worker.
        alone: the same on several cores, bit for bit: what answers a request that finds its worker idle.
        sha256: of its file.
    """

    detector: Detector
    alone: Detector
    sha256: str


class Served:
    """Holds the model in service; whoever answers a request takes it once and keeps it to the end.

    Attributes:
        model: None until a file could be loaded.
        refused: why the file that lies there now is not the one in service; None: it is.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the file; one that cannot be loaded is logged in one line and left out."""
        self._settings = settings
        self.model: Model | None = None
        self.refused: str | None = None
        self._seen = stamp(settings.model_path)
        self._waiting: tuple[Stamp, float] | None = None  # a new file, and since when it lies there so
        try:
            model = load(settings)
        except ModelError as error:
            logger.critical("%s; until then predictions and /readyz answer 503", error)
            self.refused = str(error)
            metrics.LOADED.set(False)
        else:
            self._serve(model)
            try:
                verify(settings.model_path, model.sha256)
            except ModelError as error:  # later it would be refused; here there is no other one to stay with
                logger.critical("%s; it is in service all the same", error)
        for result in ("done", "refused"):
            metrics.SWAPS.labels(result)  # there from the start, so that an alert sees the first one

    def look(self) -> None:
        """Take another file into service, if one was put in place and left alone since; call it once a second.

        It is loaded, run once, and compared with the digest in its card.json; the model before it stays in service
        until then, and goes on where anything is wrong.
        """
        path = self._settings.model_path
        now = stamp(path)
        if now == self._seen:
            return
        if self._waiting is None or self._waiting[0] != now:
            self._waiting = (now, time.monotonic())
        if time.monotonic() - self._waiting[1] < _SETTLED:
            return
        found: Model | str
        try:
            found = load(self._settings)
            verify(path, found.sha256)
        except ModelError as error:
            found = str(error)
        if stamp(path) != now:
            return  # it changed meanwhile: the next look sees it whole
        if isinstance(found, str):
            metrics.SWAPS.labels("refused").inc()
            serving = f"version {self.model.detector.version} stays in service" if self.model else "there is no model"
            logger.critical("%s; %s", found, serving)
            self.refused = found
        else:
            if self.model is None or found.sha256 != self.model.sha256:  # else its card.json was written anew
                metrics.SWAPS.labels("done").inc()
                logger.warning("version %s is in service now, sha256 %s", found.detector.version, found.sha256)
            elif self.refused:
                logger.warning("what lies at %s is the file in service again", path)
            self._serve(found)
        self._seen, self._waiting = now, None

    def _serve(self, model: Model) -> None:
        if self.model is not None:
            metrics.MODEL.labels(self.model.detector.version, self.model.sha256).set(0)
        self.model, self.refused = model, None
        metrics.MODEL.labels(model.detector.version, model.sha256).set(1)
        metrics.LOADED.set(True)


def load(settings: Settings) -> Model:
    """Load the model file that the settings name.

    Raises:
        ModelError: it cannot be used.
    """
    path, cores = settings.model_path, min(_ALONE_CORES, os.cpu_count() or 1)
    detector, alone = (
        Detector(path, alpha=settings.alpha, ai_prior=settings.ai_prior, threads=threads) for threads in (1, cores)
    )
    return Model(detector, alone, digest(path))


def digest(path: Path) -> str:
    """Return a file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(path: Path) -> Stamp:
    """Return what changes when the model file or its card.json is replaced, also through a link to their folder."""
    return tuple(_stat(file) for file in (path, path.with_name(CARD)))


def verify(path: Path, sha256: str) -> None:
    """Compare a model file with the digest in card.json, if there is one beside it.

    Raises:
        ModelError: it is another file's.
    """
    if not path.with_name(CARD).exists():
        return
    said = read_card(path.parent).sha256
    if said != sha256:
        digests = f"sha256 {sha256[:12]}…, and {CARD} beside it says {str(said)[:12]}…"
        raise ModelError(f"{path} has {digests}: put both of one release there")


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
