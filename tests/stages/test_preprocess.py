"""Duplicates and leaks are found, splits are stable, and own photos are never used silently or half."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.models.images import resize
from service.photo import decode
from stages.common import StageError
from stages.data.image_sets import ImageSet, load_images, row_digests
from stages.data.inbox import check_import
from stages.data.own_photos import own_photos
from stages.data.prepare import PARTS, part_file
from stages.data.splits import clean, split_by_hash

SHARES = {"validation": 0.1, "calibration": 0.1}


def test_duplicates_and_leaks_are_counted_and_kept_out_of_train() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), np.uint8)
    images = pixels[[0, 1, 1, 2, 2, 3, 3, 4, 5]]
    labels = np.array([0, 1, 1, 1, 1, 1, 1, 0, 1], np.uint8)
    test = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0], np.uint8)  # 1: twice in train; 2: leaked; 3: twice in test
    raw = ImageSet(images, labels, {"test": test})
    digests = row_digests(images)
    masks, counts = clean(raw, digests)
    assert counts["train"]["ai_generated"]["surplus_copies"] == 1
    assert counts["test"]["ai_generated"]["surplus_copies"] == 1
    assert counts["shared_between_train_and_test"]["distinct_images"] == 1
    assert set(digests[masks["keep_train"]]) == set(digests[[0, 1, 8]])
    assert masks["duplicate"].sum() == 1
    assert masks["leaked"].sum() == 1


def test_an_image_in_both_classes_teaches_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
    images, labels = pixels[[0, 0, 1]], np.array([0, 1, 1], np.uint8)
    digests = row_digests(images)
    masks, counts = clean(ImageSet(images, labels, {"test": np.zeros(3, np.uint8)}), digests)
    assert counts["in_both_classes"] == 1
    assert set(digests[masks["keep_train"]]) == {digests[2]}


def test_a_photo_keeps_its_split_when_others_join() -> None:
    digests = row_digests(np.random.default_rng(0).integers(0, 255, (2000, 4, 4, 3), np.uint8))
    assert (split_by_hash(digests, SHARES)[:500] == split_by_hash(digests[:500], SHARES)).all()
    shares = {part: float((split_by_hash(digests, SHARES) == part).mean()) for part in SHARES}
    assert shares == pytest.approx(SHARES, abs=0.03)


def test_the_synthetic_splits_do_not_overlap(prepared) -> None:
    parts = {part: load_images(prepared.path / part_file(prepared.files, part)) for part in PARTS}
    seen = [set(row_digests(part.images)) for part in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert parts["test"].flags["leaked"].sum() == 1
    assert parts["test"].flags["duplicate"].sum() == 1
    report = json.loads((prepared.path / "reports/cifake/dataset.json").read_text(encoding="utf-8"))
    assert report["splits"]["train"]["images"] == len(parts["train"])


def photo(path: Path, seed: int, size: tuple[int, int] = (80, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(size).save(path)


@pytest.fixture
def inbox(workspace) -> Path:
    """Forty own photos in groups, beside the synthetic set."""
    for row in range(40):
        label, suffix = ("real", "jpg") if row % 2 else ("ai_generated", "png")
        photo(Path(f"data/{label}/shoe{row // 4}/{row}.{suffix}"), row)
    assert workspace.run("download").returncode == 0
    return Path("data")


def test_own_photos_join_every_split_and_groups_never_straddle(workspace, inbox: Path) -> None:
    workspace.params(preprocess={"own_photos_min": 40, "own_test_share": 0.3, "validation_share": 0.2})
    assert (result := workspace.run("preprocess")).returncode == 0, result.stderr
    report = json.loads(Path("reports/cifake/dataset.json").read_text(encoding="utf-8"))
    assert report["own_photos"]["images"] == 40
    assert report["geometry"] == {"min_width": 32, "max_width": 80, "min_height": 32, "max_height": 60}
    sets = {part: load_images(part_file(workspace.files, part)) for part in PARTS}
    own = {part: data.images[data.flags["own"] == 1] for part, data in sets.items()}
    assert sum(map(len, own.values())) == 40
    assert min(len(own["train"]), len(own["test"]), len(own["validation"])) > 0
    read = own_photos(inbox, (32, 32), 90)
    where = {d: part for part, images in own.items() for d in row_digests(images)}
    parts_of_group: dict[str, set[str]] = {}
    for digest, group in zip(row_digests(read.photos.images), read.groups, strict=True):
        parts_of_group.setdefault(group, set()).add(where[digest])
    assert all(len(parts) == 1 for parts in parts_of_group.values())


def test_own_photos_are_prepared_as_a_request_is(inbox: Path) -> None:
    """A JPEG of the stage's quality passes through both ways to the same pixels, but for one more encoding."""
    shutil.rmtree(inbox)
    flat = Image.new("RGB", (48, 48), (128, 128, 128))  # survives JPEG unchanged, so the preparation alone is compared
    for label, box in (("real", (0, 0, 24, 48)), ("ai_generated", (0, 0, 48, 24))):
        image = flat.copy()
        image.paste((255, 255, 255), box)
        (inbox / label).mkdir(parents=True)
        image.save(inbox / label / "a.png")
    photos = own_photos(inbox, (32, 32), 100).photos
    for row, label in enumerate(("ai_generated", "real")):
        served = resize(decode((inbox / label / "a.png").read_bytes()).image, 32, 32)
        assert np.abs(photos.images[:][row].astype(int) - served).max() <= 2


def test_copies_of_own_photos_count_once(inbox: Path) -> None:
    shutil.copy(inbox / "real/shoe0/1.jpg", inbox / "real/shoe9/copy.jpg")
    read = own_photos(inbox, (32, 32), 90)
    assert len(read.photos) == 40
    assert read.report["surplus_copies"] == 1


def test_bad_own_photos_end_in_one_line_and_leave_the_splits(workspace, inbox: Path) -> None:
    assert workspace.run("preprocess").returncode == 0
    written = [*(part_file(workspace.files, part) for part in PARTS), workspace.files.dataset_report]
    earlier = {path: path.read_bytes() for path in written}

    (inbox / "real/broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    workspace.refuses("preprocess", "broken.jpg", "truncated or corrupt", "photos/")
    (inbox / "real/broken.jpg").unlink()

    (inbox / "reel").mkdir()
    photo(inbox / "reel/a.jpg", 99)
    workspace.refuses("preprocess", "reel/a.jpg", "real or ai_generated")
    shutil.rmtree(inbox / "reel")

    shutil.copy(inbox / "real/shoe0/1.jpg", inbox / "ai_generated/1.jpg")
    workspace.refuses("preprocess", "the same photo stands under 'ai_generated' too")
    (inbox / "ai_generated/1.jpg").unlink()

    workspace.params(preprocess={"own_photos_min": 41})
    workspace.refuses("preprocess", "40 own photos found", "own_photos_min is 41")
    workspace.params()

    shutil.rmtree(inbox / "real")
    workspace.refuses("preprocess", "all 'ai_generated'", "other class")
    assert earlier == {p: p.read_bytes() for p in earlier}


def test_photos_that_were_not_imported_yet_are_refused(inbox: Path, tmp_path: Path) -> None:
    pointer = tmp_path / "data.dvc"
    check_import(pointer, inbox)  # no import at all
    pointer.write_text("deps:\n- path: photos\n", encoding="utf-8")
    check_import(pointer, inbox)  # nothing in photos/: a colleague's data, pulled
    shutil.copytree(inbox, "photos")
    check_import(pointer, inbox)
    photo(Path("photos/real/new.jpg"), 7)
    with pytest.raises(StageError, match=r"photos/ and data/ differ in real/new.jpg: 'dvc repro data.dvc'"):
        check_import(pointer, inbox)
    Path("photos/real/new.jpg").unlink()
    shutil.rmtree("photos/ai_generated")
    with pytest.raises(StageError, match="and 17 more"):
        check_import(pointer, inbox)
    pointer.write_text("deps:\n- path: s3://bucket/photos\n", encoding="utf-8")
    check_import(pointer, inbox)


def test_a_damaged_raw_file_is_one_line(workspace, inbox: Path) -> None:
    raw = Path("build/cifake/raw/images.safetensors")
    raw.write_bytes(raw.read_bytes()[:1000])
    workspace.refuses("preprocess", "images.safetensors is missing or damaged", "dvc repro")
    raw.unlink()
    workspace.refuses("preprocess", "images.safetensors is missing or damaged", "dvc repro")
