"""The service's answers as types; docs/API.md says what each field means.

A newer service may send more fields: they are ignored. A field that an older service does not send has a default.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Label = Literal["real", "ai_generated"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Domain(_Answer):
    """Is the photo like those that the model knows? Both must hold."""

    embedding: bool
    geometry: bool


class CredentialVersion(_Answer):
    """One manifest of the picture's history."""

    relationship: Literal["active", "parentOf", "componentOf", "inputTo"]
    status: Literal["valid", "untrusted", "invalid"]
    declares: list[str]
    generator: str | None
    signer: str | None
    decides: Literal["generated", "partly_generated"] | None


class Credential(_Answer):
    """What the file's C2PA Content Credentials come to."""

    status: Literal["valid", "untrusted", "invalid", "unreadable", "elsewhere"]
    declares: list[str]
    generator: str | None
    signer: str | None
    problems: list[str]
    signature_holds: bool | None = None
    unchanged: bool | None = None
    signer_trusted: bool | None = None
    in_time: bool | None = None
    identity: str | None = None
    versions: list[CredentialVersion] = []


class Mark(_Answer):
    """An unsigned statement of the file."""

    kind: str
    where: str
    says: str
    generator: str | None


class Provenance(_Answer):
    """What the file says of its own making."""

    c2pa: Credential | None
    ai_markers: list[str]
    marks: list[Mark] = []
    trust: Literal["verified", "claimed", "none"]


class Prediction(_Answer):
    """What the service says of one photo."""

    prediction: Label
    probability: float
    confidence: Literal["low", "medium", "high"]
    decision: Literal["flag", "clear", "review"]
    decided_by: Literal["pixels", "credential", "mark"]
    in_domain: bool
    domain: Domain
    provenance: Provenance
    notes: list[str] = []
    model: str | None = None
    model_version: str
    calibration: Literal["released", "shop"] = "released"
    request_id: str


class Failure(_Answer):
    """Why there is no prediction for one photo of several."""

    error: str
    error_type: str
    request_id: str | None = None


Answer = Prediction | Failure


class Listing(_Answer):
    """What the service says of one listing.

    Attributes:
        id: as it was sent, else the request's.
        probability: P(not all photos are real); None: the service knows no such photos.
        carried_by: places, from 0, of the photos that decided, the most suspicious first.
        photos: how many could be read, each once.
        in_domain: how many of them the model knows.
        alpha: the share of real listings that may be flagged.
        repeated: places of photos that are there already.
        notes: what else to know.
        answers: what is said of each photo, in order.
    """

    id: str
    decision: Literal["flag", "clear", "review"]
    decided_by: Literal["pixels", "credential", "mark"]
    probability: float | None
    carried_by: list[int]
    photos: int
    in_domain: int
    alpha: float
    repeated: list[int]
    notes: list[str] = []
    answers: list[Answer] = []


class Explanation(_Answer):
    """A prediction, and which places of the photo speak for it."""

    prediction: Prediction
    heatmap: bytes
    """JPEG of the photo's aspect ratio: red speaks for AI-generated, blue for real."""


class Feedback(_Answer):
    """What was kept of a moderator's verdict."""

    prediction_id: str
    prediction: Label
    label: Label
    agrees: bool


class Drift(_Answer):
    """Is what the service sees now unlike what its model was calibrated on?"""

    status: Literal["ok", "drift", "insufficient_data"]
    drift_detected: bool
    drift_score: float
    checks_in_a_row: int
    window_size: int
    alerts: list[str]
    estimated_accuracy: float | None
    timestamp: datetime
