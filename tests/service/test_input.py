"""What a card's `input` says is obeyed: squash, crop and views, of photos and networks of any shape."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.models.card import Input
from service.models.detector import Detector
from service.models.heatmap import overlay, place
from service.models.images import boxes, prepare, statistics
from tests.support import tiny_model
from tests.support.photos import photo

SIZES = ((32, 32), (24, 48), (48, 24))  # height and width


def detector_of(folder: Path, resize: str, size: tuple[int, int], views: int = 1) -> Detector:
    height, width = size
    given = tiny_model.CARD["input"] | {"height": height, "width": width, "resize": resize, "views": views}
    card = tiny_model.CARD | {"format": 2, "name": "tiny", "input": given}
    return Detector(tiny_model.build(folder / "model.onnx", card, size))


def halves(width: int, height: int) -> Image.Image:
    """Return a photo whose left half is red and whose right half is blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SIZES)
def test_squash_shows_the_whole_photo(tmp_path: Path, size: tuple[int, int]) -> None:
    detector = detector_of(tmp_path, "squash", size)
    for image in (photo(100, 50), photo(50, 100), photo(size[1], size[0])):
        wanted = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
        assert np.array_equal(detector.prepare(image), wanted)
    assert boxes(100, 50, detector.card.input) == [(0, 0, 100, 50)]


@pytest.mark.parametrize("size", SIZES)
def test_crop_shows_the_middle(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    detector = detector_of(tmp_path, "crop", size)
    fitting = photo(width, height)
    assert np.array_equal(detector.prepare(fitting), np.asarray(fitting))
    wide = photo(width + 100, height)  # its shorter side fits: nothing is scaled
    assert np.array_equal(detector.prepare(wide), np.asarray(wide)[:, 50 : 50 + width])
    tall = photo(width, height + 100)
    assert np.array_equal(detector.prepare(tall), np.asarray(tall)[50 : 50 + height])
    twice = photo(2 * width, 2 * height + 20)
    scaled = np.asarray(twice.resize((width, height + 10), Image.Resampling.BICUBIC))
    assert np.array_equal(detector.prepare(twice), scaled[5 : 5 + height])


@pytest.mark.parametrize("size", SIZES)
def test_views_are_averaged(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    detector = detector_of(tmp_path, "views", size, views=3)
    image = photo(width + 100, height)
    pixels = detector.prepare(image)
    assert pixels.shape == (3, height, width, 3)
    parts = np.stack([np.asarray(image)[:, left : left + width] for left in (0, 50, 100)])
    assert np.array_equal(pixels, parts)
    alone, together = detector.score(parts), detector.score(np.stack([pixels, pixels]))
    logits = np.log(alone.probability / (1 - alone.probability))
    assert together.probability == pytest.approx(1 / (1 + np.exp(-logits.mean())), abs=1e-6)
    assert together.embedding[0] == pytest.approx(alone.embedding.mean(0), abs=1e-6)
    assert together.ood_score[1] == pytest.approx(alone.ood_score.mean(), abs=1e-5)
    assert together.heatmap.shape == (2, 3, height // 8, width // 8)
    logit = np.log(together.probability / (1 - together.probability))
    assert together.heatmap.mean((1, 2, 3)) + detector.card.head_bias == pytest.approx(logit, abs=1e-4)
    single = detector.score(parts[:1])  # a photo of that very size needs no more views: all would be the same
    assert detector.score(parts[:1][:, None]).probability == pytest.approx(single.probability, abs=1e-6)
    with pytest.raises(ValueError, match="photos must be"):
        detector.score(np.zeros((1, 0, height, width, 3), np.uint8))


def test_drift_statistics_are_of_the_pixels_that_the_model_sees(tmp_path: Path) -> None:
    image = halves(96, 32)
    views = prepare(image, Input(width=32, height=32, resize="views", views=2))
    found = statistics(views[None])
    each = statistics(views)
    for name, values in found.items():
        assert values.shape == (1,)
        assert values[0] == pytest.approx(each[name].mean(), abs=1e-6)
    red, blue = 0.299, 0.114
    assert found["brightness"][0] == pytest.approx((red + blue) / 2, abs=1e-3)
    assert found["contrast"][0] == pytest.approx(0, abs=1e-3)  # each view has one colour


@given(
    st.tuples(st.integers(16, 5000), st.integers(16, 5000)),
    st.tuples(st.integers(8, 600), st.integers(8, 600)),
    st.sampled_from([("squash", 1), ("crop", 1), ("views", 1), ("views", 2), ("views", 5)]),
)
def test_every_part_lies_in_the_photo(photo: tuple[int, int], size: tuple[int, int], policy: tuple[Any, int]) -> None:
    wanted = Input(width=size[0], height=size[1], resize=policy[0], views=policy[1])
    found = boxes(*photo, wanted)
    assert len(found) == policy[1]
    for left, top, right, bottom in found:
        assert 0 <= left < right <= photo[0]
        assert 0 <= top < bottom <= photo[1]
        if policy[0] != "squash":  # no stretching
            assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1])
    if policy[0] != "squash":  # one side is whole
        assert right - left == pytest.approx(photo[0]) or bottom - top == pytest.approx(photo[1])
    if policy[1] > 1:  # from end to end
        assert found[0][:2] == (0, 0)
        assert found[-1][2:] == pytest.approx(photo)


def test_a_crops_map_covers_its_part_alone(tmp_path: Path) -> None:
    detector = detector_of(tmp_path, "crop", (32, 32))
    image = Image.new("RGB", (300, 100), (128, 128, 128))
    heat = np.full((1, 4, 4), 5, np.float32)
    shown = np.asarray(
        Image.open(io.BytesIO(overlay(image, heat, boxes(300, 100, detector.card.input)))).convert("RGB")
    ).astype(int)
    red = shown[..., 0] - shown[..., 2] > 40
    assert red[:, 110:190].all()
    assert not red[:, :90].any()
    assert not red[:, 210:].any()


def test_maps_meet_at_their_places_and_overlap_in_their_mean() -> None:
    maps = np.stack([np.full((4, 4), 1, np.float32), np.full((4, 4), 3, np.float32)])
    placed = place(maps, [(0, 0, 60, 40), (40, 0, 100, 40)], (120, 40))
    assert placed.shape == (40, 120)
    assert np.allclose(placed[:, :40], 1)
    assert np.allclose(placed[:, 40:60], 2)
    assert np.allclose(placed[:, 60:100], 3)
    assert (placed[:, 100:] == 0).all()


def test_a_squashed_map_covers_the_photo_as_it_did() -> None:
    heat = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    placed = place(heat, [(0, 0, 90.0, 50.0)], (90, 50))
    assert np.array_equal(placed, np.asarray(Image.fromarray(heat[0]).resize((90, 50), Image.Resampling.BICUBIC)))
