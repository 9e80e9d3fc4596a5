"""What a killed training needs to continue."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.common import whole_file
from stages.data.image_sets import ImageSet, as_stored

Row = dict[str, float]  # one epoch's curves


def identity_of(config: dict[str, Any], *sets: ImageSet) -> str:
    """Return a digest of everything that defines a run: only an equal run may continue from a saved state."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for part in sets:
        for photo in as_stored(part.images):
            digest.update(np.ascontiguousarray(photo).data)
        digest.update(part.labels.data)
    return digest.hexdigest()


class TrainingState:
    """All that a killed training needs to go on, in one file."""

    def __init__(self, path: Path, identity: str, parts: dict[str, Any], generator: torch.Generator) -> None:
        """Touch nothing yet.

        Args:
            path: the file.
            identity: as `identity_of` gives it; the state of any other run is left alone.
            parts: model, optimizer and whatever else has a state_dict, by name.
            generator: where the order of photos and their augmentation come from.
        """
        self._path, self._identity, self._parts, self._generator = path, identity, parts, generator

    def restore(self) -> list[Row]:
        """Load the state of an equal run that was stopped; return its curves, none if there was no such run."""
        saved = self._load()
        if saved is None:
            return []
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        self._generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch_rng"])
        history: list[Row] = saved["history"]
        return history

    def save(self, history: list[Row]) -> None:
        """Write the state after an epoch, whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {"generator": self._generator.get_state(), "torch_rng": torch.get_rng_state()}
        buffer = io.BytesIO()  # a full disk is an OSError this way; torch's own writer hides it
        torch.save(state | {"identity": self._identity, "history": history}, buffer)
        with whole_file(self._path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def _load(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged in one of many ways: a new start mends it
            print(f"{self._path} cannot be read ({type(error).__name__}): starting anew")
            return None
        return state if state["identity"] == self._identity else None
