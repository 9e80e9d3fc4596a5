"""A model's card: what a model folder, and the ONNX file in it, say about the model.

python -m service.models.card models/cifake
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.models.images import Input as Input  # noqa: PLC0414 - part of the card; it lies with the code that obeys it

FORMAT = 2
CARD, MODEL, REFERENCE, PLOTS = "card.json", "model.onnx", "reference.npz", "plots"  # in a model's folder
ENCODERS = "encoder*.safetensors"  # how an encoder's file may be called there

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


class Encoder(_Part):
    """A frozen encoder, whose weights lie beside the ONNX file: that one names them by their places in this file.

    Attributes:
        file: its name, without a folder.
        sha256: of it.
    """

    file: Annotated[str, Field(pattern=r"^encoder[a-z0-9-]*\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


HeatmapKind = Literal["class activation map", "windows"]


class Heatmap(_Part):
    """How it is found which places of a photo speak for the answer.

    `class activation map`: the ONNX file gives the map beside the answer, out of the same forward pass. `windows`: the
    model scores parts of the photo, which overlap, when somebody asks.

    Attributes:
        kind: one of the two.
        across: windows beside each other; of windows alone, as what follows.
        down: windows one below the other.
        share: of the photo's shorter side that a window takes; it has the shape of what the network takes. A long photo
            gets more windows than `across` or `down`, so that all of it is seen.
    """

    kind: HeatmapKind = "class activation map"
    across: Annotated[int, Field(ge=1, le=16)] = 3
    down: Annotated[int, Field(ge=1, le=16)] = 3
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


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
        head_bias: what the mean of a class activation map lacks to the calibrated logit.
        encoder: the file of its largest weights; None: the ONNX file holds them all.
        heatmap: how it explains its answers; None: by a class activation map.
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
    head_bias: float = 0.0
    encoder: Encoder | None = None
    heatmap: Heatmap | None = None
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
    def explains_by(self) -> Heatmap:
        """How it explains its answers."""
        return self.heatmap or Heatmap()

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
        path: a model's folder, whose card.json then counts, or an ONNX file. The encoder that the card names, if it
            names one, lies beside the ONNX file.
        threads: cores used for one forward pass.

    Returns:
        The session (CPU), and the card with the file's `sha256`.

    Raises:
        ModelError: the file or its encoder is missing, unreadable, truncated or another than the card names; the file
            is no ONNX file, or no detector of this project; or card.json is damaged, or another model's.
    """
    path = Path(path)
    card = read_card(path) if path.is_dir() else None
    file = path / MODEL if card else path
    data = _read(file)
    sha256 = check_digest(file, data, card) if card else hashlib.sha256(data).hexdigest()
    if card:
        encoders = [file.with_name(card.encoder.file)] if card.encoder else []
    else:  # the card lies in the file, which cannot be opened without its encoder
        encoders = sorted(file.parent.glob(ENCODERS))
    weights = {encoder.name: _read(encoder, "encoder") for encoder in encoders}
    if card and card.encoder:
        _agree(encoders[0], hashlib.sha256(weights[card.encoder.file]).hexdigest(), card.encoder)
    try:
        session = ort.InferenceSession(data, _options(threads, weights), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each way a file can be wrong
        beside = "" if card else ", or the encoder beside it is missing or truncated"
        raise ModelError(f"model file {file} is truncated or no ONNX model{beside}: {_REMEDY}") from error
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
    if card and card.encoder != inside.encoder:
        raise ModelError(f"{file} and {path / CARD} name different encoders: put all files of one release there")
    if not card:
        check_encoder(file.parent, inside)
    return session, card or inside.model_copy(update={"sha256": sha256})


def _options(threads: int, weights: dict[str, bytes]) -> ort.SessionOptions:
    """Return how a session runs, with the files beside the ONNX file that it may take weights from."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its complaints come as exceptions; twice is noise
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # workers share the cores
    if weights:
        # Copied out of memory, not mapped from the files: whatever happens to these later, the session has its own.
        options.add_external_initializers_from_files_in_memory(
            [*weights], [*weights.values()], [*map(len, weights.values())]
        )
        # The arena would keep what the photos of a forward pass took: 120 MB for each of 336 x 336. A small network is
        # slower without it.
        options.enable_cpu_mem_arena = False
    return options


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


def check_encoder(folder: Path, card: Card) -> None:
    """Go on if the encoder that a card names lies in a folder, or if it names none.

    Raises:
        ModelError: the encoder is missing or unreadable, or another than the card names.
    """
    if card.encoder is None:
        return
    file = folder / card.encoder.file
    with _said_of("encoder", file), file.open("rb") as data:
        _agree(file, hashlib.file_digest(data, "sha256").hexdigest(), card.encoder)


def _agree(file: Path, sha256: str, encoder: Encoder) -> None:
    if sha256 != encoder.sha256:
        raise ModelError(
            f"{file} has sha256 {sha256[:12]}…, and the model's card says {encoder.sha256[:12]}…: put all files of one "
            "release there"
        )


_REMEDY = "restore it ('git checkout models/'), or point MODELS at a folder of released models"


def _read(file: Path, what: str = "model file") -> bytes:
    with _said_of(what, file):
        return file.read_bytes()


@contextmanager
def _said_of(what: str, file: Path) -> Iterator[None]:
    """Make a ModelError of what goes wrong when a file is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{what} {file} not found: {_REMEDY}") from error
    except OSError as error:
        raise ModelError(f"{what} {file} cannot be read ({error.strerror}): {_REMEDY}") from error


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
