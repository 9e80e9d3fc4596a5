"""Photos and broken files made in code, so that tests need no data set."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    """Return a smooth coloured picture with some noise, mode RGB, unlike itself in every direction."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 200 / height, columns * 200 / width, (rows + columns) * 100 / (height + width)]
    noise = rng.normal(30, 8, (height, width, 3))
    return Image.fromarray((np.stack(planes, axis=2) + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Return a PNG file with another chunk after its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def broken_crc(png: bytes) -> bytes:
    """Return a PNG file with one flipped bit in its pixels."""
    place = png.index(b"IDAT") + 10
    return png[:place] + bytes([png[place] ^ 1]) + png[place + 1 :]


def bomb() -> bytes:
    """Return a small PNG file of 900 megapixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    packed = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


GOOD = {  # name -> bytes: 200, whatever the file is called
    "jpeg": encode(photo(), "JPEG"),
    "png": encode(photo()),
    "webp": encode(photo(), "WEBP"),
    "large": encode(photo(640, 480), "JPEG"),
    "cmyk": encode(photo().convert("CMYK"), "JPEG"),
    "grey": encode(photo().convert("L")),
    "palette": encode(photo().convert("P")),
    "one_bit": encode(photo().convert("1")),
    "sixteen_bit": encode(Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64)),
    "alpha": encode(photo().convert("RGBA")),
    "grey_alpha": encode(photo().convert("LA")),
    "broken_exif": encode(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "two_pictures": encode(photo(), "MPO", save_all=True, append_images=[photo(seed=1)]),
}

_PNG, _JPEG, _WEBP = GOOD["png"], GOOD["jpeg"], GOOD["webp"]
_FRAMES: dict[str, Any] = {"save_all": True, "append_images": [photo(seed=1)]}

BAD = {  # name -> (bytes, status, error)
    "empty": (b"", 422, "empty_file"),
    "text": (b"this is no photo", 415, "unsupported_format"),
    "truncated_jpeg": (_JPEG[: len(_JPEG) // 2], 422, "corrupt_image"),
    "truncated_png": (_PNG[: len(_PNG) // 2], 422, "corrupt_image"),
    "truncated_webp": (_WEBP[: len(_WEBP) // 2], 422, "corrupt_image"),
    "png_crc": (broken_crc(_PNG), 422, "corrupt_image"),
    "png_header_only": (_PNG[:8], 422, "corrupt_image"),
    "jpeg_header_only": (_JPEG[:20], 422, "corrupt_image"),
    "webp_header_only": (_WEBP[:12], 422, "corrupt_image"),
    "many_pixels": (encode(Image.new("1", (5001, 5000))), 413, "too_many_pixels"),
    "bomb": (bomb(), 413, "too_many_pixels"),
    "text_bomb": (
        with_chunk(_PNG, b"zTXt", b"key\0\0" + zlib.compress(b"0" * 100_000_000)),
        413,
        "decompression_bomb",
    ),
    "one_pixel": (encode(Image.new("RGB", (1, 1))), 422, "image_too_small"),
    "narrow": (encode(Image.new("RGB", (15, 400))), 422, "image_too_small"),
    "gif": (encode(photo(), "GIF"), 415, "unsupported_format"),
    "animated_gif": (encode(photo(), "GIF", **_FRAMES), 415, "unsupported_format"),
    "animated_png": (encode(photo(), **_FRAMES), 415, "animated_image"),
    "animated_webp": (encode(photo(), "WEBP", **_FRAMES), 415, "animated_image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, 415, "unsupported_format"),
    "avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 100, 415, "unsupported_format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>', 415, "unsupported_format"),
    "pdf": (encode(photo(), "PDF"), 415, "unsupported_format"),
    "eps": (encode(photo(), "EPS"), 415, "unsupported_format"),
    "tiff": (encode(photo(), "TIFF"), 415, "unsupported_format"),
    "psd": (b"8BPS\0\1" + b"\0" * 100, 415, "unsupported_format"),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, 415, "unsupported_format"),
}
