"""Image sets in files: equal pixels whatever the form, and nothing is read that is not asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from stages.common import StageError, sha256_file
from stages.data.image_sets import (
    ImageSet,
    Spool,
    StoredImages,
    batches,
    load_images,
    row_digests,
    save_images,
    write_images,
)
from stages.data.synthetic import synthetic_images, synthetic_set

SIDES = (32, 160)  # kept as pixels, and encoded


@pytest.mark.parametrize("side", SIDES)
def test_a_set_comes_back_equal_and_is_written_in_the_same_bytes(tmp_path: Path, side: int) -> None:
    data = synthetic_images(60, side, seed=0)
    save_images(tmp_path / "one", data)
    loaded = load_images(tmp_path / "one")
    assert isinstance(loaded.images, StoredImages)
    assert loaded.images.shape == data.images.shape
    assert np.array_equal(loaded.images[:], data.images)
    assert np.array_equal(loaded.labels, data.labels)
    assert np.array_equal(loaded.flags["test"], data.flags["test"])
    assert np.array_equal(row_digests(loaded.images), row_digests(data.images))
    save_images(tmp_path / "two", loaded)
    assert sha256_file(tmp_path / "two") == sha256_file(tmp_path / "one")


@pytest.mark.parametrize("side", SIDES)
def test_rows_are_taken_in_the_order_asked_for(tmp_path: Path, side: int) -> None:
    data = synthetic_images(60, side, seed=0)
    save_images(tmp_path / "set", data)
    loaded = load_images(tmp_path / "set")
    rows = np.array([7, 3, 3, 50])
    taken = loaded.take(rows).take(np.array([3, 1]))
    assert np.array_equal(taken.images[:], data.images[[50, 3]])
    assert np.array_equal(taken.labels, data.labels[[50, 3]])
    for some in (slice(10, 14), rows, loaded.labels == 1):
        assert np.array_equal(loaded.images[some], data.images[some])
    assert len(loaded.take(np.array([], int))) == 0
    assert np.array_equal(np.concatenate(list(loaded.batches(7))), data.images)


def test_a_photo_that_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    def read(row: int) -> np.ndarray:
        assert row == 2
        return np.full((16, 16, 3), row, np.uint8)

    images = StoredImages(read, np.arange(5), (16, 16))
    assert (images.take(np.array([4, 2]))[1:] == 2).all()


def test_batches_of_large_photos_are_small() -> None:
    small, large = np.zeros((300, 32, 32, 3), np.uint8), np.zeros((40, 512, 512, 3), np.uint8)
    assert [len(batch) for batch in batches(small)] == [256, 44]
    assert [len(batch) for batch in batches(large)] == [16, 16, 8]


def test_large_photos_take_less_disk_than_their_pixels(tmp_path: Path) -> None:
    photos = [Image.fromarray(photo).resize((512, 384)) for photo in load_sample_images().images]
    data = ImageSet(np.stack([np.asarray(photo) for photo in photos]), np.array([0, 1], np.uint8), {})
    save_images(tmp_path / "set", data)
    assert (tmp_path / "set").stat().st_size < data.images.nbytes * 0.6
    assert np.array_equal(load_images(tmp_path / "set").images[:], data.images)


def test_an_empty_set_keeps_its_size(tmp_path: Path) -> None:
    for size in ((24, 32), (200, 160)):
        write_images(tmp_path / "set", [], size, np.zeros(0, np.uint8), {})
        assert load_images(tmp_path / "set").images[:].shape == (0, *size, 3)


def test_photos_of_another_size_are_refused() -> None:
    spool = Spool()
    spool.add(np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="20 x 24 pixels"):
        spool.add(np.zeros((24, 20, 3), np.uint8))


def test_the_synthetic_set_is_the_same_in_a_file_but_sorted(tmp_path: Path) -> None:
    data, stored = synthetic_images(100, 32, seed=3), synthetic_set(100, 32, 3, tmp_path)
    digests = row_digests(stored.images)
    assert (np.sort(digests) == digests).all()
    assert sorted(row_digests(data.images)) == digests.tolist()
    assert not list(tmp_path.iterdir())


def test_a_cut_file_is_one_line(tmp_path: Path) -> None:
    save_images(tmp_path / "set", synthetic_images(60, 160, seed=0))
    whole = (tmp_path / "set").read_bytes()
    (tmp_path / "set").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match="missing or damaged"):
        load_images(tmp_path / "set")
