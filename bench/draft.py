"""Would decoding large JPEG files at a reduced scale be worth it? What it saves, and what it does to the scores.

python bench/draft.py PHOTOS.tar [--report reports/draft.json]

PHOTOS.tar holds real photos of 240 pixels and more. Larger ones are put together of them, because there are none here:
mosaics of 4 x 4 and 8 x 8 photos, saved with quality 85. Pillow's `draft()` leaves libjpeg the first reduction; the
rest is `images.resize`. A gap of G lets it go down to G times the model's size.
"""

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import tables
from service.models.detector import Detector
from service.models.images import Uint8
from service.photo import decode
from stages.data.sources import members

ROOT = Path(__file__).resolve().parents[1]
GAPS = (2, 4, 8, 16)
LIMIT = 0.005  # by which a score may differ


def mosaics(photos: list[bytes], grid: int, count: int, seed: int = 0) -> list[bytes]:
    """Return JPEG files of `grid` x `grid` photos each."""
    if grid == 1:
        return photos[:count]
    chance = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        tiles = [decode(photos[place]).image for place in chance.integers(len(photos), size=grid * grid)]
        side = tiles[0].width
        whole = Image.new("RGB", (side * grid, side * grid))
        for place, tile in enumerate(tiles):
            whole.paste(tile, (side * (place % grid), side * (place // grid)))
        buffer = io.BytesIO()
        whole.save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return files


def drafted(data: bytes, detector: Detector, gap: int) -> Uint8:
    """Return the model's pixels by the short cut."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (detector.width * gap, detector.height * gap))
    return detector.prepare(image.convert("RGB"))


def main() -> None:
    """Print a table and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "draft.json")
    options = parser.parse_args()
    detector = Detector(ROOT / "models" / "cifake" / "model.onnx")
    photos = [data for _, data in members(options.photos) if data.startswith(b"\xff\xd8\xff")]
    rows: list[dict[str, Any]] = []

    def pixels(way: Callable[[bytes], Uint8], files: list[bytes]) -> tuple[Uint8, float]:
        times, found = [], []
        for data in files:
            started = time.perf_counter()
            found.append(way(data))
            times.append(time.perf_counter() - started)
        return np.stack(found), statistics.median(times)

    for grid, count in tqdm([(1, 300), (4, 80), (8, 40)], desc="sizes"):
        files = mosaics(photos, grid, count)
        whole, slow = pixels(lambda data: detector.prepare(decode(data).image), files)
        expected = detector.score(whole).probability
        for gap in GAPS:
            short, fast = pixels(lambda data, gap=gap: drafted(data, detector, gap), files)  # type: ignore[misc]
            change = np.abs(detector.score(short).probability - expected)
            rows.append(
                {
                    "side": decode(files[0]).image.width, "gap": gap,
                    "photos": len(files), "faster": round(slow / fast, 2),
                    "largest_change": round(float(change.max()), 4),
                    "changed_more": round(float((change > LIMIT).mean()), 3),
                }
            )  # fmt: skip
    report = {"limit": LIMIT, "rows": rows}
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(tables.draft(report))


if __name__ == "__main__":
    main()
