"""What a file holds beside its pixels, taken from where its format keeps it and nowhere else, and bounded."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image

from service.photo.errors import ImageError

_MOST = 1_000_000  # bytes that one text or packet unpacks to
_TEXTS = 1_000  # of a PNG file that are read
_ALL_TEXTS = 4_000_000  # bytes that they unpack to together
_PNG_XMP = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "  # ImageMagick and libvips: metadata of JPEG as hexadecimal text in PNG
_XAP = b"http://ns.adobe.com/xap/1.0/\0"  # begins a JPEG file's segment with XMP
SAMSUNG = ("PhotoEditor_Re_Edit_Data", "PEg_Info")  # the records that are read
_NAME = 100  # bytes of a record's name
_IIM_RESOURCE = 0x0404  # Photoshop's image resource that holds IPTC-IIM


@dataclass(frozen=True)
class Metadata:
    """What a file holds beside its pixels.

    Attributes:
        exif: its EXIF block; empty where there is none or it is damaged.
        xmp: its XMP packet, unpacked.
        iim: its IPTC-IIM records.
        texts: key and text of a PNG file's text chunks, in order.
        hidden: what the transparency hides (`hidden_text`).
        samsung: name and text of the records in Samsung's trailer, behind a file's end.
    """

    exif: Image.Exif = field(default_factory=Image.Exif)
    xmp: bytes = b""
    iim: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()
    hidden: str | None = None
    samsung: tuple[tuple[str, str], ...] = ()


def of_png(data: bytes, hidden: str | None) -> Metadata:
    """Read a PNG file's chunks, up to its end; behind it, only Samsung's trailer is looked for.

    Every chunk's CRC is compared: Pillow would pass over those of the pixels.

    Raises:
        ImageError: a chunk is damaged or missing.
    """
    exif, xmp, iim = b"", b"", b""
    texts: list[tuple[str, str]] = []
    left = _ALL_TEXTS
    for kind, content in _png_chunks(data):
        if kind == b"eXIf":
            exif = content
        elif kind in {b"tEXt", b"zTXt", b"iTXt"} and len(texts) < _TEXTS and left > 0:
            key, text = _png_text(kind, content)
            left -= len(text)
            if key == _PNG_XMP:
                xmp = text
            elif key.startswith(_RAW_PROFILE):
                profile = _raw_profile(text)
                match key.removeprefix(_RAW_PROFILE):
                    case "xmp":
                        xmp = xmp or profile
                    case "exif" | "APP1" | "app1" if profile.startswith(_XAP):
                        xmp = xmp or profile.removeprefix(_XAP)
                    case "exif" | "APP1" | "app1":
                        exif = exif or profile
                    case "iptc" | "8bim":
                        iim = iim or _iim_of_resources(profile)
            else:
                texts.append((key, text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")))
    return Metadata(parsed_exif(exif), xmp, iim, tuple(texts), hidden, _samsung_trailer(data))


def of_others(data: bytes, image: Image.Image, hidden: str | None) -> Metadata:
    """Read what Pillow found in a JPEG, WebP, AVIF or HEIF file when it opened it."""
    exif, xmp = (content if isinstance(content := image.info.get(name), bytes) else b"" for name in ("exif", "xmp"))
    resources = image.info.get("photoshop")
    iim = resources.get(_IIM_RESOURCE, b"") if isinstance(resources, dict) else b""
    return Metadata(
        parsed_exif(exif), xmp[:_MOST], iim if isinstance(iim, bytes) else b"", (), hidden, _samsung_trailer(data)
    )


def parsed_exif(block: bytes) -> Image.Exif:
    """Return an EXIF block's fields; none where it is damaged."""
    exif = Image.Exif()
    if not block:
        return exif
    try:
        exif.load(block)
    except Exception:  # Pillow lets anything out of a damaged block, which then says nothing
        return Image.Exif()
    return exif


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type (4 bytes) and content of the chunks before IEND, but for the pixels."""
    view, at = memoryview(data), 8
    while True:  # a chunk: length (4 bytes), type (4), content, CRC (4); PNG specification, 5.3
        if at + 12 > len(data):
            raise ImageError("corrupt_image", 422, "the PNG file is truncated or corrupt")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        crc = data[end : end + 4]
        if len(crc) < 4 or zlib.crc32(view[at + 4 : end]) != int.from_bytes(crc):
            raise ImageError("corrupt_image", 422, "the PNG file is truncated or corrupt")
        if kind == b"IEND":
            return
        if kind not in {b"IDAT", b"fdAT"}:
            yield kind, data[at + 8 : end]
        at = end + 4


def _png_text(kind: bytes, content: bytes) -> tuple[str, bytes]:
    """Return key and text of a text chunk, unpacked as far as `_MOST`; PNG specification, 11.3.3."""
    key, _, text = content.partition(b"\0")
    packed, method = kind == b"zTXt", text[:1]
    if kind == b"zTXt":
        text = text[1:]
    elif kind == b"iTXt":
        packed, method = text[:1] == b"\1", text[1:2]
        _, _, rest = text[2:].partition(b"\0")  # language
        _, _, text = rest.partition(b"\0")  # the key, translated
    if packed and (method != b"\0" or not key):  # no other method is known, and no chunk is without a key
        return "", b""
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, _MOST)
        except zlib.error:
            text = b""
    return key.decode("latin-1"), text[:_MOST]


def _raw_profile(text: bytes) -> bytes:
    """Return the bytes that a raw profile writes as hexadecimal digits, below its name and its length."""
    digits = b"".join(text.strip().split(b"\n")[2:]).replace(b" ", b"")
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _iim_of_resources(content: bytes) -> bytes:
    """Return the IPTC-IIM records of Photoshop's image resources; the content itself where it is none of them."""
    at = 0
    while content[at : at + 4] == b"8BIM":  # type, id (2 bytes), padded Pascal string, length (4), padded content
        number = int.from_bytes(content[at + 4 : at + 6])
        name = content[at + 6] if at + 6 < len(content) else 0
        start = at + 6 + (1 + name + 1) // 2 * 2
        length = int.from_bytes(content[start : start + 4])
        if number == _IIM_RESOURCE:
            return content[start + 4 : start + 4 + length]
        at = start + 4 + length + length % 2
    return b"" if at else content


def _samsung_trailer(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return name and text of the records in Samsung's trailer behind a file's end.

    From its end: `SEFT`, the directory's length, the directory `SEFH`: version, count, and of each record a type, its
    distance before the directory, and its length. As ExifTool documents it (Samsung Trailer Tags).
    """
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if not data.endswith(b"SEFT") or start < 0 or data[start : start + 4] != b"SEFH":
        return ()
    count = min(int.from_bytes(data[start + 8 : start + 12], "little"), (len(data) - 20 - start) // 12, _TEXTS)
    records: dict[str, str] = {}
    for at in range(start + 12, start + 12 + 12 * count, 12):
        _, _, back, size = struct.unpack_from("<HHII", data, at)
        if not 8 <= back <= start:
            continue
        length = int.from_bytes(data[start - back + 4 : start - back + 8], "little")
        name = data[start - back + 8 : start - back + 8 + min(length, _NAME)].decode("latin-1")
        if name in SAMSUNG and name not in records:
            record = data[start - back + 8 + length : start - back + min(size, _MOST)]
            records[name] = record.decode("utf-8", "replace")
    return tuple(records.items())
