"""What stands where in a file: one mapping from places, such as `exif:Software`, to the texts that stand there."""

from collections.abc import Iterator, Mapping
from typing import Any

from service.photo import xmp
from service.photo.metadata import Metadata

Fields = Mapping[str, list[str]]  # place, such as `exif:Software` -> what stands there

_EXIF = {  # tag -> name: of EXIF 3.0, TIFF 6.0
    0x010D: "DocumentName",
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9286: "UserComment",
}
_EXIF_IFD = 0x8769
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = {  # namespace and name -> as people write it
    (_IPTC_EXT, "DigitalSourceType"): "Iptc4xmpExt:DigitalSourceType",
    (_IPTC_EXT, "DigitalSourceFileType"): "Iptc4xmpExt:DigitalSourceFileType",  # sic: Google writes it
    (_IPTC_EXT, "DigImageGUID"): "Iptc4xmpExt:DigImageGUID",
    (_IPTC_EXT, "AISystemUsed"): "Iptc4xmpExt:AISystemUsed",
    (_IPTC_EXT, "AISystemVersionUsed"): "Iptc4xmpExt:AISystemVersionUsed",
    (_IPTC_EXT, "AIPromptInformation"): "Iptc4xmpExt:AIPromptInformation",
    (_IPTC_EXT, "AIPromptWriterName"): "Iptc4xmpExt:AIPromptWriterName",
    ("http://ns.adobe.com/photoshop/1.0/", "Credit"): "photoshop:Credit",
    ("http://ns.adobe.com/xap/1.0/", "CreatorTool"): "xmp:CreatorTool",
    ("http://www.tc260.org.cn/ns/AIGC/1.0/", "AIGC"): "TC260:AIGC",
}


def fields_of(metadata: Metadata) -> Fields:
    """Return a file's texts by place: `png:` and a text's key, `exif:`, `xmp:`, `xmp:part:`, `iim:`, and so on.

    Of EXIF and XMP those fields that a mark may stand in; empty where the file has none of all these.
    """
    found: dict[str, list[str]] = {}

    def add(place: str, text: str) -> None:
        if text:
            found.setdefault(place, []).append(text)

    for key, text in metadata.texts:
        add(f"png:{key}", text)
    for name, text in _exif_texts(metadata):
        add(f"exif:{name}", text)
    for place, text in _xmp_texts(metadata.xmp):
        add(place, text)
    for text in _iim_credits(metadata.iim):
        add("iim:2:110", text)
    for name, text in metadata.samsung:
        add(f"samsung:{name}", text)
    add("pixels:stealth_pnginfo", metadata.hidden or "")
    return found


def _xmp_texts(packet: bytes) -> Iterator[tuple[str, str]]:
    found = xmp.properties(packet) if packet else xmp.Properties()
    for prefix, properties in (("xmp:", found.own), ("xmp:part:", found.of_parts)):
        for name, place in _XMP.items():
            yield from ((f"{prefix}{place}", text) for text in properties.get(name, ()))


def _exif_texts(metadata: Metadata) -> Iterator[tuple[str, str]]:
    if not metadata.exif:
        return
    for block in (0, _EXIF_IFD):
        try:
            values = metadata.exif.get_ifd(block) if block else metadata.exif
            for tag, name in _EXIF.items():
                if tag in values and (text := _exif_text(values[tag])):
                    yield name, text
        except Exception:  # a damaged block says nothing from there on
            return


def _exif_text(value: Any) -> str:
    """Return a field's text; `UserComment` begins with 8 bytes that name its character set (EXIF 3.0, 4.6.6)."""
    if isinstance(value, str):
        return value.strip("\0 \ufeff")
    if not isinstance(value, bytes):
        return ""
    code, text = value[:8].rstrip(b"\0 ").upper(), value[8:]
    if code not in {b"ASCII", b"JIS", b"UNICODE", b""}:
        code, text = b"", value
    if code == b"UNICODE" and b"\0" in text[:200]:
        # UTF-16 of either order, whatever the EXIF block's own is: Latin text tells by its zero bytes.
        order = "be" if text[::2].count(0) > text[1::2].count(0) else "le"
        return text.decode(f"utf-16-{order}", "replace").strip("\0 \ufeff")
    return text.decode("utf-8", "replace").strip("\0 \ufeff")


def _iim_credits(records: bytes) -> Iterator[str]:
    """Yield the texts of IPTC-IIM data set 2:110, Credit; IIM 4.2, 1.5: 0x1C, record, data set, length, text."""
    at = 0
    while at + 5 <= len(records) and records[at] == 0x1C:
        kind, length, start = (records[at + 1], records[at + 2]), int.from_bytes(records[at + 3 : at + 5]), at + 5
        if length & 0x8000:  # an extended data set: this many bytes hold its length
            start += length & 0x7FFF
            length = int.from_bytes(records[at + 5 : start]) if length & 0x7FFF <= 4 else len(records)
        if kind == (2, 110):
            yield records[start : start + length].decode("utf-8", "replace")
        at = start + length
