"""What becomes of a photo's colours, its orientation and its format, in every container."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from service.photo import ImageError, decode
from service.photo.formats import brands, format_of
from tests.support.photos import GOOD, encode, lossless_jpeg, photo
from tests.support.profiles import cmyk_profile, grey_profile, matrix_profile

LOSSLESS: dict[str, dict[str, Any]] = {  # or nearly so
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": 100, "chroma": 444},
}
SRGB = ImageCms.createProfile("sRGB")


def smooth(width: int = 64, height: int = 64) -> Image.Image:
    """Return colours within every profile, without noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [60 + rows * 120 / height, 60 + columns * 120 / width, 160 - rows * 60 / height]
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def differs(one: Image.Image, other: Image.Image) -> float:
    """Return the largest difference of two photos in levels of 255, but for 1 % of the pixels."""
    return float(np.quantile(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)), 0.99))


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("name", ["adobe_rgb", "display_p3"])
def test_a_photo_with_a_wide_profile_is_its_srgb_twin(kind: str, name: str) -> None:
    profile = matrix_profile(name)
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    wide = ImageCms.profileToProfile(smooth(), SRGB, opened)
    assert wide is not None
    assert differs(wide, smooth()) > 10  # so there is something to convert
    found = decode(encode(wide, kind, icc_profile=profile, **LOSSLESS[kind]))
    assert found.notes == ()
    assert differs(found.image, smooth()) <= 5
    assert differs(decode(encode(smooth(), kind, **LOSSLESS[kind])).image, smooth()) <= 3


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_the_profile_is_applied_before_transparency_is_laid_over_white(mode: str) -> None:
    profile = matrix_profile("display_p3")
    image = Image.new("RGBA", (20, 20), (200, 60, 60, 255))
    image.putpixel((0, 0), (200, 60, 60, 0))
    data = encode(image if mode == "RGBA" else image.quantize(4), icc_profile=profile)
    found = decode(data).image
    red = found.getpixel((5, 5))
    assert isinstance(red, tuple)
    assert red[0] > 205  # P3's red is deeper
    assert found.getpixel((0, 0)) == (255, 255, 255)


def test_grey_and_cmyk_have_profiles_of_their_own() -> None:
    grey = decode(encode(Image.new("L", (20, 20), 100), "JPEG", quality=100, icc_profile=grey_profile(1.0)))
    assert grey.image.getpixel((5, 5)) == pytest.approx((168,) * 3, abs=3)  # linear 100/255 in sRGB
    cyan = Image.new("CMYK", (20, 20), (255, 0, 0, 0))
    plain, with_profile = (
        np.asarray(decode(encode(cyan, "JPEG", **options)).image)[5, 5].astype(int)
        for options in ({}, {"icc_profile": cmyk_profile()})
    )
    assert plain[0] < plain[2] - 100
    assert with_profile[0] > with_profile[2] + 100


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("fault", ["damaged", "short", "of_cmyk"])
def test_a_profile_that_does_not_fit_is_ignored_and_named(kind: str, fault: str) -> None:
    profile = {"damaged": b"no profile" * 20, "short": matrix_profile("display_p3")[:200], "of_cmyk": cmyk_profile()}
    found = decode(encode(smooth(), kind, icc_profile=profile[fault], **LOSSLESS[kind]))
    (note,) = found.notes
    assert note.startswith("the colour profile was ignored: ")
    assert differs(found.image, smooth()) <= 3


def test_an_srgb_profile_changes_no_bit() -> None:
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    assert decode(encode(photo(), icc_profile=profile)).image.tobytes() == photo().tobytes()


def xmp(orientation: int) -> bytes:
    """Return an XMP packet that states an orientation."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


@pytest.mark.parametrize("kind", LOSSLESS)
def test_an_orientation_in_xmp_alone_turns_nothing(kind: str) -> None:
    options: dict[str, Any] = {"xmp": xmp(6)}
    if kind == "PNG":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(6).decode())
    data = encode(smooth(80, 48), kind, **options)
    if kind == "HEIF":  # its writer makes a box of it, which does turn
        data = encode(smooth(80, 48), kind, xmp=xmp(1)).replace(xmp(1), xmp(6))
    assert xmp(6) in data
    assert decode(data).image.size == (80, 48)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_turns_a_photo_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encode(smooth(80, 48), kind, exif=exif, **LOSSLESS[kind])).image
    assert found.size == (48, 80)
    assert differs(found, smooth(80, 48).transpose(Image.Transpose.ROTATE_270)) <= 3


def test_heic_is_turned_by_its_own_box_and_only_once() -> None:
    """As a phone writes it: box and EXIF say the same. EXIF alone turns nothing (ISO/IEC 23008-12)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    alone = encode(smooth(80, 48), "HEIF", exif=exif)
    assert b"irot" not in alone
    assert decode(alone).image.size == (80, 48)
    phone = smooth(80, 48)
    phone.info["exif"] = exif.tobytes()
    data = encode(phone, "HEIF", **LOSSLESS["HEIF"])
    assert b"irot" in data
    assert b"\x01\x12\0\x03\0\0\0\x01\0\x06" in data
    found = decode(data).image
    assert found.size == (48, 80)
    assert differs(found, smooth(80, 48).transpose(Image.Transpose.ROTATE_270)) <= 3


@pytest.mark.parametrize("name", GOOD)
def test_the_content_tells_the_format(name: str) -> None:
    kinds = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "heic": "HEIF"}
    assert decode(GOOD[name]).format == format_of(GOOD[name])
    assert name not in kinds or format_of(GOOD[name]) == kinds[name]


@pytest.mark.parametrize(("major", "compatible", "kind"), [
    (b"mif1", b"heic", "HEIF"), (b"mif1", b"avif", "AVIF"), (b"heix", b"mif1", "HEIF"), (b"mif1", b"jpeg", None),
    (b"isom", b"mp42", None), (b"qt  ", b"", None), (b"crx ", b"isom", None),
])  # fmt: skip
def test_brands_tell_avif_and_heic_apart(major: bytes, compatible: bytes, kind: str | None) -> None:
    box = major + bytes(4) + b"miaf" + compatible
    data = struct.pack(">I4s", 8 + len(box), b"ftyp") + box + bytes(100)
    assert format_of(data) == kind
    assert {major, b"miaf"} <= brands(data)


def test_a_lossless_jpeg_is_a_photo_like_any_other() -> None:
    """It has no quantization table, which once was a 500."""
    found = decode(lossless_jpeg(photo()))
    assert found.image.tobytes() == photo().tobytes()
    assert found.jpeg_quality == 100


def test_a_limit_above_pillows_own_is_kept() -> None:
    """199.8 megapixels were told to be more than 250."""
    header = encode(Image.new("1", (14_130, 14_140)))
    assert decode(header, max_pixels=250_000_000).image.size == (14_130, 14_140)
    with pytest.raises(ImageError, match="more than 199 megapixels"):
        decode(header, max_pixels=199_000_000)


@pytest.mark.parametrize(("name", "words"), [
    ("jpeg_12_bit", "12 bits a sample"), ("jpeg_hierarchical", "SOF5"), ("jpeg_two_components", "2 colour components"),
])  # fmt: skip
def test_a_jpeg_of_a_kind_that_is_not_decoded_is_not_called_corrupt(name: str, words: str) -> None:
    from tests.support.photos import BAD

    with pytest.raises(ImageError, match=words) as caught:
        decode(BAD[name][0])
    assert caught.value.error_type == "unsupported_format"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF"])
def test_a_grey_profile_counts_where_the_container_holds_grey_as_colours(kind: str) -> None:
    grey = Image.new("L", (64, 64), 100)
    options = LOSSLESS[kind] | {"icc_profile": grey_profile(1.0)}
    for image in (grey.convert("RGB"), Image.merge("RGBA", [grey] * 3 + [Image.new("L", grey.size, 255)])):
        found = decode(encode(image, kind, **options))
        assert found.notes == ()
        assert found.image.getpixel((5, 5)) == pytest.approx((168,) * 3, abs=4)


def test_a_large_profile_in_png_is_no_bomb() -> None:
    profile = matrix_profile("display_p3")
    large = len(profile) + 2_000_000
    padded = large.to_bytes(4) + profile[4:] + bytes(2_000_000)
    assert decode(encode(smooth(), icc_profile=padded)).notes == ()


def test_an_avif_of_another_first_brand() -> None:
    data = encode(smooth(), "AVIF")
    assert decode(data[:8] + b"MA1B" + data[12:]).format == "AVIF"
