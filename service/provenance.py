"""What a file says about its own making, unsigned: traces that generators leave on purpose.

They stand beside the pixels' answer and change nothing of it: anyone can remove or add them.
"""

import io
from collections.abc import Iterator

from PIL import Image

_SOFTWARE = 0x0131  # EXIF tag 305
_GENERATORS = (  # as they name themselves in EXIF `Software`; lower case
    "adobe firefly",
    "comfyui",
    "dall-e",
    "dall·e",
    "ideogram",
    "invokeai",
    "leonardo.ai",
    "midjourney",
    "novelai",
    "openai",
    "stable diffusion",
)
_PNG_KEYS = {  # keys of PNG text chunks
    "parameters": "Stable Diffusion web UI",
    "prompt": "ComfyUI",
    "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
}
_SOURCE_TYPES = (  # IPTC's digital source types of generated media (cv.iptc.org/newscodes/digitalsourcetype)
    "compositeWithTrainedAlgorithmicMedia",
    "trainedAlgorithmicMedia",
)
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP = b"XML:com.adobe.xmp"
_XMP_BYTES = 1_000_000  # of an XMP packet that are looked at
_CHUNKS = 10_000  # of a PNG file that are looked at


def ai_markers(data: bytes) -> list[str]:
    """List a file's own statements that it is AI-generated.

    Looked at: keys of PNG text chunks, EXIF `Software`, IPTC `DigitalSourceType` in XMP.

    Args:
        data: a file that `images.decode` accepts.

    Returns:
        Such as `png:parameters (Stable Diffusion web UI)`, `exif:midjourney`, `iptc:trainedAlgorithmicMedia`;
        empty where the file says nothing, which proves nothing.
    """
    exif, xmp, keys = _of_png(data) if data.startswith(b"\x89PNG") else _of_others(data)
    found = [f"png:{key} ({_PNG_KEYS[key]})" for key in keys & set(_PNG_KEYS)]
    software = _software(exif)
    found += [f"exif:{name}" for name in _GENERATORS if name in software]
    found += [f"iptc:{kind}" for kind in _SOURCE_TYPES if f"digitalsourcetype/{kind}".encode() in xmp[:_XMP_BYTES]]
    return sorted(set(found))


def _of_png(data: bytes) -> tuple[bytes, bytes, set[str]]:
    """Return EXIF block, XMP packet and keys of the text chunks; nothing is unpacked.

    By hand: Pillow would decode all pixels to look behind them.
    """
    exif, xmp, keys = b"", b"", set()
    for kind, content in _png_chunks(data):
        if kind == b"eXIf":
            exif = content
        elif kind in _TEXT:
            key, _, text = content.partition(b"\0")
            keys.add(key.decode("latin-1"))
            if key == _PNG_XMP:
                xmp = text
    return exif, xmp, keys


def _of_others(data: bytes) -> tuple[bytes, bytes, set[str]]:
    try:
        info = Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]).info
    except Exception:  # Pillow lets anything out of a broken file
        return b"", b"", set()
    exif, xmp = (content if isinstance(content := info.get(name), bytes) else b"" for name in ("exif", "xmp"))
    return exif, xmp, set()


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a PNG file's chunks: type (4 bytes) and content."""
    offset = 8
    for _ in range(_CHUNKS):  # a chunk: length (4 bytes), type (4), content, CRC (4); PNG specification, 5.3
        length = int.from_bytes(data[offset : offset + 4])
        yield data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        offset += 12 + length
        if offset >= len(data):
            break


def _software(block: bytes) -> str:
    """Return the program that an EXIF block names, in lower case."""
    exif = Image.Exif()
    try:
        exif.load(block)
        return str(exif.get(_SOFTWARE, "")).lower()
    except Exception:  # a broken block says nothing
        return ""
