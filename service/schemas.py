"""The bodies of all answers, as the OpenAPI page shows them."""

from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from service.models.card import HeatmapKind
from service.models.decision import Decision, Prediction
from service.models.listing import ListingVerdict
from service.models.shop import Calibration, Decided
from service.photo.provenance import CredentialStatus


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


class PredictResponse(Decided):
    """One photo's answer."""

    inference_time_ms: float = Field(ge=0, description="time in the model alone")
    request_id: str


class ExplainResponse(PredictResponse):
    """One photo's answer and why."""

    heatmap_base64: str = Field(
        description="JPEG of the photo's aspect ratio, base64: red speaks for AI-generated, blue for real"
    )


def _optional(schema: type[BaseModel]) -> type[BaseModel]:
    """Return a schema with the same fields, of which each may be null."""
    fields: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        optional = copy(field)
        optional.default = None
        fields[name] = (field.annotation | None, optional)  # type: ignore[operator]
    return create_model(f"Optional{schema.__name__}", __base__=Schema, **fields)


if TYPE_CHECKING:
    _OptionalVerdict = Decided
else:
    _OptionalVerdict = _optional(Decided)


class BatchItem(_OptionalVerdict):
    """One photo of a batch: the fields of a prediction, or an error."""

    filename: str = Field(description="as sent, cleaned of folders and control characters")
    request_id: str = Field(description="the batch's, a colon, the photo's place from 0")
    error: str | None = Field(default=None, description="what is wrong with this file")
    error_type: str | None = Field(default=None, description="its short name", examples=["corrupt_image"])


class BatchResponse(Schema):
    """A batch's answers, in the order of the files."""

    results: list[BatchItem]
    total: int
    successful: int
    failed: int
    total_inference_time_ms: float = Field(ge=0)
    model: str = Field(description="the first in alphabetical order; each item names its own")
    model_version: str = Field(description="of that model")
    request_id: str


LISTING_ID = r"^[!-~]{0,200}$"


class Listing(ListingVerdict):
    """What is said about a listing as a whole."""

    id: str = Field(description="as sent, else the request's; the prediction log keeps it with each photo")
    repeated: list[int] = Field(description="places of photos that are there already: they do not count again")


class ListingResponse(BatchResponse):
    """A listing's answers: those of its photos, in the order of the files, and one for all of them."""

    listing: Listing


class LoggedPrediction(Schema):
    """What the service answered earlier, as the prediction log has it; of an id used twice the newest answer."""

    prediction_id: str = Field(description="the prediction's `request_id`")
    time: datetime
    model: str = Field(description="its name; `cifake` where the row is from when there was one model")
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
    calibration: Calibration | None = Field(description="whose thresholds they were: the model's, or the shop's own")
    group: str | None = Field(description="of the shop's photos, whose thresholds they were; null: of no group")
    brightness: float = Field(description="mean luma of the pixels that the model saw, 0 to 1")
    contrast: float = Field(description="its standard deviation")
    sharpness: float = Field(description="standard deviation of its Laplacian")
    width: int = Field(description="of the photo as it came, upright, in pixels")
    height: int
    jpeg_quality: int | None = Field(description="1 to 100; 0: no JPEG")
    credential: CredentialStatus | None = Field(description="null: none")
    listing: str | None = Field(default=None, description="id of the listing that it came with; null: none")
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
    model_version: str = Field(
        description="of the first model in alphabetical order; 'unknown' while no model is loaded"
    )
    models: dict[str, str] = Field(description="the version of each model in service, by its name")
    uptime_seconds: float = Field(ge=0, description="of the worker that answers")
    active_requests: int = Field(description="of all workers, this one included")
    drift_detected: bool = Field(description="as the drift monitor saw last")
    predictions_total: int = Field(description="photos answered by all workers since the service started")
    request_id: str


class GroupFacts(Schema):
    """The promise to one group of a shop's photos."""

    flag: float = Field(description="flag from this probability on, and from 0.5 on")
    upper: float = Field(description="with a probability of 95 % no more of its real photos are flagged")
    photos: int = Field(description="real ones that it comes from")
    products: int = Field(description="that they show; these count")


class ShopFacts(GroupFacts):
    """The promise to a shop, from its own real photos."""

    made_at: str
    recall: float = Field(description="share of AI images that the release's evaluation finds at this threshold")
    groups: dict[str, GroupFacts] = Field(description="those that the form field `group` may name")
    out_of_domain: float = Field(description="share of the shop's photos that the model does not know; never flagged")


class Thresholds(Schema):
    """Where decisions begin."""

    alpha: float = Field(description="share of real photos that may be flagged")
    ai_prior: float = Field(description="share of AI images that probabilities assume")
    flag: float = Field(description="flag from this probability on, and from 0.5 on")
    clear: float = Field(description="clear below this probability, and below 0.5")
    calibration: Calibration = Field(description="whose they are: the model's, or the shop's own")
    shop: ShopFacts | None = Field(description="of the shop's own; null: they are the model's")


class ModelFacts(Schema):
    """A model in service."""

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
    heatmap: HeatmapKind = Field(
        description="what /predict/explain shows: the map that the answer is the mean of, or the answers for windows, "
        "parts of the photo that overlap"
    )
    plots: list[str] = Field(description="pictures of the release's figures, PNG")
    note: str | None = Field(
        description="why commit, date and metrics are missing, or why the files that lie there now are not in service"
    )


class ModelResponse(ModelFacts):
    """The models in service; the fields beside `models` are those of the first in alphabetical order."""

    models: list[ModelFacts] = Field(description="in alphabetical order of their names")
    refused: dict[str, str] = Field(description="why what lies there is not in service, by the folder's name")
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
    """Only photos that a person reviewed. They are not a random sample."""

    photos: int = Field(description="of the window, those with a moderator's verdict")
    accuracy: float = Field(ge=0, le=1)
    ai_share: float = Field(ge=0, le=1, description="by the moderators' verdicts")
    false_accusations: int = Field(description="called AI-generated, and real")
    missed: int = Field(description="called real, and AI-generated")


class DriftPromise(Schema):
    """What confirmed feedback says of a promise: so many real photos are flagged at most."""

    calibration: Literal["released", "shop"] = Field(description="whose it is: the model's, or the shop's own")
    group: str | None = Field(
        description="of the shop's photos: a name, or 'rest' for the groups that were calibrated together; null: all"
    )
    alpha: float = Field(description="share of real photos that may be flagged")
    bound: float = Field(
        description="share that is tested: of the shop's own the 95 % upper limit, of the model's alpha"
    )
    confirmed: int = Field(description="photos that a moderator called real, the newest 1,000 at most")
    flagged: int = Field(description="of them, those that the pixels flagged")
    stand_for: int | None = Field(
        description="real photos that they stand for, flagged or not: others are reviewed less often than flagged ones"
    )
    share: float | None = Field(ge=0, le=1, description="flagged / stand_for")
    p_value: float | None = Field(ge=0, le=1, description="exact binomial test: is the share above the bound?")
    level: float = Field(description="broken where the p-value is below")
    holds: bool | None = Field(description="false: it is broken; true: nothing speaks against it; null: too little")
    since: datetime | None = Field(description="time of the first of these predictions")
    note: str | None = Field(description="what is missing where `holds` is null")


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
    alerts: list[str] = Field(
        description="what drifted in words, the largest difference first; then broken promises, which begin with "
        "'promise: ' and are no drift"
    )
    promise: DriftPromise | None = Field(
        description="the one of `promises` that is furthest from holding; null: none is known"
    )
    promises: list[DriftPromise] = Field(
        description="on all photos, or one for each group of the shop's, by feedback up to now, whatever the window"
    )
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
