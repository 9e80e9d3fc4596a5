"""The model file's own card: what `models/cifake/model.onnx` says about itself.

python -m service.models.card models/cifake/model.onnx
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort

FORMAT = 1
# What the code reads from a card; the rest is for people.
_REQUIRED = (
    ("version", str),
    ("labels", list),
    ("input.height", int),
    ("input.width", int),
    ("input.resize", str),
    ("head_bias", float),
    ("calibration.prior_ai", float),
    ("thresholds.flag", dict),
    ("thresholds.clear", float),
    ("domain.threshold", float),
    ("domain.geometry.min_width", int),
    ("domain.geometry.max_width", int),
    ("domain.geometry.min_height", int),
    ("domain.geometry.max_height", int),
)


class ModelError(Exception):
    """The model file cannot be used; the message says in one line why and what to do."""


def open_model(path: str | Path, threads: int = 1) -> tuple[ort.InferenceSession, dict[str, Any]]:
    """Load an ONNX file and its checked card.

    Args:
        path: the ONNX file.
        threads: cores used for one forward pass.

    Returns:
        The session (CPU) and the card.

    Raises:
        ModelError: the file is missing, unreadable, truncated, no ONNX file, or no detector of this project.
    """
    remedy = "restore it ('git checkout models/') or point MODEL_PATH at a released model.onnx"
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"model file {path} not found: {remedy}") from error
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read ({error.strerror}): {remedy}") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its complaints come as exceptions; twice is noise
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # workers share the cores
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each way a file can be wrong
        raise ModelError(f"model file {path} is truncated or no ONNX model: {remedy}") from error
    try:
        card: dict[str, Any] = json.loads(session.get_modelmeta().custom_metadata_map["card"])
        _check(card)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"model file {path} is no detector of this project (card: {error}): {remedy}") from error
    return session, card


def read_card(path: str | Path) -> dict[str, Any]:
    """Return the card inside an ONNX file.

    Raises:
        ModelError: as `open_model`.
    """
    return open_model(path)[1]


def _check(card: dict[str, Any]) -> None:
    if card["format"] != FORMAT:
        raise ValueError(f"format {card['format']}, not {FORMAT}")
    for key, kind in _REQUIRED:
        value: Any = card
        for part in key.split("."):
            value = value[part]
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{key} is {value!r}")


def main() -> None:
    """Print the card of the file named on the command line as JSON."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m service.models.card models/cifake/model.onnx")
    try:
        card = read_card(sys.argv[1])
    except ModelError as error:
        sys.exit(f"error: {error}")
    try:
        print(json.dumps(card, indent=2), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
