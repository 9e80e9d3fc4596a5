"""Pictures that no detector of photos should judge, drawn from a seed.

Export learns from `OUTLIERS` what no photo looks like; evaluate and release ask with `KINDS`, which were drawn by other
means, so that the right answer cannot be learned by heart.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Uint8 = npt.NDArray[np.uint8]
Random = np.random.Generator
Draw = Callable[[Random, int, int], Image.Image]  # generator, width, height -> a picture

_WORDS = ["SALE", "NEW", "-50%", "free", "shipping", "size 42", "100% cotton", "made for you", "19.99", "best price"]
_GLYPHS = list("ABCDEFGHKMNPRSTWXYZabdeghkmnqrst0123456789&@#%?!")


def plain_colour(rng: Random, width: int, height: int) -> Image.Image:
    """One colour all over."""
    return Image.new("RGB", (width, height), _colour(rng))


def gradient(rng: Random, width: int, height: int) -> Image.Image:
    """One colour running into another, from left to right or from top to bottom."""
    first, last = (np.array(_colour(rng), float) for _ in range(2))
    down = rng.random() < 0.5
    share = np.linspace(0, 1, height if down else width)[:, None]
    ramp = first * (1 - share) + last * share
    pixels = np.broadcast_to(ramp[:, None] if down else ramp[None], (height, width, 3))
    return Image.fromarray(pixels.round().astype(np.uint8))


def noise(rng: Random, width: int, height: int) -> Image.Image:
    """Gaussian noise around grey, weak to strong, another value for each pixel and colour."""
    values = 128 + rng.uniform(5, 90) * rng.standard_normal((height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def text(rng: Random, width: int, height: int) -> Image.Image:
    """A few words on a plain ground, as on a label or a banner."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(6, height // int(rng.integers(3, 7))))
    for line in range(int(rng.integers(1, 4))):
        words = " ".join(rng.choice(_WORDS, 3))
        canvas.text((width * rng.uniform(0, 0.2), height * line / 3), words, fill=_colour(rng), font=font)
    return picture


def drawing(rng: Random, width: int, height: int) -> Image.Image:
    """Ellipses, boxes and lines in plain colours, as in a logo or a sketch."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    canvas = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 6))):
        x, y = np.sort(rng.uniform(0, width, 2)), np.sort(rng.uniform(0, height, 2))
        box = (x[0], y[0], x[1], y[1])
        shape = rng.integers(3)
        if shape == 0:
            canvas.ellipse(box, fill=_colour(rng))
        elif shape == 1:
            canvas.rectangle(box, fill=_colour(rng))
        else:
            canvas.line(box, fill=_colour(rng), width=max(1, height // 16))
    return picture


KINDS: dict[str, Draw] = {
    "plain_colours": plain_colour,
    "gradients": gradient,
    "noise": noise,
    "text": text,
    "drawings": drawing,
}


def polygons(rng: Random, width: int, height: int) -> Image.Image:
    """Polygons in plain colours, some of them with an outline."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    canvas = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 7))):
        corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 7)), 2)) * (width, height)
        fill = _colour(rng)
        canvas.polygon(
            [(x, y) for x, y in corners.tolist()], fill=fill, outline=_colour(rng) if rng.random() < 0.4 else fill
        )
    return picture


def scribbles(rng: Random, width: int, height: int) -> Image.Image:
    """Random walks with a pen."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    canvas = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 8))):
        steps = rng.normal(0, 0.15, (int(rng.integers(3, 12)), 2))
        walk = (steps.cumsum(0) + rng.random(2)) * (width, height)
        pen = int(rng.integers(1, max(2, height // 8)))
        canvas.line([(x, y) for x, y in walk.tolist()], fill=_colour(rng), width=pen, joint="curve")
    return picture


def waves(rng: Random, width: int, height: int) -> Image.Image:
    """A sine wave between two colours, or its sharp stripes."""
    y, x = _grid(width, height)
    across, down = rng.uniform(-6, 6, 2)
    share = 0.5 + 0.5 * np.sin(2 * np.pi * (across * x + down * y + rng.random()))
    return _mixed(rng, share.round() if rng.random() < 0.5 else share)


def rings(rng: Random, width: int, height: int) -> Image.Image:
    """One colour running into another around a point."""
    y, x = _grid(width, height)
    centre = rng.random(2)
    return _mixed(rng, np.hypot(x - centre[0], y - centre[1]) / np.sqrt(2))


def mosaic(rng: Random, width: int, height: int) -> Image.Image:
    """A grid of a few colours, sharp or smooth."""
    palette = rng.integers(0, 256, (int(rng.integers(2, 5)), 3))
    cells = int(rng.integers(2, 9))
    grid = palette[rng.integers(0, len(palette), (cells, cells))].astype(np.uint8)
    smooth = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return Image.fromarray(grid).resize((width, height), smooth[int(rng.integers(3))])


def blobs(rng: Random, width: int, height: int) -> Image.Image:
    """Smoothed noise cut into a few plain colours."""
    values = Image.fromarray(rng.integers(0, 256, (height, width)).astype(np.uint8))
    smooth = np.asarray(values.filter(ImageFilter.GaussianBlur(height / rng.uniform(6, 20))), float)
    levels = np.quantile(smooth, np.sort(rng.random(int(rng.integers(1, 4)))))
    return Image.fromarray(rng.integers(0, 256, (4, 3))[np.digitize(smooth, levels)].astype(np.uint8))


def static(rng: Random, width: int, height: int) -> Image.Image:
    """Uniform noise in colour, or Gaussian noise in grey."""
    if rng.random() < 0.5:
        low, high = np.sort(rng.integers(0, 256, 2))
        return Image.fromarray(rng.integers(low, high + 1, (height, width, 3)).astype(np.uint8))
    values = 128 + rng.uniform(5, 90) * rng.standard_normal((height, width))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def letters(rng: Random, width: int, height: int) -> Image.Image:
    """Large letters and digits, also cut by the border."""
    picture = Image.new("RGB", (width, height), _colour(rng))
    canvas = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.uniform(-0.1, 0.7, 2) * (width, height)
        word = "".join(rng.choice(_GLYPHS, int(rng.integers(1, 5))))
        canvas.text((x, y), word, fill=_colour(rng), font=ImageFont.load_default(height * rng.uniform(0.2, 0.9)))
    return picture


OUTLIERS: tuple[Draw, ...] = (polygons, scribbles, waves, rings, mosaic, blobs, static, letters)


def outliers(count: int, height: int, width: int, seed: int) -> Iterator[Uint8]:
    """Draw `OUTLIERS` in turn, each uint8 [height, width, 3]: as large or scaled down, most of them saved as JPEG."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        scale = int(rng.choice([1, 1, 2, 4]))
        large = OUTLIERS[number % len(OUTLIERS)](rng, width * scale, height * scale)
        picture = large.resize((width, height), Image.Resampling.BICUBIC)
        yield np.asarray(as_jpeg(picture, int(rng.integers(40, 96))) if rng.random() < 0.7 else picture)


def as_jpeg(photo: Image.Image, quality: int) -> Image.Image:
    """Encode a photo as JPEG and decode it again."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _colour(rng: Random) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _grid(width: int, height: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    y, x = np.mgrid[:height, :width]
    return y / height, x / width


def _mixed(rng: Random, share: npt.NDArray[np.float64]) -> Image.Image:
    """Mix two colours, [height, width] in 0..1."""
    first, last = (np.array(_colour(rng), float) for _ in range(2))
    return Image.fromarray((first * share[..., None] + last * (1 - share[..., None])).round().astype(np.uint8))
