"""What may happen to a photo before it is judged: named rewrites, for robustness and agreement."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from stages.frozen.views import resized, saved

Rewrite = Callable[[Image.Image], Image.Image]


def _short_side(pixels: int) -> Rewrite:
    return lambda photo: resized(photo, min(1, pixels / min(photo.size)), Image.Resampling.LANCZOS)


def _saved(kind: str, quality: int) -> Rewrite:
    return lambda photo: saved(photo, kind, quality)


def _half_then_jpeg(photo: Image.Image) -> Image.Image:
    return saved(resized(photo, 0.5), "JPEG", 75)


def _blurred(photo: Image.Image) -> Image.Image:
    """A radius of a 400th of the short side: the blur of a hand that moved a little."""
    return photo.filter(ImageFilter.GaussianBlur(min(photo.size) / 400))


def _noisy(photo: Image.Image) -> Image.Image:
    drawn = np.random.default_rng(0).normal(0, 8, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo, np.float32) + drawn).round().clip(0, 255).astype(np.uint8))


def _middle(share: float) -> Rewrite:
    """Keep the middle, `share` of each side."""

    def cropped(photo: Image.Image) -> Image.Image:
        across, down = photo.width * (1 - share) / 2, photo.height * (1 - share) / 2
        return photo.crop((round(across), round(down), round(photo.width - across), round(photo.height - down)))

    return cropped


def _bordered(photo: Image.Image) -> Image.Image:
    return ImageOps.expand(photo, round(0.1 * min(photo.size)), "white")


def _collage(photo: Image.Image) -> Image.Image:
    """Two by two of the photo and its mirror image, as shops make of several views."""
    tile, mirrored = resized(photo, 0.5), ImageOps.mirror(resized(photo, 0.5))
    sheet = Image.new("RGB", (2 * tile.width, 2 * tile.height), "white")
    for place, part in enumerate((tile, mirrored, mirrored, tile)):
        sheet.paste(part, (place % 2 * tile.width, place // 2 * tile.height))
    return sheet


def _screenshot(photo: Image.Image) -> Image.Image:
    """The photo at another size on a page with bars above and below, as a phone shows it, saved again."""
    inside = resized(photo, 0.83, Image.Resampling.BILINEAR)
    bar = max(8, inside.height // 10)
    page = Image.new("RGB", (inside.width, inside.height + 2 * bar), (248, 248, 248))
    page.paste(inside, (0, bar))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, inside.width, bar // 2), fill=(32, 33, 36))
    for row in range(3):
        top = inside.height + bar + bar // 8 + row * bar // 4
        draw.rectangle((bar // 2, top, inside.width * (3 - row) // 4, top + bar // 10), fill=(90, 90, 90))
    return saved(page, "JPEG", 85)


def _sharpened(photo: Image.Image) -> Image.Image:
    return photo.filter(ImageFilter.UnsharpMask(1.5, 120, 2))


def _denoised(photo: Image.Image) -> Image.Image:
    """A median of 3 x 3 pixels, and sharpened a little: the smooth look of a phone's denoising."""
    return photo.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.UnsharpMask(1, 60, 2))


def _enlarged(photo: Image.Image) -> Image.Image:
    return resized(resized(photo, 0.5), 2, Image.Resampling.LANCZOS)


# What happens to most photos on their way; a decision that changes here is what people complain about.
ORDINARY: dict[str, Rewrite] = {
    "short side 512": _short_side(512),
    "short side 320": _short_side(320),
    "JPEG 90": _saved("JPEG", 90),
    "JPEG 75": _saved("JPEG", 75),
    "JPEG 60": _saved("JPEG", 60),
    "WebP 75": _saved("WEBP", 75),
    "AVIF 60": _saved("AVIF", 60),
    "half size, then JPEG 75": _half_then_jpeg,
    "middle nine tenths": _middle(0.9),
    "mirror image": ImageOps.mirror,
}
REWRITES: dict[str, Rewrite] = ORDINARY | {
    "short side 224": _short_side(224),
    "JPEG 40": _saved("JPEG", 40),
    "blur": _blurred,
    "noise": _noisy,
    "middle quarter": _middle(0.5),
    "border of a tenth": _bordered,
    "collage": _collage,
    "screenshot": _screenshot,
    "sharpened": _sharpened,
    "denoised": _denoised,
    "half size and back": _enlarged,
}
