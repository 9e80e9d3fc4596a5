"""What training rests on: the data itself, as the stages make it, and the report of it in git."""

import json
import tarfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.models.card import read_card
from stages.common import sha256_file
from stages.data.image_sets import ImageSet, load_images, row_digests
from stages.data.prepare import PARTS, part_file
from stages.paths import ModelPaths

REPO = Path(__file__).resolve().parents[2]
PATHS = ModelPaths("cifake")
REPORT: dict[str, Any] = json.loads((REPO / "reports/cifake/dataset.json").read_text(encoding="utf-8"))


def _parts(folder: Path) -> dict[str, ImageSet]:
    return {part: load_images(folder / part_file(PATHS, part)) for part in PARTS}


def test_the_report_in_git_adds_up() -> None:
    for label in ("real", "ai_generated"):
        in_splits = sum(REPORT["splits"][part][label] for part in ("train", "validation", "calibration"))
        dropped = REPORT["train"][label]["surplus_copies"]
        dropped += REPORT["shared_between_train_and_test"]["train_images_dropped"] if label == "ai_generated" else 0
        assert in_splits == REPORT["train"][label]["images"] - dropped
        assert REPORT["splits"]["test"][label] == REPORT["test"][label]["images"]


def test_the_released_model_learned_from_the_data_in_the_report() -> None:
    data = read_card(REPO / "models/cifake").data
    assert (data.dataset, data.digest) == ("cifake", REPORT["splits"]["train"]["sha256"])


@pytest.mark.slow
def test_the_stages_find_again_what_the_report_says(cifake: Path) -> None:
    found = json.loads((cifake / "reports/cifake/dataset.json").read_text(encoding="utf-8"))
    assert found == REPORT
    assert found["shared_between_train_and_test"]["distinct_images"] == 378
    assert found["train"]["ai_generated"] == {"images": 50_000, "surplus_copies": 920}
    assert found["test"]["ai_generated"] == {"images": 10_000, "surplus_copies": 38}
    for part, said in REPORT["splits"].items():
        assert sha256_file(cifake / part_file(PATHS, part)) == said["sha256"]


@pytest.mark.slow
def test_no_image_stands_in_two_splits(cifake: Path) -> None:
    parts = _parts(cifake)
    seen = {part: set(row_digests(data.images).tolist()) for part, data in parts.items()}
    for one, other in combinations(PARTS, 2):
        assert not seen[one] & seen[other], (one, other)
    for part in ("train", "validation", "calibration"):
        assert len(seen[part]) == len(parts[part]), f"{part} holds copies"


@pytest.mark.slow
def test_classes_are_balanced_and_photos_are_photos(cifake: Path) -> None:
    for part, data in _parts(cifake).items():
        assert data.images.shape[1:] == (32, 32, 3)
        assert data.labels.mean() == pytest.approx(0.5, abs=0.01), part
        pixels = data.images[:]
        span = pixels.max((1, 2, 3)).astype(int) - pixels.min((1, 2, 3))
        assert (span < 10).sum() == 0, f"{part} holds blank images"


@pytest.mark.slow
def test_no_file_gives_its_class_away_by_its_header(shared_dir: Path) -> None:
    """Size, quantization and subsampling are the same for both classes, so a model can only learn from pixels."""

    def headers() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(shared_dir / "data/cifake.tar.xz") as archive:
            for place, member in enumerate(archive):
                if member.isfile() and place % 20 == 0 and (file := archive.extractfile(member)):
                    data = file.read()
                    yield member.name.split("/")[-2], data[: data.index(b"\xff\xda")]

    seen: dict[str, set[bytes]] = {}
    for label, header in headers():
        seen.setdefault(label, set()).add(header)
    assert len(seen["REAL"]) == 1
    assert seen["REAL"] == seen["FAKE"]


@pytest.mark.slow
def test_brightness_alone_tells_little(cifake: Path) -> None:
    """A threshold on the mean brightness is near chance: the classes do not differ by exposure."""
    data = _parts(cifake)["validation"]
    order = np.argsort(data.images[:].mean((1, 2, 3)))
    right = np.cumsum(np.where(data.labels[order] == 1, 1, -1))
    best = (abs(right).max() + len(data) / 2) / len(data)
    assert best < 0.65
