"""The tables of the prediction log."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)  # fmt: skip

EMBEDDING_COMPONENTS = 8  # numbers of the embedding that are kept
FIRST_MODEL = "cifake"  # the only model there was before the log, references and reports knew the model's name

METADATA = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")  # 32 bits are used up after 25 days of 1,000 a second

PREDICTIONS = Table(
    "predictions",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("request_id", String(200), nullable=False),
    Column("time", DateTime, nullable=False),  # UTC
    Column("model_version", String(100), nullable=False),
    Column("score", Float, nullable=False),  # P(AI-generated) at the prior of the model's calibration
    Column("probability", Float, nullable=False),  # P(AI-generated) as answered, at AI_PRIOR
    Column("prediction", String(20), nullable=False),
    Column("decision", String(20), nullable=False),
    Column("in_domain", Boolean, nullable=False),
    Column("distance", Float, nullable=False, key="ood_score"),
    Column("brightness", Float, nullable=False),
    Column("contrast", Float, nullable=False),
    Column("sharpness", Float, nullable=False),
    Column("embedding", JSON, nullable=False),  # the first EMBEDDING_COMPONENTS numbers
    Column("width", Integer, nullable=False),  # of the photo as it came, upright, in pixels
    Column("height", Integer, nullable=False),
    # What follows came later, each by a migration (`migrations.py`): nullable or with a default, because older rows,
    # and workers of an earlier version that still write, have no value for it.
    Column("jpeg_quality", Integer),  # 1 to 100; 0: no JPEG; null: a row from before there was this column
    Column("credential", String(20)),  # `Credential.status`; null: none, or an older row
    Column("ai_prior", Float),  # what AI_PRIOR was
    Column("flag_threshold", Float),  # where the decisions began, on the scale of `probability`
    Column("clear_threshold", Float),
    Column("model", String(40), nullable=False, server_default=FIRST_MODEL),  # its name
    Column("calibration", String(20)),  # whose thresholds: `shop` or `released`; null: a row from before
    Column("shop_group", String(200)),  # the group whose thresholds they were; null: those of the whole shop
    Column("listing", String(200)),  # id of the listing that the photo was sent with; null: it was sent alone
)
FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("id", _ID, primary_key=True),
    Column("request_id", String(200), nullable=False),  # of the prediction; the newest row counts
    Column("time", DateTime, nullable=False),  # UTC
    Column("label", String(20), nullable=False),
    Column("api_key", String(40)),  # whose, by name
)
SCHEMA_VERSION = Table(
    "schema_version",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),  # of a migration that was applied
    Column("time", DateTime, nullable=False),  # UTC
)
INDEXES = (
    Index("predictions_request_id", PREDICTIONS.c.request_id),
    Index("predictions_time", PREDICTIONS.c.time),
    Index("predictions_model_id", PREDICTIONS.c.model, PREDICTIONS.c.model_version, PREDICTIONS.c.id),
    Index("predictions_model_time", PREDICTIONS.c.model, PREDICTIONS.c.model_version, PREDICTIONS.c.time),
    Index("feedback_request_id", FEEDBACK.c.request_id),
    Index("feedback_time", FEEDBACK.c.time),
)
SUPERSEDED_INDEXES = ("predictions_version_id", "predictions_version_time")  # of earlier versions


def now() -> datetime:
    """Return the time as the log keeps it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
