"""What traffic is compared with: the model's own reference, or a window of your traffic that you adopted.

Adopted references lie under `DRIFT_URL`, one file each, and never change. `active.json` lists those in force, the
newest last: adopting appends a name, undoing takes the last one away.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.core import url_to_fs

from service.drift import columns
from service.drift.columns import Table
from service.drift.files import write

MINIMUM = 500  # predictions in an adopted reference
_GIVE_UP = "restore the file, or 'python -m service.drift baseline --undo' gives it up"


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
    """The references of one model file."""

    def __init__(self, url: str, model_path: Path) -> None:
        """Remember where they lie.

        Args:
            url: `DRIFT_URL`.
            model_path: of the model file; its own `reference.npz` lies beside it.
        """
        self._files, root = url_to_fs(url)
        self._folder = f"{root}/references"
        self._own = model_path.with_name("reference.npz")

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
                f"{active[-1]} was adopted of another model: adopt one of {model_version} "
                "(python -m service.drift baseline --since 7d), or give it up (--undo)"
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
            raise BadReferenceError(f"the adopted reference {name} has no column {error}: {_GIVE_UP}") from error

    def adopt(self, rows: Sequence[Mapping[str, Any]], model_version: str) -> Reference:
        """Take rows of the prediction log, newest first, as the reference from now on.

        Raises:
            BadReferenceError: there are fewer than `MINIMUM`.
        """
        if len(rows) < MINIMUM:
            raise BadReferenceError(
                f"{len(rows)} predictions of model {model_version} are too few: {MINIMUM} are needed"
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
            raise BadReferenceError("no reference was adopted: the model's own is in force")
        self._set_active(active[:-1])
        return active[-1]

    def active(self) -> list[str]:
        """Return the names of the adopted references, the one in force last.

        Raises:
            BadReferenceError: the list is damaged.
        """
        path = f"{self._folder}/active.json"
        try:
            names = json.loads(self._files.cat_file(path))
        except FileNotFoundError:
            return []
        except ValueError:
            raise BadReferenceError(
                "active.json is damaged: write the list of the references in force into it"
            ) from None
        return [str(name) for name in names]

    def _set_active(self, names: list[str]) -> None:
        write(self._files, f"{self._folder}/active.json", json.dumps(names).encode())

    def _read(self, name: str) -> dict[str, Any]:
        path = f"{self._folder}/{name}.npz"
        try:
            with np.load(io.BytesIO(self._files.cat_file(path)), allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError as error:
            raise BadReferenceError(f"the adopted reference {name} is missing: {_GIVE_UP}") from error
        except OSError:  # the bucket does not answer: no reason to give a reference up
            raise
        except Exception as error:  # numpy raises by the file's kind of damage
            raise BadReferenceError(f"the adopted reference {name} is damaged: {_GIVE_UP}") from error

    def _model_reference(self) -> Reference:
        try:
            with np.load(self._own, allow_pickle=False) as file:
                arrays = dict(file)
            return Reference(self._own.name, columns.from_arrays(arrays), float(arrays["label"].mean()))
        except KeyError as error:
            raise BadReferenceError(f"{self._own.name} beside the model file has no column {error}") from error
        except Exception as error:  # as in _read
            raise BadReferenceError(f"{self._own.name} is missing or damaged beside the model file") from error
