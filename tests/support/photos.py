"""Photos and broken files made in code, so that tests need no data set."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()


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


def lossless_jpeg(image: Image.Image) -> bytes:
    """Return a photo as lossless JPEG (process SOF3; ITU-T T.81, annex H), which has no quantization table.

    Pillow writes none. Each sample is predicted by the one to its left, the first of a row by the one above, and the
    difference is written with a code of its own: 5 bits for its length, then its bits.
    """
    pixels = np.asarray(image).astype(int)
    height, width, _ = pixels.shape
    lengths = bytes([0, 0, 0, 0, 17, *[0] * 11])  # the Huffman table: 17 codes of 5 bits, for lengths 0 to 16
    bits = []
    for y in range(height):
        for x in range(width):
            before = pixels[y, x - 1] if x else pixels[y - 1, 0] if y else np.full(3, 128)
            for difference in map(int, pixels[y, x] - before):
                length = abs(difference).bit_length()
                bits.append(f"{length:05b}")
                value = difference if difference > 0 else difference + (1 << length) - 1
                bits.append(f"{value:0{length}b}" if length else "")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([number, 0x11, 0]) for number in (82, 71, 66))
    head = bytes([3, 82, 0, 71, 0, 66, 0, 1, 0, 0])  # components called R, G, B; predictor 1
    parts = ((0xC3, frame), (0xC4, b"\0" + lengths + bytes(range(17))), (0xDA, head))
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in parts)
    return b"\xff\xd8" + segments + scan + b"\xff\xd9"


def _frame(jpeg: bytes, marker: int, bits: int = 8, components: int = 3) -> bytes:
    """Return a JPEG file whose frame header says that it is of another kind."""
    at = jpeg.index(b"\xff\xc0")
    header = bytes([0xFF, marker, *jpeg[at + 2 : at + 4], bits, *jpeg[at + 5 : at + 9], components])
    return jpeg[:at] + header + jpeg[at + 10 :]


def _size_in_heic(heic: bytes, width: int, height: int) -> bytes:
    """Return a HEIC file whose box `ispe` says that its pictures have another size."""
    at = heic.index(b"ispe") + 8
    return heic[:at] + struct.pack(">II", width, height) + heic[at + 8 :]


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
    "avif": encode(photo(), "AVIF"),
    "heic": encode(photo(64, 64), "HEIF"),
    "lossless_jpeg": lossless_jpeg(photo()),
    "two_pictures": encode(photo(), "MPO", save_all=True, append_images=[photo(seed=1)]),
}

_PNG, _JPEG, _WEBP, _AVIF, _HEIC = (GOOD[kind] for kind in ("png", "jpeg", "webp", "avif", "heic"))
_FRAMES: dict[str, Any] = {"save_all": True, "append_images": [photo(seed=1)]}

BAD = {  # name -> (bytes, status, error)
    "empty": (b"", 422, "empty_file"),
    "text": (b"this is not a photo", 415, "unsupported_format"),
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
    "empty_heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, 422, "corrupt_image"),
    "empty_avif": (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 100, 422, "corrupt_image"),
    "truncated_heic": (_HEIC[: len(_HEIC) // 2], 422, "corrupt_image"),
    "truncated_avif": (_AVIF[: len(_AVIF) // 2], 422, "corrupt_image"),
    "animated_avif": (encode(photo(), "AVIF", **_FRAMES), 415, "animated_image"),
    "heic_sequence": (_HEIC[:8] + b"hevc" + _HEIC[12:], 415, "animated_image"),
    "many_pixels_heic": (_size_in_heic(_HEIC, 6000, 5000), 413, "too_many_pixels"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0" * 100, 415, "unsupported_format"),
    "jpeg_xl": (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl ", 415, "unsupported_format"),
    "jpeg_xl_codestream": (b"\xff\x0a" + b"\0" * 100, 415, "unsupported_format"),
    "jpeg_12_bit": (_frame(_JPEG, 0xC1, bits=12), 415, "unsupported_format"),
    "jpeg_hierarchical": (_frame(_JPEG, 0xC5), 415, "unsupported_format"),
    "jpeg_two_components": (_frame(_JPEG, 0xC0, components=2), 415, "unsupported_format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>', 415, "unsupported_format"),
    "pdf": (encode(photo(), "PDF"), 415, "unsupported_format"),
    "eps": (encode(photo(), "EPS"), 415, "unsupported_format"),
    "tiff": (encode(photo(), "TIFF"), 415, "unsupported_format"),
    "psd": (b"8BPS\0\1" + b"\0" * 100, 415, "unsupported_format"),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, 415, "unsupported_format"),
}
