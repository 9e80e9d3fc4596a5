"""A model's card: what a model folder, and the ONNX file in it, say about the model.

python -m service.models.card models/cifake
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.models.images import Input as Input  # noqa: PLC0414 - part of the card; it lies with the code that obeys it

FORMAT = 2
CARD, MODEL, REFERENCE, PLOTS = "card.json", "model.onnx", "reference.npz", "plots"  # in a model's folder

# A card of format 1 is of the time when there was one model, and its name was the project's.
_FIRST_NAME, _FIRST_MODEL = "ai-product-photo-detector", "cifake"


class ModelError(Exception):
    """A model cannot be used; the message says in one line why and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), ser_json_inf_nan="constants")


Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Calibration(_Part):
    """How logits became probabilities, and from how many photos the thresholds come."""

    prior_ai: Share
    method: str = "unknown"
    slope: float | None = None
    intercept: float | None = None
    images: int | None = None
    reals: int | None = None


class Thresholds(_Part):
    """Where decisions begin, at `Calibration.prior_ai`.

    Attributes:
        flag: share of real photos that may be flagged (alpha) -> the probability from which on a photo is flagged.
        clear: the probability below which a photo is cleared.
        clear_miss: share of AI images that may be cleared.
    """

    flag: dict[float, float]
    clear: float
    clear_miss: float | None = None


class Geometry(_Part):
    """The sizes of photos that a model knows, in pixels of the upright photo, ends included."""

    min_width: Positive
    max_width: Positive
    min_height: Positive
    max_height: Positive


class KnownDomain(_Part):
    """Which photos the model knows.

    Attributes:
        threshold: largest OOD score of a photo like those of training.
        geometry: their sizes.
        out_share: share of photos like them that may lie above the threshold.
    """

    threshold: float
    geometry: Geometry
    out_share: float | None = None
    method: str = "unknown"


class Data(_Part):
    """What the model was trained on."""

    dataset: str = "unknown"
    digest: str | None = None


class Release(_Part):
    """What is known of a release and of nothing before it.

    Attributes:
        git_commit: of the code and params that made it; None: not known.
        released_at: ISO 8601, UTC: when test was read.
        validation: figures on validation.
        metrics: figures on test, by selection of photos.
        assessment: what the evaluators measured on test; the first releases have none.
    """

    git_commit: str | None = None
    released_at: str
    validation: dict[str, Any]
    metrics: dict[str, Any]
    assessment: dict[str, Any] = {}


class Card(_Part):
    """A model's card.

    The same in a model's folder (card.json), and inside its ONNX file, but for `sha256` and `release`, which a file
    cannot hold of itself.

    Attributes:
        name: the model's; its folder is called the same.
        version: of this model.
        head_bias: what the heat map's mean lacks to the calibrated logit.
        sha256: of model.onnx beside the card.
        release: None while it is a candidate.
        params: the sections of params.yaml that made it.
    """

    format: Literal[2] = 2
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    version: str
    license: str = "unknown"
    labels: tuple[str, str] = ("real", "ai_generated")
    input: Input
    head_bias: float
    calibration: Calibration
    thresholds: Thresholds
    domain: KnownDomain
    data: Data = Data()
    checkpoint_sha256: str | None = None
    params: dict[str, Any] = {}
    sha256: str | None = None
    release: Release | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_any_format(cls, value: Any) -> Any:
        if isinstance(value, dict) and "model" in value and "sha256" in value:  # a card.json of an earlier version
            release = {key: part for key, part in value.items() if key not in ("version", "sha256", "model")}
            value = value["model"] | {"sha256": value["sha256"], "release": release}
        if isinstance(value, dict) and value.get("format") == 1:
            value = value | {"format": FORMAT}
            if value.get("name", _FIRST_NAME) == _FIRST_NAME:
                value["name"] = _FIRST_MODEL
            if value["input"]["resize"] == "squash-bicubic":
                value["input"] = value["input"] | {"resize": "squash"}
        return value

    @property
    def released(self) -> Release:
        """What is known of its release.

        Raises:
            ModelError: nothing: it is a candidate.
        """
        if self.release is None:
            raise ModelError(f"{self.name} {self.version} is a candidate, and was never released")
        return self.release

    @property
    def of_file(self) -> "Card":
        """The card as the ONNX file holds it: without what a file cannot say of itself."""
        return self.model_copy(update={"sha256": None, "release": None})

    def to_json(self) -> str:
        """Return the card as JSON with sorted keys; the same card gives the same text."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, indent=2)


def open_model(path: str | Path, threads: int = 1) -> tuple[ort.InferenceSession, Card]:
    """Load a model and its checked card.

    Args:
        path: a model's folder, whose card.json then counts, or an ONNX file.
        threads: cores used for one forward pass.

    Returns:
        The session (CPU), and the card with the file's `sha256`.

    Raises:
        ModelError: the file is missing, unreadable, truncated, no ONNX file, or no detector of this project; or
            card.json is damaged, or another model's.
    """
    path = Path(path)
    card = read_card(path) if path.is_dir() else None
    file = path / MODEL if card else path
    data = _read(file)
    sha256 = check_digest(file, data, card) if card else hashlib.sha256(data).hexdigest()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its complaints come as exceptions; twice is noise
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # workers share the cores
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each way a file can be wrong
        raise ModelError(f"model file {file} is truncated or no ONNX model: {_REMEDY}") from error
    try:
        inside = Card.model_validate(json.loads(session.get_modelmeta().custom_metadata_map["card"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model file {file} is not a detector of this project (card: {_why(error)}): {_REMEDY}"
        ) from error
    if card and (card.name, card.version) != (inside.name, inside.version):
        raise ModelError(
            f"{file} is {inside.name} {inside.version}, and {path / CARD} is of {card.name} {card.version}: "
            "put both files of one release there"
        )
    return session, card or inside.model_copy(update={"sha256": sha256})


def read_card(path: str | Path) -> Card:
    """Return the card of a model's folder (card.json), or the one inside an ONNX file.

    Raises:
        ModelError: the folder holds no card, or a damaged one; of a file: as `open_model`.
    """
    path = Path(path)
    if not path.is_dir():
        return open_model(path)[1]
    try:
        return Card.model_validate(json.loads((path / CARD).read_bytes()))
    except FileNotFoundError as error:
        raise ModelError(f"model folder {path} holds no {CARD}: {_REMEDY}") from error
    except OSError as error:
        raise ModelError(f"{path / CARD} cannot be read ({error.strerror}): {_REMEDY}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path / CARD} is damaged or no card ({_why(error)}): {_REMEDY}") from error


def check_digest(file: Path, data: bytes, card: Card) -> str:
    """Return the sha256 of an ONNX file's bytes, if the card.json beside the file names it.

    Raises:
        ModelError: it names another one, or none.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if card.sha256 != sha256:
        beside = file.with_name(CARD)
        said = f"{beside} says {card.sha256[:12]}…" if card.sha256 else f"{beside} names none"
        raise ModelError(f"{file} has sha256 {sha256[:12]}…, and {said}: put both files of one release there")
    return sha256


_REMEDY = "restore it ('git checkout models/'), or point MODELS at a folder of released models"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"model file {file} not found: {_REMEDY}") from error
    except OSError as error:
        raise ModelError(f"model file {file} cannot be read ({error.strerror}): {_REMEDY}") from error


def _why(error: Exception) -> str:
    """Return in a few words, on one line, what is wrong with a card."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return " ".join(f"{type(error).__name__} {error}".split())[:200]


def main() -> None:
    """Print the card of the folder or file named on the command line as JSON."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m service.models.card models/cifake")
    try:
        card = read_card(sys.argv[1])
    except ModelError as error:
        sys.exit(f"error: {error}")
    try:
        print(card.to_json(), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
