"""What a file says about its own making: traces that generators leave on purpose.

They stand beside the pixels' probability and never change it: anyone can remove or add them.
"""

import io

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
    found = [f"png:{key} ({_PNG_KEYS[key]})" for key in _png_keys(data) if key in _PNG_KEYS]
    software = _software(data).lower()
    found += [f"exif:{name}" for name in _GENERATORS if name in software]
    found += [f"iptc:{kind}" for kind in _SOURCE_TYPES if f"digitalsourcetype/{kind}".encode() in data]
    return sorted(set(found))


def _png_keys(data: bytes) -> list[str]:
    keys: list[str] = []
    if not data.startswith(b"\x89PNG"):
        return keys
    offset = 8
    for _ in range(_CHUNKS):  # a chunk: length (4 bytes), type (4), content, CRC (4); PNG specification, 5.3
        length = int.from_bytes(data[offset : offset + 4])
        if data[offset + 4 : offset + 8] in (b"tEXt", b"zTXt", b"iTXt"):
            content = data[offset + 8 : offset + 8 + min(length, 80)]  # a key has at most 79 bytes and a NUL
            keys.append(content.partition(b"\0")[0].decode("latin-1"))
        offset += 12 + length
        if offset >= len(data):
            break
    return keys


def _software(data: bytes) -> str:
    try:
        return str(Image.open(io.BytesIO(data)).getexif().get(_SOFTWARE, ""))
    except Exception:  # a broken EXIF block says nothing
        return ""
