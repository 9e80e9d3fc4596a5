"""Settings of the service, each an environment variable of the same name in capitals."""

import sys
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent  # of the repository, or of the Bento's source

MIB = 1024 * 1024


class Settings(BaseSettings):
    """What an operator may change; the defaults serve the model in the repository.

    The release's `card.json` and `reference.npz` are looked for beside the model file.
    """

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    model_path: Path = Field(default=ROOT / "models" / "detector.onnx", description="the model file")
    log_url: str = Field(
        default=f"sqlite:///{ROOT / 'build' / 'predictions.db'}",
        description="SQLAlchemy URL of the prediction log",
    )
    ai_prior: float = Field(default=0.5, gt=0, lt=1, description="share of AI images that probabilities assume")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="share of real photos that may be flagged")
    workers: int = Field(default=2, ge=1, description="processes that answer")
    threads: int = Field(default=2, ge=1, description="requests whose photos one worker decodes and scores at a time")
    max_file_bytes: int = Field(default=10 * MIB, ge=1, description="largest photo file, in bytes")
    max_batch_bytes: int = Field(default=50 * MIB, ge=1, description="largest batch, in bytes")
    max_batch_images: int = Field(default=20, ge=1, description="most photos in a batch")
    max_pixels: int = Field(default=25_000_000, ge=1, description="largest width x height of a photo")
    min_side: int = Field(default=16, ge=1, description="smallest shortest side of a photo, in pixels")
    drift_window: int = Field(default=500, ge=100, description="newest predictions that /drift looks at")


def load_settings() -> Settings:
    """Read the settings from the environment; end the process with one clear line where one is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        faults = (f"{str(e['loc'][0]).upper()}={e['input']}: {e['msg']}" for e in error.errors())
        sys.exit(f"error: {'; '.join(faults)}")
