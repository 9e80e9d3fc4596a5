"""What a killed training needs to go on."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from stages.common import whole_file
from stages.data import ImageSet


def identity_of(config: dict[str, Any], *sets: ImageSet) -> str:
    """Digest of all that makes a run what it is: only an equal run may go on from a saved state."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for part in sets:
        digest.update(part.images.data)
        digest.update(part.labels.data)
    return digest.hexdigest()


def save_state(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # a full disk is an OSError this way; torch's own writer hides it
    torch.save(state, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged in one of many ways: a new start mends it
        print(f"{path} cannot be read ({type(error).__name__}): starting anew")
        return None
    return state if state["identity"] == identity else None
