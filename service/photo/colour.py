"""Colour profiles: pixels of any embedded ICC profile become sRGB, as every browser shows them."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

_NEAR = 2  # levels of 255: a profile that moves no colour further is sRGB by another name
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # a photo's mode -> the profile's colour space (ICC.1, 7.2.6)
_CACHED = 16  # profiles whose transforms are kept: building one takes milliseconds


class ProfileError(Exception):
    """A profile that cannot be applied; the message says why."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert a photo's colours to sRGB, with the profile's perceptual intent.

    Args:
        image: mode RGB, L or CMYK.
        profile: the ICC profile embedded in its file.

    Returns:
        Mode RGB; `image` itself, in its own mode, where the profile is as good as sRGB.

    Raises:
        ProfileError: the profile is damaged, or of another colour space than the photo.
    """
    if image.mode == "RGB" and profile[16:20] == b"GRAY" and _is_grey(image):  # some containers hold no other mode
        image = image.convert("L")
    transform = _transform(profile, image.mode)
    if isinstance(transform, ProfileError):
        raise transform
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # noqa: S101 - for mypy: only `inPlace` returns None
    converted.info.pop("icc_profile", None)
    return converted


@lru_cache(_CACHED)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | ProfileError | None:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space
        if space != _SPACES[mode]:
            return ProfileError(f"it is of the colour space {space.strip()}, and the photo is {_SPACES[mode].strip()}")
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if _is_srgb(transform, mode) else transform
    except Exception as error:  # Pillow lets OSError, PyCMSError and more out of a damaged profile
        return ProfileError(" ".join(str(error).split())[:100] or type(error).__name__)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    return not any(ImageChops.difference(red, other).getbbox() for other in (green, blue))


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Tell whether a transform leaves colours as they are, tried on 17 steps of each channel."""
    if mode == "CMYK":
        return False
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    if mode == "L":
        before = np.stack([steps[None]] * 3, axis=2)
        image = Image.fromarray(steps[None])
    else:
        before = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(17, -1, 3)
        image = Image.fromarray(before)
    after = np.asarray(ImageCms.applyTransform(image, transform))
    return bool(np.abs(after.astype(int) - before.astype(int)).max() <= _NEAR)
