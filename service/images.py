"""Untrusted bytes -> an upright RGB photo -> the pixels a model sees, and simple statistics of those pixels.

Training, evaluation and serving all prepare photos with this module, so that they cannot differ.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

MAX_PIXELS = 25_000_000
MIN_SIDE = 16

_ORIENTATION = 0x0112  # EXIF tag 274
_UPRIGHT = {  # EXIF orientation (CIPA DC-008, 4.6.4) -> what turns the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class ImageError(Exception):
    """A file that cannot be scored, and whose fault that is.

    Attributes:
        error_type: short name for metrics and the `error` field, such as `unsupported_format`.
        status: the HTTP status code it answers with (413, 415 or 422).
        message: one sentence for the sender.
    """

    def __init__(self, error_type: str, status: int, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = status
        self.message = message


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Image.Image:
    """Decode one untrusted photo.

    The content alone decides the format: JPEG, PNG or WebP, never a name or a declared type. EXIF orientation
    is applied; transparency is laid over white; grey, palette, 1-bit, 16-bit (its high byte) and CMYK become
    RGB; colour profiles are ignored, as they are for the training photos.

    Args:
        data: the file's bytes, of any content.
        max_pixels: the largest width x height; a larger file is refused before it is decoded.
        min_side: the shortest side, in pixels, that is still accepted.

    Returns:
        The photo, mode RGB, upright, at its own size.

    Raises:
        ImageError: whatever is wrong with the file; nothing else is raised.
    """
    if not data:
        raise ImageError("empty_file", 422, "the file is empty")
    kind = _format(data)
    if kind is None:
        raise ImageError("unsupported_format", 415, "the content is none of JPEG, PNG, WebP")
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        _check_header(image, max_pixels, min_side)
        if kind == "PNG":  # Pillow checks the pixels' CRC here only, and an image is spent after it
            image.verify()
            image = Image.open(io.BytesIO(data), formats=[kind])
        image.load()
        return _over_white(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_many_pixels(max_pixels) from error
    except ImageError:
        raise
    except Exception as error:  # Pillow lets anything from struct.error to IndexError out of a broken file
        if "MAX_TEXT" in str(error):
            raise ImageError("decompression_bomb", 413, "the file's metadata unpack to too much") from error
        raise ImageError("corrupt_image", 422, f"the {kind} file is truncated or corrupt") from error


def resize(image: Image.Image, height: int, width: int) -> Uint8:
    """Squash the whole photo to `height` x `width` pixels ("squash-bicubic").

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


RESIZES = {"squash-bicubic": resize}  # by what a model's card names as its `input.resize`


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


def _format(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def _check_header(image: Image.Image, max_pixels: int, min_side: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if min(width, height) < min_side:
        message = f"the photo is {width}x{height} pixels; its shortest side must be {min_side} or more"
        raise ImageError("image_too_small", 422, message)
    # A JPEG with several pictures (MPO, from phones) is a photo and its preview or depth: the first counts.
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):
        raise ImageError("animated_image", 415, "animated images are not supported: send one frame")


def _too_many_pixels(max_pixels: int) -> ImageError:
    return ImageError("too_many_pixels", 413, f"the photo has more than {max_pixels / 1e6:g} megapixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing about the orientation; the photo is still one
        turn = None
    return image if turn is None else image.transpose(turn)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips to white instead of scaling
        values = np.asarray(image).astype(np.int32)
        if "transparency" in image.info:
            values = np.where(values == image.info["transparency"], 0xFFFF, values)
        return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image.convert("RGB")
