"""What happens to photos on their way to a shop: seeded rewrites that the head learns from and is judged by.

Sizes, file formats and qualities differ between collections of real photos and of AI images. A head would learn these
differences. So both are rewritten alike.
"""

import hashlib
import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

_FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
_LEAST, _MOST = 224, 1024  # short side that a rewritten photo has, in pixels


def rewritten(photo: Image.Image, digest: str, view: int, seed: int) -> Image.Image:
    """Return one view of a photo; the same arguments give the same pixels.

    View 0 is what every shop does: shrink and save again. The others add what people and programs do besides: crop,
    pass through another size, sharpen, change light and colour, other formats, lower quality.

    Args:
        photo: upright, mode RGB.
        digest: sha256 of its file, in hex.
        view: from 0.
        seed: of all photos' views.
    """
    key = hashlib.sha256(f"{seed} {view} {digest}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(key, np.uint32))
    return shrunk_and_saved(photo if view == 0 else _edited(photo, rng), rng, plain=view == 0)


def _edited(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.5:
        photo = _cropped(photo, rng.uniform(0.7, 1), rng)
    if rng.random() < 0.3 and min(photo.size) > 300:  # as a screenshot is: not the size that comes out at the end
        photo = resized(photo, rng.uniform(0.6, 0.95), Image.Resampling.BILINEAR)
    if rng.random() < 0.2:
        photo = photo.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 2), int(rng.integers(30, 120)), 2))
    if rng.random() < 0.3:
        for kind, low, high in (
            (ImageEnhance.Brightness, 0.85, 1.15),
            (ImageEnhance.Color, 0.8, 1.2),
            (ImageEnhance.Contrast, 0.9, 1.1),
        ):
            photo = kind(photo).enhance(rng.uniform(low, high))
    return photo


def shrunk_and_saved(photo: Image.Image, rng: np.random.Generator, *, plain: bool) -> Image.Image:
    """Shrink to a short side drawn from 224 to 1,024 px (evenly in its logarithm), never enlarge, and save again."""
    short = min(photo.size)
    wanted = min(short, 2 ** rng.uniform(np.log2(_LEAST), np.log2(_MOST)))
    way = _FILTERS[rng.integers(len(_FILTERS))]
    if wanted < short:
        photo = resized(photo, wanted / short, way)
    formats, least = (("JPEG", "WEBP"), 60) if plain else (("JPEG", "JPEG", "WEBP", "AVIF"), 50)
    return saved(photo, formats[rng.integers(len(formats))], int(rng.integers(least, 96)))


def saved(photo: Image.Image, kind: str, quality: int) -> Image.Image:
    """Encode a photo and decode it again.

    Args:
        photo: mode RGB.
        kind: JPEG, WEBP or AVIF.
        quality: 1 to 100.
    """
    quick = {"AVIF": {"speed": 8, "max_threads": 1}, "WEBP": {"method": 2}}.get(kind, {})
    buffer = io.BytesIO()
    photo.save(buffer, kind, quality=quality, **quick)
    return Image.open(buffer).convert("RGB")


def resized(photo: Image.Image, factor: float, way: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Return a photo at `factor` times its width and height, at least one pixel each."""
    return photo.resize((max(1, round(photo.width * factor)), max(1, round(photo.height * factor))), way)


def _cropped(photo: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    width, height = round(photo.width * share), round(photo.height * share)
    if min(width, height) < _LEAST:
        return photo
    left, top = int(rng.integers(0, photo.width - width + 1)), int(rng.integers(0, photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))
