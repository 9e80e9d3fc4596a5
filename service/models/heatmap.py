"""A class activation map as a picture that people can read."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

_GENERATED = np.array([220, 38, 38], dtype=np.float32)  # red: this place speaks for "AI-generated"
_REAL = np.array([37, 99, 235], dtype=np.float32)  # blue: this place speaks for "real"
_MOST = 0.65  # opacity of the strongest place
_LEAST_SCALE = 2.0  # in logits: a map weaker than this all over stays pale
_MIN_SIDE, _MAX_SIDE = 256, 1024  # longest side of the picture, in pixels


def overlay(image: Image.Image, heatmap: npt.NDArray[np.float32]) -> bytes:
    """Lay a heat map over a photo, which is shown in grey: its own reds and blues would pass for heat.

    Args:
        image: the photo, mode RGB, upright.
        heatmap: float32 [h, w], in logits, covering the whole photo: above 0 speaks for "AI-generated".

    Returns:
        A JPEG of the photo's aspect ratio (to the nearest pixel), its longest side 256 to 1024 pixels.
    """
    longest = max(image.size)
    scale = min(max(longest, _MIN_SIDE), _MAX_SIDE) / longest
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    photo = np.asarray(image.resize(size, Image.Resampling.BICUBIC).convert("L"), dtype=np.float32)[:, :, None]
    heat = np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BICUBIC))
    strength = np.abs(heat) / max(float(np.abs(heat).max()), _LEAST_SCALE)
    opacity = (_MOST * strength)[:, :, None]
    colour = np.where(heat[:, :, None] > 0, _GENERATED, _REAL)
    mixed = photo * (1 - opacity) + colour * opacity
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
