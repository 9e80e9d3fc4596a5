"""The raw data set as the stage download leaves it: its files, and the section that says which one it is."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common import Params

IMAGES = "images.safetensors"  # in ModelPaths.raw
NAMES = "names.csv"  # beside it: only some sources have names, and only a release's slices ask for them


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: Literal["cifake", "synthetic"]
    huggingface: str
    kaggle: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of IMAGES
    synthetic_images: Annotated[int, Field(ge=100, le=100_000)]
    synthetic_size: Annotated[int, Field(ge=16, le=1024)]
    synthetic_seed: Annotated[int, Field(ge=0)]
