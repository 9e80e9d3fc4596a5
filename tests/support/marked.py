"""Photos with marks of generators in them, made in code, in every container that may hold them."""

import html
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.photos import encode, photo, with_chunk

CONTAINERS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
SIDE = 64
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_TAGS = {"ImageDescription": 0x010E, "Make": 0x010F, "Model": 0x0110, "Software": 0x0131, "Artist": 0x013B}
_SPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
}


def xmp(element: bool = False, **properties: str) -> bytes:
    """Return an XMP packet; names are written as `photoshop_Credit`, values as attributes or as elements."""
    names = {name.replace("_", ":"): html.escape(value) for name, value in properties.items()}
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _SPACES.items())
    attributes = "" if element else " ".join(f'{name}="{value}"' for name, value in names.items())
    elements = "".join(f"<{name}>{value}</{name}>" for name, value in names.items()) if element else ""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def with_xmp(kind: str, packet: bytes) -> bytes:
    """Return a photo with an XMP packet."""
    if kind == "PNG":
        return png_text("XML:com.adobe.xmp", packet.decode())
    return encode(photo(SIDE, SIDE), kind, xmp=packet)


def with_exif(kind: str, comment: bytes = b"", **fields: str) -> bytes:
    """Return a photo with an EXIF block: fields by name, and `UserComment` as its bytes."""
    exif = Image.Exif()
    for name, value in fields.items():
        exif[_TAGS[name]] = value
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return encode(photo(SIDE, SIDE), kind, exif=exif.tobytes())


def comments(text: str) -> dict[str, bytes]:
    """Return a text as EXIF's UserComment may hold it."""
    return {
        "ascii": b"ASCII\0\0\0" + text.encode(),
        "utf-16-be": b"UNICODE\0" + text.encode("utf-16-be"),
        "utf-16-le": b"UNICODE\0" + text.encode("utf-16-le"),
        "bare": text.encode(),
    }


def png_text(key: str, text: str, form: str = "iTXt") -> bytes:
    """Return a PNG file with a text chunk: `tEXt`, `zTXt`, `iTXt`, or `iTXt packed`."""
    info = PngInfo()
    if form.startswith("iTXt"):
        info.add_itxt(key, text, zip=form.endswith("packed"))
    else:
        info.add_text(key, text, zip=form == "zTXt")
    return encode(photo(SIDE, SIDE), "PNG", pnginfo=info)


def iim(credit: str) -> bytes:
    """Return Photoshop's image resources with IPTC-IIM records: version, caption, credit."""
    records = b"".join(
        b"\x1c\x02" + struct.pack(">BH", number, len(text)) + text
        for number, text in ((0, b"\0\x04"), (120, b"A shoe"), (110, credit.encode()))
    )
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)


def with_iim(kind: str, credit: str) -> bytes:
    """Return a JPEG file with an APP13 segment, or a PNG file with the same as a raw profile."""
    resources = iim(credit)
    if kind == "JPEG":
        content = b"Photoshop 3.0\0" + resources
        jpeg = encode(photo(SIDE, SIDE), "JPEG")
        return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]
    digits = resources.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return png_text("Raw profile type iptc", f"\niptc\n{len(resources):8}\n{lines}\n", "zTXt")


def with_hidden(kind: str, text: str, packed: bool) -> bytes:
    """Return a PNG or lossless WebP file whose transparency hides a text."""
    packer = zlib.compressobj(wbits=31)
    content = packer.compress(text.encode()) + packer.flush() if packed else text.encode()
    word = b"stealth_pngcomp" if packed else b"stealth_pnginfo"
    bits = np.unpackbits(np.frombuffer(word + struct.pack(">I", 8 * len(content)) + content, np.uint8))
    pixels = np.array(photo(SIDE, SIDE).convert("RGBA"))
    alpha = np.full(SIDE * SIDE, 254, np.uint8)
    alpha[: len(bits)] |= bits
    pixels[:, :, 3] = alpha.reshape(SIDE, SIDE).T
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    return encode(Image.fromarray(pixels), kind, **options)


def with_samsung(kind: str, name: str, value: dict[str, Any]) -> bytes:
    """Return a photo with Samsung's trailer behind its end."""
    record = struct.pack("<HHI", 0, 0x0D91, len(name)) + name.encode() + json.dumps(value).encode()
    directory = b"SEFH" + struct.pack("<IIHHII", 107, 1, 0, 0x0D91, len(record), len(record))
    return encode(photo(SIDE, SIDE), kind) + record + directory + struct.pack("<I", len(directory)) + b"SEFT"


def behind_the_end(png: bytes, key: str, text: str) -> bytes:
    """Return a PNG file with a text chunk behind IEND, where no chunk belongs."""
    whole = with_chunk(png, b"tEXt", f"{key}\0{text}".encode())
    return png + whole[33 : 33 + len(whole) - len(png)]


def sample(data: bytes) -> Image.Image:
    """Open a file that a test made."""
    return Image.open(io.BytesIO(data))


def _png_with(key: str) -> bytes:
    """Return a PNG with a text chunk."""
    text = PngInfo()
    text.add_text(key, "a shoe on a table, Steps: 20" if key == "parameters" else "{}")
    return encode(photo(), pnginfo=text)


def _software(name: str) -> bytes:
    """Return a JPEG whose EXIF block names a program."""
    exif = Image.Exif()
    exif[0x0131] = name
    return encode(photo(), "JPEG", exif=exif)


XMP = xmp(element=True, Iptc4xmpExt_DigitalSourceType=f"{IPTC}trainedAlgorithmicMedia")
MARKED = {  # name -> file and the marker that the service names
    "web_ui": (_png_with("parameters"), "png:parameters (Stable Diffusion web UI)"),
    "comfyui": (_png_with("workflow"), "png:workflow (ComfyUI)"),
    "exif": (_software("Midjourney v7"), "exif:midjourney"),
    "xmp": (encode(photo(), "WEBP", xmp=XMP), "iptc:trainedAlgorithmicMedia"),
    "xmp_parts": (
        encode(photo(), "JPEG", xmp=XMP.replace(b"trained", b"compositeWithTrained")),
        "iptc:compositeWithTrainedAlgorithmicMedia",
    ),
}
