"""An upright RGB photo -> the pixels a model sees, and simple statistics of those pixels.

Training, evaluation and serving all prepare photos with this module, so that they cannot differ.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def resize(image: Image.Image, height: int, width: int) -> Uint8:
    """Squash the whole photo to `height` x `width` pixels ("squash").

    Squashed and not cropped, so that the heat map covers the whole photo. One of that size stays as it is.

    Args:
        image: a photo, mode RGB.
        height: rows wanted.
        width: columns wanted.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.uint8)


RESIZES = {"squash": resize}  # by what a model's card names as its `input.resize`


def statistics(images: Uint8) -> dict[str, Float32]:
    """Describe photos by plain numbers of a range of about 0..1, for drift detection.

    Computed on the pixels the model sees, so that photos of any size compare. With luma in 0..1 (ITU-R
    BT.601): `brightness` is its mean, `contrast` its standard deviation (RMS contrast, Peli 1990),
    `sharpness` the standard deviation of its 4-neighbour Laplacian (the root of Pech-Pacheco et al. 2000).

    Args:
        images: uint8 [N, H, W, 3], RGB; H and W at least 3.

    Returns:
        `brightness`, `contrast`, `sharpness`: float32 [N].
    """
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
