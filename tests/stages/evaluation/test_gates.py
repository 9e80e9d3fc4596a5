"""Each gate of a release refuses by name: with the figure, the bound, and where to change it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.models.card import Card
from stages.release import ReleaseParams
from stages.releasing.gates import Gates, Measured, refusals
from tests.stages.conftest import ANYTHING_PASSES
from tests.support import tiny_model

REPO = Path(__file__).resolve().parents[3]
PARAMS = ReleaseParams.model_validate(
    yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))["models"]["cifake"]["release"]
    | {"dataset": "cifake", "min_accuracy": 0.965, "min_class_accuracy": 0.96, "min_auc": 0.99, "max_ece": 0.01,
       "min_recall": 0.8, "max_false_positive_rate_excess": 0, "max_out_of_domain": 0.025,
       "min_accuracy_jpeg_40": 0.949, "min_accuracy_blur_06": 0.859, "min_accuracy_noise_01": 0.94,
       "max_ood_flagged": 0, "min_map_gain": 0, "max_file_mb": 12, "max_accuracy_loss": 0.002}
)  # fmt: skip
CARD = tiny_model.CARD | {"version": "1.1.0", "data": {"dataset": "cifake"}}
_RELEASE = {"validation": {"accuracy": 0.971}, "released_at": "2026-01-01", "metrics": {}, "assessment": {}}
RELEASED = Card.model_validate(CARD | {"version": "1.0.0", "release": _RELEASE})
FIGURES = {
    "accuracy": 0.97, "auc": 0.995, "ece": 0.008, "in_domain_share": 0.98,
    "confusion": {"real": {"real": 97, "ai_generated": 3}, "ai_generated": {"real": 3, "ai_generated": 97}},
    "decisions": {
        "alpha_0.01": {"false_positive_rate": 0.009, "false_positive_rate_at_most": 0.015, "recall": 0.9},
        "alpha_0.001": {"false_positive_rate": 0.001, "false_positive_rate_at_most": 0.0026, "recall": 0.7},
    },
}  # fmt: skip
ASSESSMENT = {
    "robustness": {
        "jpeg": {"40": {"accuracy": 0.956}}, "blur": {"0.6": {"accuracy": 0.956}},
        "noise": {"0.1": {"accuracy": 0.966}},
    },
    "ood": {"text": {"large": {"images": 100, "flagged": 0}, "known_size": {"images": 100, "flagged": 0}}},
    "explanation": {
        "deletion": {"map_area": 0.72, "random_area": 0.84}, "insertion": {"map_area": 0.88, "random_area": 0.84},
    },
}  # fmt: skip


def measured(where: str = "", value: Any = None) -> dict[str, Any]:
    """Return what was measured of a candidate that passes, with the value at a path such as figures/auc replaced."""
    parts = {"card": CARD, "figures": FIGURES, "assessment": ASSESSMENT, "file_mb": 8.5}
    parts = copy.deepcopy(parts)
    if where:
        *path, last = where.split("/")
        place: dict[str, Any] = parts
        for key in path:
            place = place[key]
        place[last] = value
    return parts | {"card": Card.model_validate(parts["card"])}


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("card/data/dataset", "synthetic", "it learned from 'synthetic', and release.dataset is 'cifake'"),
        ("card/version", "1.0.0", "version 1.0.0 is released already: raise export.version"),
        ("file_mb", 12.5, "MB of its file 12.5 > 12 (release.max_file_mb)"),
        ("figures/accuracy", 0.9689,
         "accuracy, beside the released model's, 0.9689 < 0.969 (release.max_accuracy_loss)"),
        ("figures/auc", 0.98, "auc 0.98 < 0.99 (release.min_auc)"),
        ("figures/auc", float("nan"), "auc nan < 0.99 (release.min_auc)"),
        ("figures/ece", 0.0101, "ece 0.0101 > 0.01 (release.max_ece)"),
        ("figures/in_domain_share", 0.97, "share of photos out of domain 0.03 > 0.025 (release.max_out_of_domain)"),
        ("figures/confusion/real/real", 60, "accuracy on 'real' 0.952381 < 0.96 (release.min_class_accuracy)"),
        ("figures/confusion/ai_generated/real", 5,
         "accuracy on 'ai_generated' 0.95098 < 0.96 (release.min_class_accuracy)"),
        ("figures/decisions/alpha_0.01/recall", 0.0,
         "share of AI images flagged 0 < 0.8 (release.min_recall)"),
        ("figures/decisions/alpha_0.001/false_positive_rate", 0.003,
         "share of real photos flagged at alpha 0.001 0.003 > 0.0026 (release.max_false_positive_rate_excess)"),
        ("assessment/robustness/jpeg/40/accuracy", 0.948,
         "accuracy under jpeg 40 0.948 < 0.949 (release.min_accuracy_jpeg_40)"),
        ("assessment/robustness/blur/0.6/accuracy", 0.85,
         "accuracy under blur 0.6 0.85 < 0.859 (release.min_accuracy_blur_06)"),
        ("assessment/robustness/noise/0.1/accuracy", 0.93,
         "accuracy under noise 0.1 0.93 < 0.94 (release.min_accuracy_noise_01)"),
        ("assessment/ood/text/known_size/flagged", 1,
         "pictures flagged from outside (text, known size) 1 > 0 (release.max_ood_flagged)"),
        ("assessment/ood/large_photos", {"images": 9, "flagged": 2},
         "pictures flagged from outside (LARGE_PHOTOS) 2 > 0 (release.max_ood_flagged)"),
        ("assessment/explanation/deletion/map_area", 0.84,
         "the heat map's gain over random masks in deletion 0 <= 0 (release.min_map_gain)"),
        ("assessment/explanation/insertion/map_area", 0.8,
         "the heat map's gain over random masks in insertion -0.04 <= 0 (release.min_map_gain)"),
    ],
)  # fmt: skip
def test_each_gate_refuses_by_name(where: str, value: Any, reason: str) -> None:
    assert refusals(PARAMS, Measured(**measured()), RELEASED) == []
    assert refusals(PARAMS, Measured(**measured(where, value)), RELEASED) == [reason]


def test_all_reasons_come_together() -> None:
    parts = measured("figures/accuracy", 0.96)
    parts["file_mb"] = 20
    assert refusals(PARAMS, Measured(**parts), RELEASED) == [
        "accuracy 0.96 < 0.965 (release.min_accuracy)",
        "MB of its file 20 > 12 (release.max_file_mb)",
        "accuracy, beside the released model's, 0.96 < 0.969 (release.max_accuracy_loss)",
    ]


def test_before_the_first_release_nothing_is_compared() -> None:
    assert refusals(PARAMS, Measured(**measured("figures/accuracy", 0.966))) == []


def test_each_gate_can_be_opened_by_its_param() -> None:
    """As the tests do on the synthetic set: no bound stands in the code alone."""
    assert set(ANYTHING_PASSES) == set(Gates.model_fields)
    gates = PARAMS.model_copy(update=ANYTHING_PASSES | {"dataset": "cifake"})
    parts = measured("figures/accuracy", 0.0)
    parts["figures"] |= {"auc": 0.0, "ece": 1.0, "in_domain_share": 0.0}
    parts["figures"]["decisions"]["alpha_0.001"] |= {"false_positive_rate": 1.0}
    parts["assessment"]["ood"]["text"]["large"]["flagged"] = 100
    parts["assessment"]["explanation"]["insertion"]["map_area"] = 0.0
    assert refusals(gates, Measured(**parts), RELEASED) == []


@pytest.mark.parametrize("name", ["robustness", "ood", "explanation"])
def test_a_gate_without_its_figures_refuses(name: str) -> None:
    parts = measured()
    del parts["assessment"][name]
    reason = f"'{name}' was not measured: add it to evaluate.evaluators and run 'dvc repro'"
    assert refusals(PARAMS, Measured(**parts), RELEASED) == [reason]
