"""Traces that generators leave in files."""

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from service.provenance import ai_markers
from tests.service.photos import GOOD, encode, photo
from tests.service.signing import STRANGER

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><Iptc4xmpExt:DigitalSourceType>'
    b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    b"</Iptc4xmpExt:DigitalSourceType></x:xmpmeta>"
)


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_photo_says_nothing(name: str) -> None:
    assert ai_markers(GOOD[name]) == []


def test_png_text_of_generators() -> None:
    text = PngInfo()
    text.add_text("parameters", "a shoe, Steps: 20", zip=True)
    text.add_itxt("workflow", "{}")
    text.add_text("Comment", "parameters")
    assert ai_markers(encode(photo(), pnginfo=text)) == [
        "png:parameters (Stable Diffusion web UI)",
        "png:workflow (ComfyUI)",
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_software(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0131] = "Midjourney v7"
    assert ai_markers(encode(photo(), kind, exif=exif)) == ["exif:midjourney"]
    exif[0x0131] = "Camera firmware 1.2"
    assert ai_markers(encode(photo(), kind, exif=exif)) == []


def test_a_png_is_not_decoded_for_its_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImageFile, "load", load)
    assert ai_markers(GOOD["png"]) == []


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_iptc_digital_source_type(kind: str) -> None:
    assert ai_markers(encode(photo(), kind, xmp=XMP)) == ["iptc:trainedAlgorithmicMedia"]


def test_iptc_in_png_and_nowhere_but_in_xmp() -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    assert ai_markers(encode(photo(), pnginfo=text)) == ["iptc:trainedAlgorithmicMedia"]
    said = PngInfo()
    said.add_text("Comment", XMP.decode())
    assert ai_markers(encode(photo(), pnginfo=said)) == []
    assert ai_markers(encode(photo(), "JPEG") + XMP) == []
    signed = STRANGER.sign(encode(photo(), "JPEG"), "JPEG", ["trainedAlgorithmicMedia"])
    assert ai_markers(signed) == []  # it stands in the credential, which is judged as such
