"""The bodies of all answers, as the OpenAPI page shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.models.decision import Confidence, Decision, Prediction
from service.models.judgement import DecidedBy


class Schema(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(protected_namespaces=())


class Error(Schema):
    """Every error, of every route."""

    error: str = Field(description="short name of the error", examples=["unsupported_format"])
    detail: str = Field(description="one sentence", examples=["the content is none of JPEG, PNG, WebP, AVIF, HEIC"])
    request_id: str
    status_code: int = Field(examples=[415])
    error_class: Literal["client_error", "server_error"]


CredentialStatus = Literal["valid", "untrusted", "invalid", "unreadable", "elsewhere"]


class Domain(Schema):
    """Is the photo like those the model knows? Both must hold."""

    embedding: bool = Field(description="to the network it is like the training photos")
    geometry: bool = Field(description="its width and height are among the training photos' sizes")


class CredentialVersion(Schema):
    """One manifest of a picture's history."""

    relationship: Literal["active", "parentOf", "componentOf", "inputTo"] = Field(
        description="to the manifest that names it; active: the picture's own"
    )
    status: Literal["valid", "untrusted", "invalid"] = Field(description="its own")
    declares: list[str]
    generator: str | None
    signer: str | None
    decides: Literal["generated", "partly_generated"] | None = Field(
        description="what is believed of the picture because of it; null: nothing"
    )


class Credential(Schema):
    """What a file's C2PA Content Credentials come to; nothing is fetched to verify them."""

    status: CredentialStatus = Field(
        description="valid: whole, of this very picture, signed by one of C2PA_TRUST_ANCHORS; untrusted: whole, but it "
        "cannot be vouched for; invalid: changed after it was signed, or against another rule of C2PA; unreadable: "
        "nothing that the library knows; elsewhere: the file only points to it"
    )
    declares: list[str] = Field(
        description="digital source types of all versions but inputs, believed or not",
        examples=[["trainedAlgorithmicMedia"]],
    )
    generator: str | None = Field(description="the program that wrote the claim, by its own words")
    signer: str | None = Field(description="whose certificate signed it")
    problems: list[str] = Field(
        description="C2PA codes of failures, those of the versions before included",
        examples=[["assertion.dataHash.mismatch"]],
    )
    signature_holds: bool | None = Field(description="the claim is the one that was signed; null: not known")
    unchanged: bool | None = Field(description="picture and statements are those that were signed; null: not known")
    signer_trusted: bool | None = Field(description="the signer is one of C2PA_TRUST_ANCHORS; null: not known")
    in_time: bool | None = Field(
        description="it was signed within the certificate's time or, without a trusted time stamp, that is not over; "
        "null: not known"
    )
    identity: str | None = Field(
        description="label of an identity assertion, which is not checked; null: none", examples=["cawg.identity"]
    )
    versions: list[CredentialVersion] = Field(description="manifests of the picture's history, the active one first")


class Mark(Schema):
    """One unsigned statement of a file about its making; anyone can write or remove it."""

    kind: str = Field(description="docs/PROVENANCE.md lists them", examples=["iptc_digital_source_type"])
    where: str = Field(description="container and field", examples=["xmp:Iptc4xmpExt:DigitalSourceType"])
    says: str = Field(
        description="generated, edited, possibly_generated or suspected_generated; an IPTC source type that is not AI "
        "by its own name, such as digitalCapture; shown: nothing of AI by itself",
        examples=["generated"],
    )
    generator: str | None = Field(description="who or what made it, by its own words; null: it does not say")


class Provenance(Schema):
    """What the file says about its own making; never mixed into the probability."""

    c2pa: Credential | None = Field(
        default=None, description="C2PA Content Credentials; null: the file has none, which proves nothing"
    )
    marks: list[Mark] = Field(default=[], description="unsigned statements in the file; none proves nothing")
    ai_markers: list[str] = Field(default=[], description="for earlier clients: some of the marks, in other words")
    trust: Literal["verified", "claimed", "none"] = Field(
        default="none",
        description="how far this can be trusted; verified: c2pa is valid; claimed: anyone can have written it; "
        "none: the file says nothing",
    )


class Verdict(Schema):
    """What the service says about one photo."""

    prediction: Prediction = Field(description="the likelier label: probability from 0.5 is ai_generated")
    probability: float = Field(ge=0, le=1, description="calibrated P(AI-generated)")
    confidence: Confidence = Field(
        description="from the probability's distance to 0.5: above 0.3 high, below 0.2 low; out of domain always low"
    )
    decision: Decision = Field(
        description="flag: few real photos get here; clear: few AI images get here; review: everything else"
    )
    decided_by: DecidedBy = Field(
        description="credential: a valid Content Credential declares AI, which turned the pixels' decision to flag "
        "(all of the photo) or from clear to review (parts of it); mark: an unsigned mark turned clear to review, as "
        "AI_MARKS=review asks"
    )
    in_domain: bool = Field(description="false: the model knows no such photos, and no promise holds")
    domain: Domain
    provenance: Provenance
    notes: list[str] = Field(
        default=[], description="what was passed over in the file, such as a damaged colour profile"
    )


class PredictResponse(Verdict):
    """One photo's answer."""

    inference_time_ms: float = Field(ge=0, description="time in the model alone")
    model_version: str
    request_id: str


class ExplainResponse(PredictResponse):
    """One photo's answer and why."""

    heatmap_base64: str = Field(
        description="JPEG of the photo's aspect ratio, base64: red speaks for AI-generated, blue for real"
    )


class BatchItem(Schema):
    """One photo of a batch: the fields of a prediction, or an error."""

    filename: str = Field(description="as sent, cleaned of folders and control characters")
    request_id: str = Field(description="the batch's, a colon, the photo's place from 0")
    prediction: Prediction | None = None
    probability: float | None = Field(default=None, ge=0, le=1)
    confidence: Confidence | None = None
    decision: Decision | None = None
    decided_by: DecidedBy | None = None
    in_domain: bool | None = None
    domain: Domain | None = None
    provenance: Provenance | None = None
    notes: list[str] | None = None
    error: str | None = Field(default=None, description="what is wrong with this file")
    error_type: str | None = Field(default=None, description="its short name", examples=["corrupt_image"])


class BatchResponse(Schema):
    """A batch's answers, in the order of the files."""

    results: list[BatchItem]
    total: int
    successful: int
    failed: int
    total_inference_time_ms: float = Field(ge=0)
    model_version: str
    request_id: str


class LoggedPrediction(Schema):
    """What the service answered earlier, as the prediction log has it; of an id used twice the newest answer."""

    prediction_id: str = Field(description="the prediction's `request_id`")
    time: datetime
    model_version: str
    prediction: Prediction
    probability: float = Field(description="as answered, at the `ai_prior` of that time")
    score: float = Field(
        description="the same at the prior of the model's calibration: equal whenever photo and model are"
    )
    decision: Decision
    in_domain: bool
    distance: float = Field(description="from the training photos; in domain up to the card's `domain.threshold`")
    ai_prior: float | None = Field(description="null here and below: the row is from before it was logged")
    flag_threshold: float | None = Field(description="in domain, flagged at or above it and 0.5")
    clear_threshold: float | None = Field(description="in domain, cleared below it and 0.5")
    brightness: float = Field(description="mean luma of the pixels that the model saw, 0 to 1")
    contrast: float = Field(description="its standard deviation")
    sharpness: float = Field(description="standard deviation of its Laplacian")
    width: int = Field(description="of the photo as it came, upright, in pixels")
    height: int
    jpeg_quality: int | None = Field(description="1 to 100; 0: no JPEG")
    credential: CredentialStatus | None = Field(description="null: none")
    label: Prediction | None = Field(description="what a moderator said of it last; null: nobody did")
    request_id: str = Field(description="of this request")


LOGGED_ID = r"^[A-Za-z0-9._-]{1,128}(:[0-9]{1,3})?$"


class FeedbackRequest(Schema):
    """What a moderator says of an earlier answer."""

    request_id: str = Field(
        pattern=LOGGED_ID,
        description="of the prediction: `request_id` of its answer, or of its item in a batch",
        examples=["01M81YWJSJ51VK5SBFRPYH2ZSF"],
    )
    label: Prediction = Field(description="what the photo is")


class FeedbackResponse(Schema):
    """What was kept."""

    prediction_id: str = Field(description="the prediction that was spoken of")
    prediction: Prediction = Field(description="what the service had said")
    label: Prediction = Field(description="what the moderator says")
    agrees: bool
    request_id: str = Field(description="of this request")


class HealthResponse(Schema):
    """Readiness and details."""

    status: Literal["healthy", "unhealthy"]
    model_loaded: bool
    model_version: str = Field(description="'unknown' while no model is loaded")
    uptime_seconds: float = Field(ge=0, description="of the worker that answers")
    active_requests: int = Field(description="of all workers, this one included")
    drift_detected: bool = Field(description="as the drift monitor saw last")
    predictions_total: int = Field(description="photos answered by all workers since the service started")
    request_id: str


class Thresholds(Schema):
    """Where decisions begin."""

    alpha: float = Field(description="share of real photos that may be flagged")
    ai_prior: float = Field(description="share of AI images that probabilities assume")
    flag: float = Field(description="flag from this probability on, and from 0.5 on")
    clear: float = Field(description="clear below this probability, and below 0.5")


class ModelResponse(Schema):
    """The running model."""

    name: str
    version: str
    license: str
    sha256: str = Field(description="of the model file in service")
    git_commit: str | None = Field(description="of its release")
    released_at: str | None
    data: dict[str, Any] = Field(description="what it was trained on")
    metrics: dict[str, Any] | None = Field(description="on the official test images, from its release")
    thresholds: Thresholds = Field(description="in use now")
    model: dict[str, Any] = Field(description="the model file's own card")
    plots: list[str] = Field(description="pictures of the release's figures, PNG")
    note: str | None = Field(
        description="why commit, date and metrics are missing, or why the file that lies there now is not in service"
    )
    request_id: str


class PredictionRatio(Schema):
    """Shares of the two labels."""

    real: float
    ai_generated: float


class DriftColumn(Schema):
    """One column's test."""

    name: str
    test: Literal["z", "fisher_exact", "ks"] = Field(
        description="two-proportion z-test, Fisher's exact test, or two-sample Kolmogorov-Smirnov"
    )
    statistic: float = Field(ge=0, le=1, description="how far window and reference lie apart")
    p_value: float = Field(ge=0, le=1)
    threshold: float = Field(description="drifted where the p-value is below")
    drifted: bool


class DriftReference(Schema):
    """What the window is compared with."""

    name: str = Field(description="reference.npz, the model's own, or the name of the one that was adopted")
    rows: int
    ai_share: float = Field(description="share of AI images in it: by labels; of an adopted one as its scores say")
    adopted: datetime | None = Field(description="when; null: the model's own")


class Reviewed(Schema):
    """Of reviewed photos only: they are no random choice."""

    photos: int = Field(description="of the window, those with a moderator's verdict")
    accuracy: float = Field(ge=0, le=1)
    ai_share: float = Field(ge=0, le=1, description="by the moderators' verdicts")
    false_accusations: int = Field(description="called AI-generated, and real")
    missed: int = Field(description="called real, and AI-generated")


class DriftResponse(Schema):
    """Is what we see now unlike what the model was calibrated on?"""

    model: str = Field(description="its name")
    timestamp: datetime = Field(description="when the window was compared")
    age_seconds: float = Field(ge=0, description="how long ago that was")
    status: Literal["ok", "drift", "insufficient_data"]
    window_size: int = Field(description="predictions that were compared, all of the version in service")
    window_start: datetime | None = Field(description="time of the first of them")
    window_end: datetime | None
    mean_probability: float
    std_probability: float
    low_confidence_ratio: float
    prediction_ratio: PredictionRatio
    drift_detected: bool
    drift_score: float = Field(ge=0, le=1, description="the largest statistic; 0 without enough data")
    checks_in_a_row: int = Field(
        ge=0, description="disjoint windows that drifted one after the other; pages start at 2"
    )
    alerts: list[str] = Field(description="what drifted in words, the largest difference first")
    columns: list[DriftColumn]
    estimated_accuracy: float | None = Field(
        description="mean of max(p, 1-p) over the window: the accuracy, if the calibration still holds (CBPE)"
    )
    estimated_accuracy_interval: tuple[float, float] | None = Field(description="95 %")
    reviewed: Reviewed | None = Field(description="null: too few photos of the window were reviewed")
    reference: DriftReference | None
    report_url: str | None = Field(description="HTML report of the same window; null: there is none")
    request_id: str


class KeptReport(Schema):
    """A check's report."""

    name: str
    model: str
    timestamp: datetime
    status: Literal["ok", "drift", "insufficient_data"]
    window_size: int
    drift_score: float
    checks_in_a_row: int
    alerts: list[str]
    model_version: str
    report_url: str


class DriftReports(Schema):
    """The kept reports of a model, newest first."""

    model: str
    reports: list[KeptReport]
    request_id: str
