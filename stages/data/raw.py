"""The raw data set as the stage download leaves it: its files, and the section that says which one it is."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common import Params

IMAGES = "images.safetensors"  # in ModelPaths.raw
PHOTOS = "photos.parquet"  # in its place: photos of a manifest, each of its own size


class DownloadParams(Params):
    """Section `download` of params.yaml: each data set needs its own keys, and may leave the others out."""

    dataset: Literal["cifake", "photos", "synthetic"]
    # cifake
    huggingface: str = ""
    kaggle: str = ""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64}|)$")] = ""  # of IMAGES; of photos, of the manifest
    # photos
    manifest: str = ""
    url: Annotated[str, Field(pattern=r"^(https?://.*\{source\}.*\{commit\}.*\{path\}|)$")] = ""
    max_missing_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of the photos, and of the sources
    at_once: Annotated[int, Field(ge=1, le=64)] = 8  # requests to the host
    # synthetic
    synthetic_images: Annotated[int, Field(ge=100, le=100_000)]
    synthetic_size: Annotated[int, Field(ge=16, le=1024)]
    synthetic_seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _has_what_its_data_set_needs(self) -> Self:
        needed = {"cifake": ("huggingface", "kaggle", "sha256"), "photos": ("manifest", "url")}
        missing = [name for name in needed.get(self.dataset, ()) if not getattr(self, name)]
        if missing:
            raise ValueError(f"the data set '{self.dataset}' also needs {' and '.join(missing)}")
        return self
