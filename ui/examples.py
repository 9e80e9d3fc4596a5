"""Photos to click on: real ones that installed packages ship, and pictures that this code draws. None is of CIFAKE."""

import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 32  # what the released model knows


def examples() -> dict[str, str]:
    """Write the examples into a folder of their own; return their paths by name."""
    folder = Path(tempfile.mkdtemp(prefix="aidetect-examples-"))
    paths = {}
    for name, image in {**_shipped(), **_drawn()}.items():
        path = folder / f"{name.replace(' ', '-')}.png"
        image.save(path)
        paths[name] = str(path)
    return paths


def _shipped() -> dict[str, Image.Image]:
    """Return Gradio's own sample photo, large, and at the size that the model knows."""
    with (files("gradio") / "test_data" / "cheetah2.jpg").open("rb") as file:
        photo = Image.open(file).convert("RGB")
    return {"a photo, large": photo, "the same, small": photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC)}


def _drawn() -> dict[str, Image.Image]:
    sky = np.linspace((90, 140, 220), (230, 240, 250), 128)[:, None].repeat(128, 1)
    scene = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(scene)
    draw.ellipse((24, 60, 104, 140), fill=(200, 60, 50))
    draw.ellipse((44, 76, 66, 98), fill=(240, 150, 140))
    soft = scene.filter(ImageFilter.GaussianBlur(2)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    card = Image.new("RGB", (320, 200), "white")
    ImageDraw.Draw(card).text((40, 90), "SALE  -50 %", fill="black", font_size=36)
    return {"a drawing": soft, "a text": card}
