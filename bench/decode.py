"""What it costs to read a photo's file, beside another version of this project in the same run.

python bench/decode.py [--against REVISION] [--report reports/bench_decode.json]

Reads: decode, resize, credentials, marks: all that a request does with a file before the network sees it. Photos of 240
pixels as shops show them, and of 12 megapixels as phones write them; with and without a colour profile that must be
applied. Both versions run in processes of their own, in turns; the other one is checked out into a temporary folder.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_sample_images
from tqdm import trange

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, os.environ.get("BENCH_TREE", str(ROOT)))
if "BENCH_TREE" not in os.environ:
    import pillow_heif

    from bench.revisions import checked_out
    from tests.support.profiles import matrix_profile
    from tools.report.render import block

SIDES = {"240 px": (240, 240), "12 megapixels": (4000, 3000)}
KINDS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 85}, "PNG": {}, "WEBP": {"quality": 85}, "AVIF": {}, "HEIF": {}}
ROUNDS = 7


def photos(folder: Path) -> None:
    """Write the photos of the bench, `<size> <kind>[ profile]`."""
    pillow_heif.register_heif_opener()
    china = Image.fromarray(load_sample_images().images[0])
    for name, size in SIDES.items():
        image = china.resize(size, Image.Resampling.BICUBIC)
        for kind, options in KINDS.items():
            for more, profile in (("", {}), (" profile", {"icc_profile": matrix_profile("display_p3")})):
                image.save(folder / f"{name} {kind}{more}", kind, **options, **profile)


def reader() -> Callable[[bytes], object]:
    """Return what reads a file in the tree at hand, of this version or an earlier one."""
    from service.models.images import resize
    from service.photo.credentials import CredentialReader

    credentials = CredentialReader()
    # Not by trying to import: an editable install would lend an earlier tree the newer modules.
    if not Path(os.environ["BENCH_TREE"], "service", "photo").exists():
        from service.jpeg import jpeg_quality  # type: ignore[import-not-found]
        from service.models.images import decode as decode_before  # type: ignore[attr-defined]
        from service.provenance import ai_markers  # type: ignore[import-not-found]

        def before(data: bytes) -> object:
            return resize(decode_before(data), 32, 32), credentials.read(data), jpeg_quality(data), ai_markers(data)

        return before

    from service.photo import decode, marks

    def now(data: bytes) -> object:
        photo = decode(data)
        return resize(photo.image, 32, 32), credentials.read(data), marks.read(photo.metadata)

    return now


def measure(folder: Path) -> dict[str, float]:
    """Return milliseconds a photo: the median of many readings, each alone."""
    read, found = reader(), {}
    for path in sorted(folder.iterdir()):
        data, times = path.read_bytes(), []
        with suppress(Exception):  # a format that this version does not know
            read(data)
            times.append(0.0)
        if not times:
            continue
        times.clear()
        for _ in range(200 if path.name.startswith("240") else 3):
            started = time.perf_counter()
            read(data)
            times.append(time.perf_counter() - started)
        found[path.name] = statistics.median(times) * 1000
    return found


def main() -> None:
    """Measure both in turns, print a table, write the report."""
    if "BENCH_TREE" in os.environ:
        print(json.dumps(measure(Path(sys.argv[1]))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="REVISION", default="3e7507e", help="of git; that one knows no AVIF")
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench_decode.json")
    options = parser.parse_args()
    rounds = in_turns(options.against)
    rows: dict[str, dict[str, Any]] = {}
    for name in rounds["now"][0]:
        now = [each[name] for each in rounds["now"]]
        before = [each[name] for each in rounds["before"] if name in each]
        ratios = [a / b for a, b in zip(now, before, strict=True)] if before else []
        rows[name] = {"ms": round(statistics.median(now), 3)}
        rows[name]["times_before"] = round(statistics.median(ratios), 2) if ratios else None
    for name, row in rows.items():
        plain = rows.get(name.removesuffix(" profile"))
        row["profile_ms"] = round(row["ms"] - plain["ms"], 2) if plain and plain is not row else None
    report = {"against": options.against, "photos": rows}
    print(block("decode", report))
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def in_turns(against: str) -> dict[str, list[dict[str, float]]]:
    """Measure this tree and an earlier one, one after the other, several times."""
    rounds: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder, tree = Path(temporary) / "photos", Path(temporary) / "tree"
        folder.mkdir()
        photos(folder)
        with checked_out(against, tree):
            for _ in trange(ROUNDS, desc="rounds"):
                for which, where in (("before", tree), ("now", ROOT)):
                    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
                    rounds[which].append(json.loads(run(command, BENCH_TREE=str(where), PYTHONPATH=str(where))))
    return rounds


def run(command: list[str], **environment: str) -> str:
    """Run one of our own commands; return what it prints."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout


if __name__ == "__main__":
    main()
