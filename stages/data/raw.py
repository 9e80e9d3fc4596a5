"""The raw data set as the stage download leaves it: where it lies, and the section that says which one it is."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stages.common import Params

RAW = Path("build/raw/images.safetensors")
NAMES = Path(
    "build/raw/names.csv"
)  # a side file: only some sources have names, and only a release's slices ask for them


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: Literal["cifake", "synthetic"]
    huggingface: str
    kaggle: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of build/raw/images.safetensors
    synthetic_images: Annotated[int, Field(ge=100, le=100_000)]
    synthetic_size: Annotated[int, Field(ge=16, le=1024)]
    synthetic_seed: Annotated[int, Field(ge=0)]
