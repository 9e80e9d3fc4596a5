"""Which image format some bytes are, by their content alone, and which variants of it cannot be decoded."""

from collections.abc import Iterator
from typing import Literal

Format = Literal["JPEG", "PNG", "WEBP", "AVIF", "HEIF"]

SUFFIXES = frozenset(
    {".avif", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp"}
)  # that photos' files have
NAMES = "JPEG, PNG, WebP, AVIF, HEIC"
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis"})  # ISO/IEC 23008-12, annex B: still pictures in HEVC
SEQUENCE_BRANDS = frozenset({b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"avis"})  # sequences of pictures
_MOST_BRANDS = 32  # that are looked at
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length: TEM, RST0 to RST7
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # DHT, JPG, DAC: markers between the frame headers SOF0 to SOF15 that are none
_PROCESSES = {5, 6, 7, 11, 13, 14, 15}  # of SOFn: hierarchical, and lossless with arithmetic coding


def format_of(data: bytes) -> Format | None:
    """Return the format that the content has; None: none of those that are accepted."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    found = brands(data)
    if found & {b"avif", b"avis"}:
        return "AVIF"
    if found & (_HEIF_BRANDS | SEQUENCE_BRANDS):
        return "HEIF"
    return None


def brands(data: bytes) -> frozenset[bytes]:
    """Return the brands of a file in ISO boxes, such as `avif`; none if it is another kind of file.

    Source: ISO/IEC 14496-12, 4.3: a box `ftyp` comes first, with a major brand, a version and compatible brands.
    """
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4]), 16 + 4 * _MOST_BRANDS)
    return frozenset({data[8:12], *(data[at : at + 4] for at in range(16, end, 4))})


def unsupported_jpeg(data: bytes) -> str | None:
    """Say why no decoder here knows a JPEG file of this kind; None: the kind is known, so the file is damaged.

    Source: ITU-T T.81, B.2.2 and table B.1.
    """
    for marker, content in _jpeg_segments(data):
        if marker == 0xF7:
            return "it is JPEG-LS; send a JPEG of the usual kind"
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(content) >= 6:
            return _unsupported_frame(marker - 0xC0, content)
    return None


def _unsupported_frame(process: int, content: memoryview) -> str | None:
    bits, height, components = content[0], int.from_bytes(content[1:3]), content[5]
    if bits != 8:
        return f"it has {bits} bits a sample; send 8"
    if process in _PROCESSES:
        return f"its coding process (SOF{process}) is not supported; send a baseline or progressive JPEG"
    if components not in {1, 3, 4}:
        return f"it has {components} colour components; send 1, 3 or 4"
    return None if height else "it gives its height at its end only; send a JPEG with the height in its header"


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield marker and content of a JPEG file's segments, up to the first scan."""
    view, at = memoryview(data), 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:  # a fill byte; a marker alone
            at += 1 if marker == 0xFF else 2
            continue
        if marker in {0xD9, 0xDA}:
            return
        length = int.from_bytes(data[at + 2 : at + 4])
        yield marker, view[at + 4 : at + 2 + length]
        at += 2 + length
