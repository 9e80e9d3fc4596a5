"""Untrusted bytes become an RGB photo or a named error."""

import numpy as np
import pytest
from PIL import Image

from service.models import images
from service.photo import ImageError, decode
from tests.support.photos import BAD, GOOD, encode, photo


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_photo_becomes_rgb(name: str) -> None:
    decoded = decode(GOOD[name]).image
    assert decoded.mode == "RGB"
    assert decoded.size in {(32, 32), (64, 64), (640, 480)}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_file_is_a_named_error(name: str) -> None:
    data, status, error = BAD[name]
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert (caught.value.status, caught.value.error_type) == (status, error)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_anywhere_raises_nothing_else(kind: str) -> None:
    data = encode(photo(), kind)
    for end in range(0, len(data) - 4, 7):  # without a CRC of IEND or an end marker the pixels are still whole
        with pytest.raises(ImageError):
            decode(data[:end])


def test_flipped_bytes_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for name, data in GOOD.items():
        for _ in range(60):
            mutated = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                mutated[place] = rng.integers(0, 256)
            try:
                decoded = decode(bytes(mutated)).image
            except ImageError:
                continue
            assert decoded.mode == "RGB", name


def test_the_pixel_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="megapixels"):
        decode(BAD["many_pixels"][0])


def test_transparency_is_laid_over_white() -> None:
    transparent = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    transparent.putpixel((3, 4), (10, 20, 30, 255))
    decoded = decode(encode(transparent)).image
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((3, 4)) == (10, 20, 30)


def test_sixteen_bits_keep_their_high_byte() -> None:
    grey = np.full((20, 20), 0x8040, dtype=np.uint16)
    assert decode(encode(Image.fromarray(grey))).image.getpixel((0, 0)) == (0x80,) * 3


@pytest.mark.parametrize(
    ("orientation", "turned"),  # how a camera stores an upright photo with that EXIF orientation
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_exif_orientation_is_undone(orientation: int, turned: Image.Transpose) -> None:
    upright = photo(40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(upright.transpose(turned), exif=exif)).image
    assert decoded.tobytes() == upright.tobytes()


def test_resize_squashes_the_whole_photo_and_leaves_a_fitting_one() -> None:
    assert images.resize(photo(100, 50), 32, 48).shape == (32, 48, 3)
    assert np.array_equal(images.resize(photo(), 32, 32), np.asarray(photo()))


def test_statistics_of_known_pixels() -> None:
    flat = np.full((2, 8, 8, 3), 51, dtype=np.uint8)
    flat[1, :, ::2] = 255
    flat[1, :, 1::2] = 0
    found = images.statistics(flat)
    assert found["brightness"] == pytest.approx([0.2, 0.5], abs=1e-6)
    assert found["contrast"] == pytest.approx([0, 0.5], abs=1e-6)
    assert found["sharpness"] == pytest.approx([0, 2], abs=1e-5)  # the Laplacian of stripes is +2 and -2
    assert {name: values.dtype for name, values in found.items()} == dict.fromkeys(found, np.float32)
    assert images.statistics(flat[:0])["contrast"].shape == (0,)
    many = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    assert images.statistics(many)["sharpness"][299] == images.statistics(many[299:])["sharpness"][0]


@pytest.mark.parametrize("quality", [1, 5, 10, 20, 35, 40, 50, 60, 75, 80, 90, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int, mode: str) -> None:
    found = decode(encode(photo().convert(mode), "JPEG", quality=quality)).jpeg_quality
    assert abs(found - quality) <= (1 if quality >= 20 else 8)  # hard compression cuts the tables off at 255


@pytest.mark.parametrize("name", GOOD)
def test_every_photo_has_a_quality_and_only_a_jpeg_another_than_none(name: str) -> None:
    assert (decode(GOOD[name]).jpeg_quality > 0) == GOOD[name].startswith(b"\xff\xd8")
