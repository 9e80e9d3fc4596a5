"""What traffic is compared with: the model's own reference, or a window of your traffic that you adopted.

Adopted references lie under `DRIFT_URL/references/<model>`, one file each, and never change. `active.json` lists those
in force, the newest last: adopting appends a name, undoing takes the last one away. What was adopted when there was one
model lies in `DRIFT_URL/references` itself, and is read as that model's.
"""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.core import url_to_fs

from service.drift import columns
from service.drift.columns import Table
from service.drift.files import write
from service.log.tables import FIRST_MODEL
from service.models.card import REFERENCE

logger = logging.getLogger(__name__)

MINIMUM = 500  # predictions in an adopted reference


class BadReferenceError(Exception):
    """There is no usable reference; the message says why and what to do."""


@dataclass(frozen=True)
class Reference:
    """What a window is compared with.

    Attributes:
        name: `reference.npz`, the model's own, or the adopted one's name.
        table: its columns.
        ai_share: of the model's own by its labels; of an adopted one as its probabilities say.
        adopted: when it was adopted; None for the model's own.
    """

    name: str
    table: Table
    ai_share: float
    adopted: datetime | None = None


class References:
    """The references of one model."""

    def __init__(self, url: str, model: str, folder: Path) -> None:
        """Remember where they lie.

        Args:
            url: `DRIFT_URL`.
            model: its name.
            folder: the model's, with its own `reference.npz`.
        """
        self._files, root = url_to_fs(url)
        self._model = model
        self._old_folder = f"{root}/references"  # of the version before references had the model's name
        self._folder = f"{self._old_folder}/{model}"
        self._own = folder / REFERENCE
        self._told = False  # that old ones are read

    def current(self, model_version: str) -> Reference:
        """Return the reference that was adopted last of this model version, or the model's own where none ever was.

        Scores and embeddings of two models do not compare. So where references of other versions alone were adopted
        there is none: against the model's own, which is no shop's traffic, a new release would raise a false alarm.

        Raises:
            BadReferenceError: it is missing or damaged, or was adopted of another version.
            OSError: the folder or bucket does not answer.
        """
        active = self.active()
        if not active:
            return self._model_reference()
        name = next((name for name in reversed(active) if name.endswith(f"-model-{model_version}")), None)
        if name is None:
            raise BadReferenceError(
                f"{active[-1]} was adopted of another version of {self._model}: adopt one of {model_version} "
                f"(python -m service.drift baseline --model {self._model} --since 7d), or give it up (--undo)"
            )
        arrays = self._read(name)
        try:
            return Reference(
                name=name,
                table=columns.from_arrays(arrays),
                ai_share=float(arrays["ai_share"]),
                adopted=datetime.fromisoformat(str(arrays["adopted"])),
            )
        except KeyError as error:
            raise BadReferenceError(f"the adopted reference {name} has no column {error}: {self._remedy()}") from error

    def adopt(self, rows: Sequence[Mapping[str, Any]], model_version: str) -> Reference:
        """Take rows of the prediction log, newest first, as the reference from now on.

        Raises:
            BadReferenceError: there are fewer than `MINIMUM`.
        """
        if len(rows) < MINIMUM:
            raise BadReferenceError(
                f"{len(rows)} predictions of {self._model} {model_version} are too few: {MINIMUM} are needed"
            )
        adopted = datetime.now(UTC).replace(microsecond=0)
        name = f"{adopted:%Y%m%dT%H%M%SZ}-model-{model_version}"
        about: dict[str, Any] = {
            "model_version": np.array(model_version),
            "adopted": np.array(adopted.isoformat()),
            "since": np.array(rows[-1]["time"].isoformat()),
            "until": np.array(rows[0]["time"].isoformat()),
            "ai_share": np.float64(np.mean([row["probability"] for row in rows])),
        }
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **columns.to_arrays(columns.from_rows(rows[::-1])), **about)
        write(self._files, f"{self._folder}/{name}.npz", file.getvalue())
        self._set_active([*self.active(), name])
        return self.current(model_version)

    def undo(self) -> str:
        """Go back to the reference before the one in force; return the name of the one given up, whose file stays.

        Raises:
            BadReferenceError: none was adopted.
        """
        active = self.active()
        if not active:
            raise BadReferenceError(f"no reference of {self._model} was adopted: its own is in force")
        self._set_active(active[:-1])
        return active[-1]

    def active(self) -> list[str]:
        """Return the names of the adopted references, the one in force last.

        Raises:
            BadReferenceError: the list is damaged.
        """
        data = self._cat("active.json")
        if data is None:
            return []
        try:
            return [str(name) for name in json.loads(data)]
        except ValueError:
            raise BadReferenceError(
                f"active.json of {self._model} is damaged: write the list of the references in force into it"
            ) from None

    def _set_active(self, names: list[str]) -> None:
        write(self._files, f"{self._folder}/active.json", json.dumps(names).encode())

    def _read(self, name: str) -> dict[str, Any]:
        data = self._cat(f"{name}.npz")
        if data is None:
            raise BadReferenceError(f"the adopted reference {name} is missing: {self._remedy()}")
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return dict(file)
        except Exception as error:  # numpy raises by the file's kind of damage
            raise BadReferenceError(f"the adopted reference {name} is damaged: {self._remedy()}") from error

    def _cat(self, name: str) -> bytes | None:
        """Return a file's bytes; None: there is no such file. The first model may have one of an earlier version."""
        for folder in (self._folder, self._old_folder)[: 2 if self._model == FIRST_MODEL else 1]:
            with suppress(FileNotFoundError):
                data: bytes = self._files.cat_file(f"{folder}/{name}")
                if folder == self._old_folder and not self._told:
                    logger.warning("%s in %s names no model: it is read as %s's", name, folder, FIRST_MODEL)
                    self._told = True
                return data
        return None

    def _remedy(self) -> str:
        return f"restore the file, or 'python -m service.drift baseline --model {self._model} --undo' gives it up"

    def _model_reference(self) -> Reference:
        try:
            with np.load(self._own, allow_pickle=False) as file:
                arrays = dict(file)
            return Reference(self._own.name, columns.from_arrays(arrays), float(arrays["label"].mean()))
        except KeyError as error:
            raise BadReferenceError(f"{self._own.name} beside the model file has no column {error}") from error
        except Exception as error:  # as in _read
            raise BadReferenceError(f"{self._own.name} is missing or damaged beside the model file") from error
