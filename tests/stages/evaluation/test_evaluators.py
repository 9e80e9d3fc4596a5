"""Evaluators are found by name, and have one interface."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import stages.evaluation
from service.models.detector import Detector
from stages.data.image_sets import ImageSet
from stages.evaluation.runner import evaluate, find, names
from stages.evaluation.scoring import score
from stages.evaluation.types import EvaluationParams
from tests.stages.evaluation.conftest import MakeData

ALL = ("figures", "flag_precision", "slices", "robustness", "ood", "explanation")


@pytest.mark.parametrize("name", names())
def test_figures_are_json_and_pictures_lie_in_the_folder_for_plots(
    detector: Detector, make_data: MakeData, tmp_path: Path, name: str
) -> None:
    data = make_data()
    before = data.scores.probability.copy()
    found = find(name)(detector, data)
    assert found
    for number in numbers(json.loads(json.dumps(found))):
        assert math.isfinite(number)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".png"}
    assert np.array_equal(before, data.scores.probability)


def numbers(value: Any) -> list[float]:
    """Return the numbers of a nested mapping."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [] if isinstance(value, str) else [float(value)]


def test_your_own_photos_are_told_apart(detector: Detector, photos: ImageSet, tmp_path: Path) -> None:
    own = np.arange(len(photos)) < 50
    mixed = ImageSet(photos.images, photos.labels, {"own": own.astype(np.uint8)})
    params = EvaluationParams(evaluators=("figures", "slices"), robustness_images=20, explained_images=1, ood_images=1)
    scores = score(detector, mixed, "photos")
    one_class = own & (photos.labels == 1)
    selections = {"validation": ~own, "own_photos": own, "of one class": one_class}
    found = evaluate(detector, mixed, scores, selections, params, plots=tmp_path, seed=0)
    assert {name: each["images"] for name, each in found["figures"].items()} == {"validation": 70, "own_photos": 50}
    assert sum(part["images"] for part in found["slices"]["brightness"].values()) == 70
    assert found["figures"]["validation"]["auc"] == round(found["figures"]["validation"]["auc"], 6)


def test_an_unknown_name_is_one_line_that_lists_the_known() -> None:
    assert set(names()) == set(ALL)
    for wrong in ("colour", "scoring", "gates", "Figures", "__init__", "types"):
        with pytest.raises(ValidationError, match=rf"no evaluator is called '{wrong}'; there are explanation, figures"):
            EvaluationParams(evaluators=("figures", wrong), robustness_images=20, explained_images=1, ood_images=1)
    with pytest.raises(ValidationError, match="'figures' must be among them"):
        EvaluationParams(evaluators=("slices",), robustness_images=20, explained_images=1, ood_images=1)


def test_a_new_evaluator_is_one_file_and_one_name(
    detector: Detector, make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "confidence.py").write_text(
        "class Evaluator:\n"
        "    name = 'confidence'\n\n"
        "    def __call__(self, detector, data):\n"
        "        return {'mean': float(abs(data.scores.probability - 0.5).mean())}\n"
    )
    monkeypatch.setattr(stages.evaluation, "__path__", [*stages.evaluation.__path__, str(tmp_path)])
    params = EvaluationParams(
        evaluators=("figures", "confidence"), robustness_images=20, explained_images=1, ood_images=1
    )
    data = make_data()
    found = evaluate(detector, data.images, data.scores, {}, params, plots=tmp_path, seed=0)
    assert 0 < found["confidence"]["mean"] < 0.5
