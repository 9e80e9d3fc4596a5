"""What a killed training needs to go on."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from stages.common import whole_file
from stages.data.image_sets import ImageSet
from stages.training import processes

Row = dict[str, float]  # one epoch's curves


def identity_of(config: dict[str, Any], *sets: ImageSet) -> str:
    """Digest of all that makes a run what it is: only an equal run may go on from a saved state."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for part in sets:
        digest.update(part.images.data)
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
            generator: where this process's augmentation comes from.
        """
        self._path, self._identity, self._parts, self._generator = path, identity, parts, generator

    def restore(self) -> list[Row]:
        """Go back to where an equal run was stopped; return its curves, none where there is no such run."""
        saved = processes.from_first(None if processes.rank() else self._load())
        if saved is None:
            return []
        for name, part in self._parts.items():
            part.load_state_dict(saved[name])
        self._generator.set_state(saved["generators"][processes.rank()])
        torch.set_rng_state(saved["torch_rngs"][processes.rank()])
        history: list[Row] = saved["history"]
        return history

    def save(self, history: list[Row]) -> None:
        """Write the state after an epoch, whole or not at all; every process must call it, the first one writes."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {"generators": processes.of_all(self._generator.get_state())}
        state |= {"torch_rngs": processes.of_all(torch.get_rng_state())}
        if processes.rank():
            return
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
