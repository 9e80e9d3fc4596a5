"""What a file says about its own making: traces that generators leave on purpose.

They stand beside the pixels' probability and never change it: anyone can remove or add them.
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
    keys = {content.partition(b"\0")[0].decode("latin-1") for kind, content in _png_chunks(data) if kind in _TEXT}
    found = [f"png:{key} ({_PNG_KEYS[key]})" for key in keys & set(_PNG_KEYS)]
    software = _software(data).lower()
    found += [f"exif:{name}" for name in _GENERATORS if name in software]
    found += [f"iptc:{kind}" for kind in _SOURCE_TYPES if f"digitalsourcetype/{kind}".encode() in data]
    return sorted(set(found))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a PNG file's chunks: type (4 bytes) and content."""
    if not data.startswith(b"\x89PNG"):
        return
    offset = 8
    for _ in range(_CHUNKS):  # a chunk: length (4 bytes), type (4), content, CRC (4); PNG specification, 5.3
        length = int.from_bytes(data[offset : offset + 4])
        yield data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        offset += 12 + length
        if offset >= len(data):
            break


def _software(data: bytes) -> str:
    exif = Image.Exif()
    try:
        if data.startswith(b"\x89PNG"):  # by hand: Pillow would decode all pixels to look behind them
            for kind, content in _png_chunks(data):
                if kind == b"eXIf":
                    exif.load(content)
        else:
            exif = Image.open(io.BytesIO(data)).getexif()
        return str(exif.get(_SOFTWARE, ""))
    except Exception:  # a broken EXIF block says nothing
        return ""
