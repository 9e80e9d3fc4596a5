"""Damaged files, thousands of them: each becomes an RGB photo or a named error, within bounded memory.

FUZZ_CASES=100000 pytest tests/service/test_fuzz.py tries as many new ones; without it they are the same every time.
"""

import os
import struct
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from service.photo import MAX_PIXELS, MIN_SIDE, ImageError, decode, marks
from tests.support import marked
from tests.support.photos import BAD, GOOD, chunk, encode, photo
from tests.support.profiles import cmyk_profile, grey_profile, matrix_profile

CASES = int(os.environ.get("FUZZ_CASES", "5000"))
MEMORY = 640 * 2**20  # bytes; a photo of MAX_PIXELS with transparency takes six copies of 4 bytes a pixel
Mutation = Callable[[bytes, int, int], bytes]


def camera(name: str) -> Image.Image:
    """Return a photo from a camera, small: scikit-learn brings two."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    image = Image.open(Path(spec.origin).parent / "datasets" / "images" / name)
    return image.resize((160, 107))


def interlaced(image: Image.Image) -> bytes:
    """Return a PNG file in Adam7 order, which Pillow reads and does not write."""
    pixels = np.asarray(image)
    rows = b""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, right in passes:
        for row in pixels[top::down, left::right]:
            rows += b"\0" + row.tobytes()
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files() -> list[bytes]:
    """Return whole files of many kinds."""
    packet = marked.xmp(element=True, Iptc4xmpExt_DigitalSourceType="trainedAlgorithmicMedia")
    wide = matrix_profile("display_p3")
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "Midjourney"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngInfo()
    text.add_text("parameters", "a shoe, Steps: 20", zip=True)
    text.add_itxt("workflow", "{}", zip=True)
    text.add_text("Comment", "none")
    china, flower = camera("china.jpg"), camera("flower.jpg")
    clear = photo().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    palette = photo().convert("P")
    return [
        *(data for name, data in GOOD.items() if name != "large"),
        encode(china, "JPEG", quality=90),
        encode(china, "JPEG", progressive=True, quality=75),
        encode(flower, "JPEG", exif=exif, icc_profile=profile, xmp=packet, comment=b"from a camera"),
        encode(flower, "JPEG", restart_marker_rows=1, subsampling=0),
        encode(flower, "WEBP", quality=80, exif=exif, icc_profile=profile, xmp=packet),
        encode(photo(), "JPEG", progressive=True, restart_marker_rows=1, exif=exif),
        encode(photo(40, 20).convert("CMYK"), "JPEG", progressive=True, icc_profile=profile),
        interlaced(photo(40, 30)),
        encode(photo(), pnginfo=text, exif=exif, icc_profile=profile, dpi=(72, 72)),
        encode(photo(), compress_level=0),  # so that damage reaches the rows' filters
        encode(palette, transparency=bytes(range(256))),
        encode(palette.convert("1"), transparency=0),
        encode(photo(), transparency=(10, 20, 30)),
        encode(clear),
        encode(clear, "WEBP", lossless=True),
        encode(clear, "WEBP", quality=50),
        encode(photo(), "WEBP", lossless=True, exif=exif),
        encode(flower, "AVIF", exif=exif, icc_profile=wide, xmp=packet),
        encode(flower, "HEIF", exif=exif, icc_profile=wide, xmp=packet),
        encode(flower, "HEIF", quality=-1, chroma=444),
        encode(clear, "AVIF", icc_profile=wide),
        encode(clear, "HEIF"),
        encode(clear, icc_profile=wide),
        encode(photo().convert("L"), "JPEG", icc_profile=grey_profile(2.2)),
        encode(photo(40, 20).convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        marked.with_iim("JPEG", "Made with Google AI"),
        marked.with_iim("PNG", "Made with Google AI"),
        marked.with_hidden("PNG", "a shoe, Steps: 20, Sampler: Euler", packed=True),
        marked.with_samsung("JPEG", "PhotoEditor_Re_Edit_Data", {"genAIType": 1}),
        BAD["animated_png"][0],
        BAD["animated_webp"][0],
        BAD["many_pixels"][0],
    ]


FILES = files()
NUMBERS = [0, 1, 2, 15, 16, 127, 128, 255, 256, 5000, 0x7FFF, 0x8000, 0xFFFF, 25_000_000, 2**31 - 1, 2**31, 2**32 - 1]
VALUES = [
    number.to_bytes(size, order)
    for number in NUMBERS
    for size in (1, 2, 4)
    for order in ("big", "little")
    if number < 256**size
]


def parts(data: bytes) -> list[tuple[int, int, int, int]]:
    """Return start, end, and the place and size of the length field, of each chunk or segment."""
    found = []
    start = {b"\x89P": 8, b"\xff\xd8": 2, b"RI": 12}.get(data[:2], len(data))
    while start + 12 <= len(data):
        if data[:1] == b"\x89":
            place, size = start, 4
            end = start + 12 + int.from_bytes(data[place : place + 4])
        elif data[:1] == b"R":
            place, size = start + 4, 4
            length = int.from_bytes(data[place : place + 4], "little")
            end = start + 8 + length + length % 2
        else:
            place, size = start + 2, 2
            last = data[start : start + 2] == b"\xff\xda"  # then come the pixels
            end = len(data) if last else start + 2 + int.from_bytes(data[place : place + 2])
        found.append((start, min(end, len(data)), place, size))
        start = end
    return found or [(0, len(data), 0, min(4, len(data)))]


def flip(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ 1 << value % 8]) + data[place + 1 :]


def overwrite(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    new = VALUES[value % len(VALUES)]
    return data[:place] + new + data[place + len(new) :]


def truncate(data: bytes, place: int, value: int) -> bytes:
    return data[: place % len(data)]


def add(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    return data[:place] + value.to_bytes(4) * (value % 9) + data[place:]


def delete(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    return data[:place] + data[place + value % 99 :]


def repeat(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    return data[: place + value % 999] + data[place:]


def splice(data: bytes, place: int, value: int) -> bytes:
    other = FILES[value % len(FILES)]
    return data[: place % len(data)] + other[place % len(other) :]


def repeat_part(data: bytes, place: int, value: int) -> bytes:
    found = parts(data)
    start, end, *_ = found[place % len(found)]
    there, *_ = found[value % len(found)]
    return data[:there] + data[start:end] + data[there:]


def delete_part(data: bytes, place: int, value: int) -> bytes:
    found = parts(data)
    start, end, *_ = found[place % len(found)]
    return data[:start] + data[end:]


def take_part(data: bytes, place: int, value: int) -> bytes:
    other = FILES[value % len(FILES)]
    theirs, ours = parts(other), parts(data)
    start, end, *_ = theirs[place % len(theirs)]
    there, *_ = ours[place % len(ours)]
    return data[:there] + other[start:end] + data[there:]


def edit_in_part(data: bytes, place: int, value: int) -> bytes:
    """Overwrite near a part's start, where its sizes and flags are."""
    found = parts(data)
    start, end, *_ = found[place % len(found)]
    return overwrite(data, min(start + value // len(VALUES) % 32, end - 1), value) if end > start else data


def edit_length(data: bytes, place: int, value: int) -> bytes:
    found = parts(data)
    _, _, there, size = found[place % len(found)]
    new = VALUES[value % len(VALUES)]
    return data[:there] + new[:size].rjust(size, b"\0") + data[there + size :]


MUTATIONS: list[Mutation] = [
    *(flip, overwrite, truncate, add, delete, repeat, splice),
    *(repeat_part, delete_part, take_part, edit_in_part, edit_in_part, edit_length),
]


def repair(data: bytes) -> bytes:
    """Make checksums and the whole file's length right again, so that the damage gets past them."""
    if data.startswith(b"RIFF"):
        return data[:4] + struct.pack("<I", max(0, len(data) - 8) & 0xFFFFFFFF) + data[8:]
    if data.startswith(b"\x89PNG"):
        for start, end, _, _ in parts(data):
            if end - start >= 12:
                data = data[: end - 4] + struct.pack(">I", zlib.crc32(data[start + 4 : end - 4])) + data[end:]
    return data


NUMBER = st.integers(0, 2**32 - 1)
STEPS = st.lists(st.tuples(st.sampled_from(MUTATIONS), NUMBER, NUMBER), min_size=1, max_size=3)


def damage(data: bytes, steps: list[tuple[Mutation, int, int]], repaired: bool) -> bytes:
    """Return the file after these steps."""
    for mutate, place, value in steps:
        data = mutate(data, place, value) if data else data
    return repair(data) if repaired else data


def outcome(data: bytes) -> str:
    """Do with a file what the service does; return the error's name, or `photo`."""
    image: Image.Image | ImageError
    try:
        photo = decode(data)
        image = photo.image
    except ImageError as error:
        image = error
    if isinstance(image, ImageError):
        assert image.status in {413, 415, 422}
        assert image.message
        assert not isinstance(image.__cause__, MemoryError)
        return image.error_type
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert min(image.size) >= MIN_SIDE
    assert image.width * image.height <= MAX_PIXELS
    assert len(image.tobytes()) == image.width * image.height * 3
    found, markers = marks.read(photo.metadata)
    assert all(marker.startswith(("png:", "exif:", "iptc:")) for marker in markers)
    assert all(len(mark.generator or "") <= 200 for mark in found)
    return "photo"


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail where this process takes MEMORY more than it has now; proc(5) on `clear_refs` and VmHWM."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = peak()
    yield
    grown = peak() - before
    assert grown < MEMORY, f"{grown >> 20} MiB"


def peak() -> int:
    """Return the most memory, in bytes, that this process had in use."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the broken EXIF block
def test_whole_files_are_photos() -> None:
    found = Counter(outcome(data) for data in FILES)
    assert found == {"photo": len(FILES) - 3, "animated_image": 2, "too_many_pixels": 1}
    assert all(repair(data) == data for data in FILES)
    assert all(len(parts(data)) > 1 for data in FILES if data[:2] == b"\xff\xd8")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 10}], ids=["lossless", "lossy"])
def test_the_largest_photo_that_is_let_in_fits_the_memory(options: dict[str, Any]) -> None:
    data = encode(Image.new("RGBA", (5000, MAX_PIXELS // 5000), (9, 9, 9, 9)), "WEBP", method=0, **options)
    assert len(data) < 300_000
    with bounded_memory():
        assert decode(data).image.size == (5000, 5000)


@pytest.mark.slow
def test_a_damaged_file_is_a_photo_or_a_named_error(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: Counter[str] = Counter()
    slowest = 0.0

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize="FUZZ_CASES" not in os.environ,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(FILES), STEPS, st.booleans(), st.booleans())
    def run(file: bytes, steps: list[tuple[Mutation, int, int]], repaired: bool, strict: bool) -> None:
        nonlocal slowest
        data = damage(file, steps, repaired)
        note(f"the file: bytes.fromhex('{data.hex()}')")
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error" if strict else "ignore")  # Pillow warns of much; as errors they end no worker
            outcomes[outcome(data)] += 1
        slowest = max(slowest, time.perf_counter() - started)

    with bounded_memory():
        run()
    found = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    line = f"{outcomes.total()} cases; slowest {slowest * 1000:.0f} ms; {found}"
    record_property("fuzz", line)
    with capsys.disabled():
        print(f"\nfuzz: {line}")
    assert outcomes.total() >= CASES
    assert min(outcomes["photo"], outcomes["corrupt_image"]) > CASES / 20  # neither all harmless nor all hopeless
