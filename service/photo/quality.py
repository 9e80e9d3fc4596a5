"""How hard a JPEG file was compressed."""

from functools import lru_cache

import numpy as np
from PIL import Image

# Luminance quantization of quality 50: ITU-T T.81, table K.1, in Pillow's (natural) order.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ]
)


def jpeg_quality(image: Image.Image) -> int:
    """Return libjpeg's quality, 1 to 100, that gives a photo's luminance table, or the nearest one; 0 for no JPEG.

    libjpeg scales table K.1 by 50 / quality below quality 50, and by 2 - quality / 50 from there on; this takes the
    mean scale back. Encoders with tables of their own (Photoshop, phones) get the quality of like strength. A lossless
    JPEG has no table, and loses nothing: 100.

    Args:
        image: as Pillow opened the file.
    """
    tables = getattr(image, "quantization", None)
    if tables is None:
        return 0
    if not tables:
        return 100
    return _quality_of(tuple(tables[min(tables)]))


@lru_cache(maxsize=256)  # a shop's photos have few tables
def _quality_of(steps: tuple[int, ...]) -> int:
    table = np.array(steps)
    free = table < 255  # a baseline file holds no more: those steps are cut off
    scale = table[free].sum() / _LUMINANCE[free].sum() if free.any() else 50.0
    return int(np.clip(round(50 / scale if scale > 1 else 100 - 50 * scale), 1, 100))
