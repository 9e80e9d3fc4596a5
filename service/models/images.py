"""An upright RGB photo -> the pixels a model sees, and simple statistics of those pixels.

Training, evaluation and serving all prepare photos with this module, so that they cannot differ.
"""

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Positive = Annotated[int, Field(ge=1)]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Input(BaseModel):
    """What the network takes.

    Attributes:
        width: of the pixels that it takes.
        height: likewise.
        resize: how a photo becomes that. `squash`: the whole photo, whatever its shape. `crop`: scaled until its
            shorter side fits, then the middle of the longer side. `views`: the same, but `views` crops evenly along
            the longer side, whose logits are averaged.
        views: crops of one photo; 1 unless `resize` is `views`.
        mean: of each colour, 0 to 1; the network itself subtracts it.
        std: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    width: Positive
    height: Positive
    resize: Literal["squash", "crop", "views"]
    views: Positive = 1
    layout: str = "NHWC uint8 RGB"
    mean: list[float] = []
    std: list[float] = []

    @model_validator(mode="after")
    def _views_fit(self) -> "Input":
        if self.resize != "views" and self.views != 1:
            raise ValueError(f"views is {self.views}, but resize is {self.resize}: it takes one view")
        return self


def boxes(width: int, height: int, wanted: Input) -> list[Box]:
    """Return which parts of a photo the model sees: one, or with `views` as many as that says.

    Args:
        width: the photo's, in pixels.
        height: likewise.
        wanted: what the model takes.

    Returns:
        Left, top, right and bottom of each part, in pixels of the photo.
    """
    if wanted.resize == "squash":
        return [(0, 0, width, height)]
    scale = min(width / wanted.width, height / wanted.height)
    across, down = min(width, scale * wanted.width), min(height, scale * wanted.height)
    places = [place / (wanted.views - 1) for place in range(wanted.views)] if wanted.views > 1 else [0.5]
    corners = [((width - across) * place, (height - down) * place) for place in places]
    return [(left, top, min(width, left + across), min(height, top + down)) for left, top in corners]


def windows(width: int, height: int, wanted: Input, *, across: int, down: int, share: float) -> list[Box]:
    """Return parts of a photo, evenly from edge to edge, that have the shape of what the model takes.

    Args:
        width: the photo's, in pixels.
        height: likewise.
        wanted: what the model takes.
        across: parts beside each other; more where so many would leave gaps.
        down: parts one below the other; likewise.
        share: the size of a part; 1: as large as fits into the photo.

    Returns:
        Left, top, right and bottom of each part, row by row, in pixels of the photo.
    """
    scale = share * min(width / wanted.width, height / wanted.height)
    sides = scale * wanted.width, scale * wanted.height
    lefts, tops = (
        _evenly(whole, side, max(number, math.ceil(whole / side)))
        for whole, side, number in zip((width, height), sides, (across, down), strict=True)
    )
    return [(left, top, min(width, left + sides[0]), min(height, top + sides[1])) for top in tops for left in lefts]


def _evenly(whole: float, side: float, number: int) -> list[float]:
    """Return where so many parts of a side begin, from edge to edge; one alone lies in the middle."""
    return [(whole - side) * (place / (number - 1) if number > 1 else 0.5) for place in range(number)]


def prepare(photo: Image.Image, wanted: Input) -> Uint8:
    """Make of a photo what the model takes; one that has this size already keeps its pixels.

    Args:
        photo: upright, mode RGB.
        wanted: what the model takes.

    Returns:
        uint8 [height, width, 3], RGB; for `views` uint8 [views, height, width, 3].
    """
    views = [resize(photo, wanted.height, wanted.width, box) for box in boxes(*photo.size, wanted)]
    return np.stack(views) if wanted.resize == "views" else views[0]


def resize(image: Image.Image, height: int, width: int, box: Box | None = None) -> Uint8:
    """Squash a photo, or a part of it, to `height` x `width` pixels (bicubic).

    Args:
        image: a photo, mode RGB.
        height: rows wanted.
        width: columns wanted.
        box: the part, as `boxes` returns it; None: the whole photo.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC, box), dtype=np.uint8)


def statistics(images: Uint8) -> dict[str, Float32]:
    """Describe photos by plain numbers of a range of about 0..1, for drift detection.

    Computed on the pixels the model sees, so that photos of any size compare. With luma in 0..1 (ITU-R
    BT.601): `brightness` is its mean, `contrast` its standard deviation (RMS contrast, Peli 1990),
    `sharpness` the standard deviation of its 4-neighbour Laplacian (the root of Pech-Pacheco et al. 2000).

    Args:
        images: uint8 [N, H, W, 3], RGB; H and W at least 3. Or [N, V, H, W, 3], several views of each photo.

    Returns:
        `brightness`, `contrast`, `sharpness`: float32 [N]; of several views their means.
    """
    if images.ndim == 5:
        of_views = statistics(images.reshape(-1, *images.shape[2:]))
        return {name: values.reshape(len(images), -1).mean(1) for name, values in of_views.items()}
    columns: dict[str, list[Float32]] = {"brightness": [], "contrast": [], "sharpness": []}
    for start in range(0, len(images), 256):  # in pieces: floats take four times the memory of the photos
        luma = images[start : start + 256].astype(np.float32) @ _LUMA / np.float32(255)
        laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
        laplacian -= 4 * luma[:, 1:-1, 1:-1]
        columns["brightness"].append(luma.mean((1, 2)))
        columns["contrast"].append(luma.std((1, 2)))
        columns["sharpness"].append(laplacian.std((1, 2)))
    empty = np.zeros(0, dtype=np.float32)
    return {name: np.concatenate([empty, *parts]) for name, parts in columns.items()}
