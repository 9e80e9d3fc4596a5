"""Text hidden in a photo's transparency: the lowest bit of each alpha value, column by column.

NovelAI and an extension of Stable Diffusion's web UI write it so ("stealth PNG info"): a word that names the form,
32 bits with the text's length in bits, the text, packed with gzip or not.
"""

import zlib

import numpy as np
from PIL import Image

_WORDS = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}  # whether the text is packed
_HEAD = 8 * (15 + 4)  # bits of the word and of the length
_MOST = 1_000_000  # bytes of text, packed and unpacked


def hidden_text(image: Image.Image) -> str | None:
    """Return the text that a photo's transparency hides; None: there is none.

    Args:
        image: as it was decoded: nothing hides in another mode than RGBA.
    """
    if image.mode != "RGBA":
        return None
    head = _bits(image, _HEAD)
    word = head[:15]
    if word not in _WORDS or len(head) < _HEAD // 8:
        return None
    length = int.from_bytes(head[15:19]) // 8
    if not 0 < length <= _MOST:
        return None
    text = _bits(image, _HEAD + 8 * length)[19 : 19 + length]
    try:
        if _WORDS[word]:
            text = zlib.decompressobj(wbits=31).decompress(text, _MOST)  # 31: gzip
        return text.decode("utf-8") or None
    except (zlib.error, UnicodeDecodeError):
        return None


def _bits(image: Image.Image, count: int) -> bytes:
    """Return the first `count` bits, or as many as there are, as bytes."""
    columns = min(image.width, -(-count // image.height))
    alpha = np.asarray(image.crop((0, 0, columns, image.height)).getchannel("A"))
    return np.packbits(alpha.T.reshape(-1)[:count] & 1).tobytes()
