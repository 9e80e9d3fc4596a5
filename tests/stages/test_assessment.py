"""The measurements themselves: by hand where a hand can follow, else by what must hold of any right one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.models.card import Card
from service.models.detector import Detector
from service.models.images import statistics
from stages.data.image_sets import ImageSet, save_images
from stages.data.synthetic import synthetic_images
from stages.evaluation import robustness as changes
from stages.evaluation.explanation import STEPS, faithfulness
from stages.evaluation.figures import flag_bound, worth
from stages.evaluation.robustness import CHANGES, robustness
from stages.evaluation.scoring import figures_of, score
from stages.evaluation.slices import CLASSES, cifar_classes, slice_figures
from stages.exporting.inference_graph import STEPS as TEXTURE_STEPS
from stages.exporting.inference_graph import texture
from stages.exporting.ood_pictures import KINDS, OUTLIERS, outliers
from stages.exporting.ood_statistics import drawing_score, whitened
from tests.stages.conftest import Workspace
from tests.support import tiny_model

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A tiny model file that is known by heart; all photos are in its domain."""
    card = json.loads(json.dumps(tiny_model.CARD))
    card["domain"]["threshold"] = 1e9
    return Detector(tiny_model.build(tmp_path_factory.mktemp("tiny") / "model.onnx", card))


@pytest.fixture(scope="module")
def photos() -> ImageSet:
    """Noisy photos of both classes."""
    random = np.random.default_rng(0)
    return ImageSet(
        random.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8), np.tile(np.array([0, 1], np.uint8), 60), {}
    )


def test_every_change_does_more_at_each_strength() -> None:
    images = synthetic_images(40, 32, seed=0).images
    for name, (change, strengths) in CHANGES.items():
        moved = [np.abs(change(images, s).astype(int) - images).mean() for s in strengths]
        assert all(changed > 0 for changed in moved), name
        if name not in {"brightness", "contrast"}:
            assert moved == sorted(moved), name
        assert change(images, strengths[0]).dtype == np.uint8
        assert np.array_equal(change(images, strengths[-1]), change(images, strengths[-1])), "not the same twice"


def test_the_changes_by_hand() -> None:
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    assert (changes.brightness(grey, 1.2) == 120).all()
    assert (changes.brightness(grey, 3.0) == 255).all()
    for same in (changes.contrast(grey, 0.5), changes.blur(grey, 1.0), changes.resize(grey, 0.5)):
        assert (same == 100).all()
    halves = np.repeat(np.array([50, 150], np.uint8), 512).reshape(1, 32, 32, 1).repeat(3, axis=3)
    assert np.unique(changes.contrast(halves, 0.5)).tolist() == [75, 125]
    assert changes.noise(grey, 0.1).std() == pytest.approx(25.5, rel=0.05)
    point = np.zeros((1, 31, 31, 3), np.uint8)
    point[0, 15, 15] = 255  # becomes the blur's own shape
    assert changes.blur(point, 1.0)[0, 15, 15, 0] == pytest.approx(255 / (2 * np.pi), abs=1)


def test_robustness_without_a_change_gives_the_figures(
    detector: Detector, photos: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHANGES", {"brightness": (changes.brightness, (1.0, 0.2))})
    alpha = next(iter(detector.card.thresholds.flag))
    found = robustness(detector, photos, alpha)
    rows = {"all": np.ones(len(photos), dtype=bool)}
    figures = figures_of(detector, photos, score(detector, photos, "photos"), rows)["all"]
    same = found["brightness"]["1"]
    assert same == found["unchanged"]
    assert (same["accuracy"], same["auc"]) == (figures["accuracy"], figures["auc"])
    assert same["reals_flagged"] == figures["decisions"][f"alpha_{alpha}"]["reals_flagged"]
    assert found["brightness"]["0.2"]["auc"] != same["auc"]


def test_the_bound_on_false_accusations_by_hand() -> None:
    assert flag_bound(0.01, 3000, 10_000) == pytest.approx(0.01 + 1.96 * (0.0099 * (1 / 3000 + 1e-4)) ** 0.5)


def test_what_a_flag_is_worth_by_hand() -> None:
    card = Card.model_validate(tiny_model.CARD | {"thresholds": {"flag": {"0.01": 0.6}, "clear": 0.2}})
    labels = np.repeat(np.array([0, 1], np.uint8), 1000)
    probability = np.repeat([0.1, 0.999, 0.1, 0.999], [990, 10, 500, 500])
    found = worth(labels, probability, np.ones(2000, bool), card, 0.01)
    for prior in (0.01, 0.05, 0.5):
        row = found[f"prior_{prior:g}"]
        right = prior * 0.5 / (prior * 0.5 + (1 - prior) * 0.01)
        assert row["flag_is_right"] == row["with_ai_prior_0.5"] == pytest.approx(right, abs=1e-6)
        assert row["flag_is_right_at_least"] < right
    # 10 of 1,000: Clopper and Pearson's 95 % interval ends at 1.83 %.
    assert found["prior_0.5"]["flag_is_right_at_least"] == pytest.approx(0.5 / (0.5 + 0.01831), abs=1e-4)
    probability[-500:] = probability[990:1000] = 0.9  # under a prior of 1 % that is below one half: no flag
    found = worth(labels, probability, np.ones(2000, bool), card, 0.01)
    assert found["prior_0.01"]["generated_flagged"] == 0.0
    assert found["prior_0.01"]["with_ai_prior_0.5"] > 0.3
    assert found["prior_0.01"]["reviewed"] > 0.009


def test_slices_share_the_photos_out_and_name_the_worst(detector: Detector, photos: ImageSet, tmp_path: Path) -> None:
    save_images(tmp_path / "raw", photos)
    suffixes = ["", *(f" ({number})" for number in range(2, 11)), ", a strange one"]
    names = [f"train/REAL/{row:04}{suffixes[row % 11]}.jpg" for row in range(len(photos))]
    (tmp_path / "names.csv").write_text("\n".join(["name", *names]) + "\n", encoding="utf-8")
    mixed = photos.take(np.random.default_rng(1).permutation(len(photos)))
    classes = cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "names.csv")
    assert classes is not None
    rows = {tuple(image.ravel()[:9]): row for row, image in enumerate(photos.images)}
    expected = [([*CLASSES, ""])[rows[tuple(image.ravel()[:9])] % 11] for image in mixed.images]
    assert classes.tolist() == expected
    assert cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "missing") is None
    (tmp_path / "of another set").write_text("\n".join(["name", *names[:50]]) + "\n", encoding="utf-8")
    assert cifar_classes(mixed.images, tmp_path / "raw", tmp_path / "of another set") is None

    alpha = next(iter(detector.card.thresholds.flag))
    found = slice_figures(detector, mixed, score(detector, mixed, "photos"), classes, alpha)
    worst = found.pop("worst")
    assert list(found) == ["class", "brightness", "sharpness"]
    assert set(found["class"]) == set(CLASSES)
    for name in ("brightness", "sharpness"):
        assert sum(part["images"] for part in found[name].values()) == len(photos)
    everything = {f"{group} {name}": part for group, parts in found.items() for name, part in parts.items()}
    assert worst["accuracy"] == min(part["accuracy"] for part in everything.values())
    assert everything[worst.pop("slice")] == worst
    measured = statistics(mixed.images)["brightness"]
    assert found["brightness"]["1 of 5"]["from"] == pytest.approx(measured.min(), abs=1e-5)
    assert found["brightness"]["5 of 5"]["to"] == pytest.approx(measured.max(), abs=1e-5)


def test_the_exact_heat_map_of_a_linear_model_beats_random_masks(detector: Detector, photos: ImageSet) -> None:
    found = faithfulness(detector, photos.images)
    assert len(found["deletion"]["map"]) == STEPS + 1
    assert found["deletion"]["map_area"] < found["deletion"]["random_area"] - 0.05
    assert found["insertion"]["map_area"] > found["insertion"]["random_area"] + 0.05
    for curve in ("deletion", "insertion"):  # the whole photo, and the whole blur
        for share in ("0", "1"):
            assert found[curve]["map"][share] == found[curve]["random"][share]
    assert found["deletion"]["map"]["0"] == found["insertion"]["map"]["1"]
    assert found["deletion"]["map"]["1"] == found["insertion"]["map"]["0"]


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
    assert texture(grey).tolist() == [[1.0] * len(TEXTURE_STEPS)]
    stripes = grey.clone()
    stripes[:, :, :, ::2] = 0.5 + 0.03  # every step across is 0.03, none down is
    assert texture(stripes)[0].tolist() == [0.5 if step < 0.03 else 1.0 for step in TEXTURE_STEPS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (640, 480), (33, 200)])
def test_drawn_pictures_are_pictures_and_the_same_each_time(kind: str, size: tuple[int, int]) -> None:
    one, same = (KINDS[kind](np.random.default_rng(3), *size) for _ in range(2))
    assert (one.mode, one.size) == ("RGB", size)
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != KINDS[kind](np.random.default_rng(4), *size).tobytes()


@pytest.mark.slow
def test_the_same_params_and_seed_give_the_same_metrics(prepared, trained, workspace) -> None:
    """A second run of everything that can vary, compared to three digits."""
    shutil.copytree(prepared.path, workspace.path, dirs_exist_ok=True)
    again = Workspace(workspace.path / "again")
    shutil.copytree(trained.path, again.path)
    for space, stages in ((workspace, ("train", "export", "evaluate")), (again, ("evaluate",))):
        for stage in stages:
            assert (result := space.run(stage)).returncode == 0, result.stderr
    for report in ("metrics", "assessment"):
        one, other = (json.loads((space.path / f"reports/{report}.json").read_text()) for space in (workspace, again))
        assert leaves(one) == pytest.approx(leaves(other), abs=5e-4)


def leaves(value: Any) -> list[float]:
    """Return the numbers of a nested mapping, in order."""
    if isinstance(value, dict):
        return [number for _, part in sorted(value.items()) for number in leaves(part)]
    return [] if isinstance(value, str) else [float(value)]


def test_the_domain_check_learns_from_other_drawings_than_those_that_check_it() -> None:
    assert not set(OUTLIERS) & set(KINDS.values())
    drawn = outliers(16, 24, seed=1)
    assert (drawn.shape, drawn.dtype) == ((16, 24, 24, 3), np.uint8)
    assert np.array_equal(drawn, outliers(16, 24, seed=1))
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
