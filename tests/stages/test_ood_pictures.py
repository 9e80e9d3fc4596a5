"""Pictures that are no photos, and the statistics that tell them from photos."""

import numpy as np
import pytest
import torch

from stages.exporting.inference_graph import STEPS, texture
from stages.exporting.ood_pictures import KINDS, OUTLIERS, outliers
from stages.exporting.ood_statistics import drawing_score, whitened


def test_whitened_distance_is_the_mahalanobis_distance() -> None:
    random = np.random.default_rng(0)
    cloud = random.normal(0, 1, (5000, 4)) @ random.normal(0, 1, (4, 4)) * [1, 10, 100, 0.1] + 5
    centre, whitening = whitened(cloud)
    away = (cloud - centre) @ whitening
    assert np.cov(away.T) == pytest.approx(np.eye(4), abs=0.1)
    exact = np.einsum("ij,jk,ik->i", cloud - cloud.mean(0), np.linalg.inv(np.cov(cloud.T)), cloud - cloud.mean(0))
    assert np.square(away).sum(1) == pytest.approx(exact, rel=0.2)


def test_a_column_that_never_varied_does_not_decide_alone() -> None:
    cloud = np.random.default_rng(0).normal(0, 1, (1000, 3)) * [1, 1, 0]
    centre, whitening = whitened(cloud)
    assert np.linalg.norm(([0, 0, 0.01] - centre) @ whitening) < 50


def test_texture_by_hand() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert texture(grey).tolist() == [[1.0] * len(STEPS)]
    stripes = grey.clone()
    stripes[:, :, :, ::2] = 0.5 + 0.03  # every step across is 0.03, none down is
    assert texture(stripes)[0].tolist() == [0.5 if step < 0.03 else 1.0 for step in STEPS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (640, 480), (33, 200)])
def test_drawn_pictures_are_pictures_and_the_same_each_time(kind: str, size: tuple[int, int]) -> None:
    one, same = (KINDS[kind](np.random.default_rng(3), *size) for _ in range(2))
    assert (one.mode, one.size) == ("RGB", size)
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != KINDS[kind](np.random.default_rng(4), *size).tobytes()


def test_the_domain_check_learns_from_other_drawings_than_those_that_check_it() -> None:
    assert not set(OUTLIERS) & set(KINDS.values())
    drawn = np.stack(list(outliers(16, 24, 24, seed=1)))
    assert (drawn.shape, drawn.dtype) == ((16, 24, 24, 3), np.uint8)
    assert np.array_equal(drawn, list(outliers(16, 24, 24, seed=1)))
    assert len({picture.tobytes() for picture in drawn}) == 16


def test_the_drawing_score_finds_a_direction_within_the_clouds_reach() -> None:
    random = np.random.default_rng(0)
    known = random.normal(0, 1, (3000, 50))
    drawn = random.normal(0, 0.3, (500, 50)) + np.eye(50)[0] * 4  # nearer to the centre than a usual photo
    unit, weight, bias = drawing_score(known, drawn)
    assert (np.linalg.norm(drawn, axis=1) / unit > 1).mean() == 0
    assert (drawn @ weight + bias > 1).mean() > 0.99
    assert np.mean(np.linalg.norm(known, axis=1) / unit > 1) == pytest.approx(0.01, abs=0.002)
    assert np.mean(known @ weight + bias > 1) == pytest.approx(0.01, abs=0.002)
