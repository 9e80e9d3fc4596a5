"""Untrusted bytes -> an upright sRGB photo and what its file says of itself; each file is opened once.

Training, evaluation and serving all decode photos here, so that they cannot differ.
"""

import io
from dataclasses import dataclass

import numpy as np
import pi_heif
from PIL import AvifImagePlugin, Image, PngImagePlugin

from service.photo import metadata
from service.photo.colour import ProfileError, to_srgb
from service.photo.errors import ImageError
from service.photo.formats import NAMES, SEQUENCE_BRANDS, Format, format_of, unsupported_jpeg
from service.photo.hidden import hidden_text
from service.photo.metadata import Metadata
from service.photo.quality import jpeg_quality

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

_AVIF_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})

# Profiles of presses are larger than what Pillow unpacks by itself; all text together stays within its 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = 8 * 2**20
# Pillow's own limit is below what MAX_PIXELS may be set to; ours is checked as soon as the size is known.
Image.MAX_IMAGE_PIXELS = None
# One core each: a service has a worker a core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pi_heif.options.DECODE_THREADS = 1
pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        image: mode RGB, sRGB, upright, at its own size. A large one takes 75 MB: keep it no longer than needed.
        format: of its file.
        jpeg_quality: of its file, 1 to 100; 0: no JPEG.
        metadata: what else its file holds.
        notes: what was passed over in it, a sentence each, such as a damaged colour profile.
    """

    image: Image.Image
    format: Format
    jpeg_quality: int
    metadata: Metadata
    notes: tuple[str, ...]


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Photo:
    """Decode one untrusted photo.

    The content alone decides the format: JPEG, PNG, WebP, AVIF or HEIC, never a name or a declared type. Colours become
    sRGB by the embedded profile. EXIF orientation is applied, and that of AVIF's and HEIC's own boxes; one that stands
    in XMP alone is not, as in browsers. Transparency is laid over white; grey, palette, 1-bit, 16-bit (its high byte)
    and CMYK become RGB.

    Args:
        data: the file's bytes, of any content.
        max_pixels: the largest width x height; a larger file is refused before it is decoded.
        min_side: the shortest side, in pixels, that is still accepted.

    Raises:
        ImageError: whatever is wrong with the file; nothing else is raised.
    """
    if not data:
        raise ImageError("empty_file", 422, "the file is empty")
    kind = format_of(data)
    if kind is None:
        raise ImageError("unsupported_format", 415, f"the content is none of {NAMES}")
    try:
        image = _open(data, kind, max_pixels, min_side)
        hidden = hidden_text(image)
        found = metadata.of_png(data, hidden) if kind == "PNG" else metadata.of_others(data, image, hidden)
        rgb, note = _srgb_over_white(_upright(image, found.exif))
        return Photo(rgb, kind, jpeg_quality(image), found, (note,) if note else ())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_many_pixels(max_pixels) from error
    except ImageError:
        raise
    except Exception as error:  # Pillow lets anything from struct.error to IndexError out of a broken file
        raise _refusal(data, kind, error) from error


def _open(data: bytes, kind: Format, max_pixels: int, min_side: int) -> Image.Image:
    """Open a file, look at its header, and only then decode its pixels."""
    if kind == "HEIF":
        if data[8:12] in SEQUENCE_BRANDS:
            raise _animated()
        pictures = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        picture = pictures[pictures.primary_index]
        _check_size(picture.size, max_pixels, min_side)
        decoded: Image.Image = picture.to_pillow()
        return decoded
    if kind == "AVIF" and data[8:12] not in _AVIF_BRANDS:  # such as MA1B: Pillow looks at the first brand alone
        data = data[:8] + b"avif" + data[12:]
    image = Image.open(io.BytesIO(data), formats=[kind])
    _check_size(image.size, max_pixels, min_side)
    # A JPEG with several pictures (MPO, from phones) is a photo and its preview or depth: the first counts.
    if kind != "JPEG" and getattr(image, "is_animated", False):
        raise _animated()
    image.load()
    return image


def _refusal(data: bytes, kind: Format, error: Exception) -> ImageError:
    if "MAX_TEXT" in str(error):
        return ImageError("decompression_bomb", 413, "the file's metadata unpack to too much")
    reason = unsupported_jpeg(data) if kind == "JPEG" else None
    if kind == "HEIF" and "unsupported" in str(error).lower():
        reason = "its pictures are not coded in HEVC, or in a way that is not supported; send a JPEG"
    if reason is not None:
        return ImageError("unsupported_format", 415, f"the {kind} file cannot be decoded here: {reason}")
    return ImageError("corrupt_image", 422, f"the {kind} file is truncated or corrupt")


def _check_size(size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if min(width, height) < min_side:
        message = f"the photo is {width}x{height} pixels; its shortest side must be {min_side} or more"
        raise ImageError("image_too_small", 422, message)


def _animated() -> ImageError:
    return ImageError("animated_image", 415, "animated images are not supported: send one frame")


def _too_many_pixels(max_pixels: int) -> ImageError:
    return ImageError("too_many_pixels", 413, f"the photo has more than {max_pixels / 1e6:g} megapixels")


def _upright(image: Image.Image, exif: Image.Exif) -> Image.Image:
    try:
        turn = _UPRIGHT.get(exif.get(_ORIENTATION, 1))
    except Exception:  # a damaged field says nothing about the orientation; the photo is still one
        turn = None
    return image if turn is None else image.transpose(turn)


def _srgb_over_white(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return the photo as sRGB over white, and what was wrong with its colour profile, if anything."""
    profile, alpha, note = image.info.get("icc_profile"), None, None
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        if not profile:
            return _over_white(rgba, rgba), None
        alpha = rgba.getchannel("A")
        image = image.convert("L") if image.mode in {"LA", "La"} else rgba.convert("RGB")
    elif image.mode not in {"RGB", "L", "CMYK"}:
        image = image.convert("L" if image.mode == "1" else "RGB")
    if profile:
        try:
            image = to_srgb(image, profile)
        except ProfileError as error:
            note = f"the colour profile was ignored: {error}"
    image = image.convert("RGB")
    return (image if alpha is None else _over_white(image, alpha)), note


def _over_white(image: Image.Image, mask: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=mask)
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as mode L: Pillow's own conversion clips to white instead of scaling."""
    values = np.asarray(image).astype(np.int32)
    if "transparency" in image.info:
        values = np.where(values == image.info["transparency"], 0xFFFF, values)
    return Image.fromarray((values.clip(0, 0xFFFF) >> 8).astype(np.uint8))
