"""Heat maps as a picture that people can read."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.models.images import Box

Float32 = npt.NDArray[np.float32]

_GENERATED = np.array([220, 38, 38], dtype=np.float32)  # red: this place speaks for "AI-generated"
_REAL = np.array([37, 99, 235], dtype=np.float32)  # blue: this place speaks for "real"
_MOST = 0.65  # opacity of the strongest place
_LEAST_SCALE = 2.0  # in logits: a map weaker than this all over stays pale
_MIN_SIDE, _MAX_SIDE = 256, 1024  # longest side of the picture, in pixels


def overlay(image: Image.Image, maps: Float32, boxes: Sequence[Box]) -> bytes:
    """Lay heat maps over a photo, which is shown in grey: its own reds and blues would pass for heat.

    Args:
        image: the photo, mode RGB, upright.
        maps: float32 [V, h, w], in logits: above 0 speaks for "AI-generated".
        boxes: which part of the photo each of them is of, as `Detector.explain` returns it.

    Returns:
        A JPEG of the photo's aspect ratio (to the nearest pixel), its longest side 256 to 1024 pixels.
    """
    longest = max(image.size)
    scale = min(max(longest, _MIN_SIDE), _MAX_SIDE) / longest
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    photo = np.asarray(image.resize(size, Image.Resampling.BICUBIC).convert("L"), dtype=np.float32)[:, :, None]
    heat = place(maps, [tuple(edge * scale for edge in box) for box in boxes], size)
    strength = np.abs(heat) / max(float(np.abs(heat).max()), _LEAST_SCALE)
    opacity = (_MOST * strength)[:, :, None]
    colour = np.where(heat[:, :, None] > 0, _GENERATED, _REAL)
    mixed = photo * (1 - opacity) + colour * opacity
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def place(maps: Float32, boxes: Sequence[tuple[float, ...]], size: tuple[int, int]) -> Float32:
    """Put heat maps where they belong in a photo: their mean where they overlap, 0 where there is none.

    A map of one value counts less and less from its middle to its edges, so that overlapping windows blend.

    Args:
        maps: float32 [V, h, w].
        boxes: left, top, right and bottom of each, in pixels of the picture that is returned.
        size: its width and height.

    Returns:
        float32 [height, width].
    """
    width, height = size
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for heat, (left, top, right, bottom) in zip(maps, boxes, strict=True):
        x, y = round(left), round(top)
        across, down = max(1, min(width, round(right)) - x), max(1, min(height, round(bottom)) - y)
        part = slice(y, y + down), slice(x, x + across)
        weight = np.outer(_ramp(down), _ramp(across)) if heat.size == 1 else np.ones((down, across), np.float32)
        total[part] += weight * np.asarray(Image.fromarray(heat).resize((across, down), Image.Resampling.BICUBIC))
        count[part] += weight
    np.divide(total, count, out=total, where=count > 0)
    return total


def _ramp(length: int) -> Float32:
    """Return weights that rise to the middle and fall after it, all above 0: float32 [length]."""
    middles = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
    ramp: Float32 = np.float32(1) - np.abs(2 * middles - 1)
    return ramp
