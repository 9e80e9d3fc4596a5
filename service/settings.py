"""Settings of the service, each an environment variable of the same name in capitals."""

import ipaddress
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from limits import parse as parse_limit
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from service.api_keys import ApiKey, parse_keys
from service.photo.credentials import KEY_USAGES, CredentialReader, read_certificates, read_key_usages

ROOT = Path(__file__).resolve().parent.parent  # of the repository, or of the Bento's source

MIB = 1024 * 1024

Value = TypeVar("Value")
Read = TypeVar("Read")

_SECRET = frozenset({"api_keys", "drift_url", "log_url", "rate_limit_url"})  # their values are never printed


def _split(value: object) -> object:
    """Read `a, b` as the list of both."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _keys(entries: list[str]) -> list[str]:
    parse_keys(entries)
    return entries


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


def _rate(value: str) -> str:
    if value:
        parse_limit(value)
    return value


def _database(value: str) -> str:
    try:
        create_engine(value)  # opens nothing yet
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(
            f"{' '.join(str(error).split())}; such as sqlite:////var/lib/log.db or postgresql://…"
        ) from None
    return value


def _rate_storage(value: str) -> str:
    if value != "memory://" and not value.startswith(("redis://", "rediss://", "redis+unix://")):
        raise ValueError("'memory://', or 'redis://host:port/db' (rediss:// with TLS, redis+unix:// for a socket)")
    return value


def _folder(value: str) -> None:
    from fsspec.core import url_to_fs  # of the extra `monitor`

    try:
        url_to_fs(value)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"DRIFT_URL: {' '.join(str(error).split())}; a folder, or s3://… with s3fs installed"
        ) from None


def _origin(value: str) -> str:
    if value != "*" and (not value.startswith(("http://", "https://")) or value.count("/") != 2):
        raise ValueError(f"'{value}' is not an origin such as https://shop.example")
    return value


def _named(name: str, value: Value, read: Callable[[Value], Read]) -> Read:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}={value}: {error}") from None


List = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Rate = Annotated[str, AfterValidator(_rate)]


class Settings(BaseSettings):
    """What an operator may change; the defaults serve the model in the repository.

    A model is a folder in MODELS, with its card.json, model.onnx, reference.npz, plots/ and, where the card names one,
    its encoder.
    """

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    aidetect_env: str = Field(default="development", description="'production' turns the rate limits on")
    workers: int = Field(default=2, ge=1, description="processes that answer")

    models: Path = Field(
        default=ROOT / "models", description="the folder that holds the models, each in a folder of its name"
    )
    model_path: Path | None = Field(
        default=None, description="deprecated: the file or folder of one model, served instead of those in MODELS"
    )
    ai_prior: float = Field(default=0.5, gt=0, lt=1, description="share of AI images that probabilities assume")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="share of real photos that may be flagged")
    calibration: Path | None = Field(
        default=None, description="file that 'python -m tools.calibrate' wrote: thresholds of a shop's own"
    )

    c2pa_trust_anchors: Path | None = Field(
        default=None,
        description="PEM file of the certificates whose Content Credentials are believed, such as the C2PA trust list",
    )
    c2pa_time_stamp_anchors: Path | None = Field(
        default=None,
        description="PEM file of those who are believed when a credential was signed, such as the C2PA TSA trust list",
    )
    c2pa_key_usages: str = Field(
        default=",".join(KEY_USAGES),
        description="comma-separated object identifiers, or a file with one a line, of what a signer's certificate may "
        "be for beside e-mail",
    )
    ai_marks: Literal["show", "review"] = Field(
        default="show",
        description="'review' sends a photo with an unsigned mark of AI to a person instead of clearing it",
    )

    log_url: Annotated[str, AfterValidator(_database)] = Field(
        default=f"sqlite:///{ROOT / 'build' / 'predictions.db'}",
        description="SQLAlchemy URL of the prediction log: sqlite:///… or postgresql://…",
    )
    log_retention_days: float = Field(
        default=90, ge=0, description="predictions and feedback older than this are deleted; 0 keeps them"
    )

    log_share: float = Field(
        default=1,
        gt=0,
        le=1,
        description="share of predictions that are logged, chosen by request id; drift and feedback know no others",
    )

    monitor: bool | None = Field(
        default=None, description="watch for drift; unset: where Evidently is installed (extra 'monitor')"
    )
    drift_window: int = Field(default=500, ge=100, le=20_000, description="newest predictions that /drift looks at")
    drift_max_age_seconds: float = Field(default=60, ge=1, le=600, description="how old an answer of /drift may be")
    drift_check_seconds: float = Field(
        default=3600, ge=1, description="shortest time between two checks; each takes DRIFT_WINDOW new predictions"
    )
    drift_url: str = Field(
        default=str(ROOT / "build" / "drift"),
        description="folder, or bucket such as s3://…, of the kept drift reports and of your own references",
    )
    drift_retention_days: float = Field(
        default=30, ge=0, description="drift reports older than this are deleted; 0 keeps them"
    )

    api_keys: Annotated[List, AfterValidator(_keys)] = Field(
        default=[], description="comma-separated 'name:key' or 'name:sha256:<hex>'; any key turns authentication on"
    )
    api_keys_file: Path | None = Field(default=None, description="file with more keys, one a line, # for comments")
    require_auth: bool = Field(default=False, description="refuse to start without keys")
    cors_origins: Annotated[List, AfterValidator(lambda many: [_origin(one) for one in many])] = Field(
        default=[], description="comma-separated origins whose pages may ask, such as https://shop.example"
    )
    trusted_proxies: Annotated[List, AfterValidator(lambda many: [_network(one) for one in many])] = Field(
        default=[], description="comma-separated addresses or networks whose X-Forwarded-For is believed"
    )
    rate_limits: bool | None = Field(default=None, description="on or off whatever AIDETECT_ENV says")
    rate_limit_url: Annotated[str, AfterValidator(_rate_storage)] = Field(
        default="memory://", description="where they are counted: memory:// (this machine) or redis://…"
    )
    rate_limit_predict: Rate = Field(default="30/minute", description="of /predict, a key or address; '' for none")
    rate_limit_batch: Rate = Field(default="5/minute", description="of /predict/batch, and of /predict/listing")
    rate_limit_explain: Rate = Field(default="10/minute", description="of /predict/explain")

    threads: int = Field(default=1, ge=1, description="requests whose photos one worker decodes and scores at a time")
    max_images_in_flight: int = Field(
        default=1024, ge=1, description="photos that one worker has in hand or waiting; beyond it 503"
    )
    queue_seconds: float = Field(default=20, gt=0, le=20, description="longest wait of a request's photos; then 503")
    max_buffered_bytes: int = Field(
        default=256 * MIB, ge=1, description="bodies that one worker holds in memory; beyond it 503"
    )
    upload_seconds: float = Field(default=60, gt=0, description="time for a body to arrive; then 408")
    max_file_bytes: int = Field(default=10 * MIB, ge=1, description="largest photo file, in bytes")
    max_batch_bytes: int = Field(default=50 * MIB, ge=1, description="largest batch or listing, in bytes")
    max_batch_images: int = Field(default=20, ge=1, description="most photos in a batch or listing")
    max_pixels: int = Field(default=25_000_000, ge=1, description="largest width x height of a photo")
    min_side: int = Field(default=16, ge=1, description="smallest shortest side of a photo, in pixels")

    def monitored(self) -> bool:
        """Tell whether this service watches for drift."""
        return find_spec("evidently") is not None if self.monitor is None else self.monitor

    def rate_limited(self) -> bool:
        """Tell whether rate limits are on."""
        return self.aidetect_env == "production" if self.rate_limits is None else self.rate_limits

    def accepted_keys(self) -> tuple[ApiKey, ...]:
        """Return the keys of API_KEYS and API_KEYS_FILE; with none, everyone may ask.

        Raises:
            ValueError: the file cannot be read or is not a list of keys.
        """
        entries = list(self.api_keys)
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"API_KEYS_FILE={self.api_keys_file} cannot be read: {error}") from None
            entries += [text for line in lines if (text := line.partition("#")[0].strip())]
        return parse_keys(entries)

    def credential_reader(self) -> CredentialReader:
        """Return the reader of Content Credentials, with the signers that it trusts.

        Raises:
            ValueError: one of the files or lists cannot be read.
        """
        anchors = _named("C2PA_TRUST_ANCHORS", self.c2pa_trust_anchors, read_certificates)
        times = _named("C2PA_TIME_STAMP_ANCHORS", self.c2pa_time_stamp_anchors, read_certificates)
        return CredentialReader(anchors, time_stamp_anchors=times, key_usages=self.key_usages())

    def key_usages(self) -> tuple[str, ...]:
        """Return what a signer's certificate may be for, as object identifiers.

        Raises:
            ValueError: the file cannot be read, or one is none.
        """
        return _named("C2PA_KEY_USAGES", self.c2pa_key_usages, read_key_usages)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.require_auth and not self.accepted_keys():
            raise ValueError("REQUIRE_AUTH is set, but neither API_KEYS nor API_KEYS_FILE holds a key")
        if self.monitor and find_spec("evidently") is None:
            raise ValueError(
                "MONITOR needs Evidently: pip install 'ai-product-photo-detector[monitor]', or MONITOR=off"
            )
        self.credential_reader()
        if self.monitored():
            _folder(self.drift_url)
        if self.api_keys_file is not None and not self.accepted_keys():
            raise ValueError(f"API_KEYS_FILE={self.api_keys_file} holds no key")
        if self.max_images_in_flight < self.max_batch_images:
            raise ValueError("MAX_IMAGES_IN_FLIGHT must not be below MAX_BATCH_IMAGES: no full batch would ever fit")
        if self.max_buffered_bytes < max(self.max_batch_bytes, self.max_file_bytes) + FORM_OVERHEAD:
            raise ValueError("MAX_BUFFERED_BYTES must hold one batch (MAX_BATCH_BYTES) and 64 KiB")
        return self


FORM_OVERHEAD = 64 * 1024  # bytes of a form beside its files: boundaries, part headers, small text fields


def load_settings() -> Settings:
    """Read the settings from the environment; end the process with one clear line where one is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            name = str(fault["loc"][0]) if fault["loc"] else ""
            value = "(not shown)" if name in _SECRET else fault["input"]
            reason = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{name.upper()}={value}: {reason}" if name else reason)
        sys.exit(f"error: {'; '.join(faults)}")
