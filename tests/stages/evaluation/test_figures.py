"""Accuracy, calibration and decisions, by hand."""

import numpy as np
import pytest

from service.models.card import Card
from stages.evaluation.figures import calibration_error, figures, flag_bound
from stages.evaluation.scoring import Scored
from tests.support import tiny_model


def test_calibration_error_by_hand() -> None:
    labels = np.array([1, 0, 1, 1], np.uint8)
    assert calibration_error(labels, np.array([0.95, 0.05, 0.95, 0.95])) == pytest.approx(0.05)
    assert calibration_error(labels, np.array([1.0, 0.0, 1.0, 1.0])) == 0.0
    assert calibration_error(np.array([1, 0], np.uint8), np.array([0.5, 0.5])) == 0.0


def test_figures_by_hand() -> None:
    card = Card.model_validate(tiny_model.CARD | {"thresholds": {"flag": {"0.01": 0.8}, "clear": 0.3}})
    outside = card.domain.threshold + 1
    scores = Scored(
        np.array([0, 0, 0, 1, 1, 1], np.uint8),
        np.array([0.1, 0.4, 0.9, 0.2, 0.7, 0.95]),
        np.array([0, 0, 0, 0, 0, outside]),
        np.zeros((6, 2), np.float32),
    )
    result = figures(scores, card)
    assert result["accuracy"] == pytest.approx(4 / 6, abs=1e-6)
    assert result["auc"] == pytest.approx(6 / 9, abs=1e-6)
    assert result["confusion"]["real"] == {"real": 2, "ai_generated": 1}
    assert result["in_domain_share"] == pytest.approx(5 / 6)
    decisions = result["decisions"]["alpha_0.01"]
    assert decisions["false_positive_rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert decisions["recall"] == 0.0  # the one above the threshold is out of domain
    assert decisions["miss_rate"] == pytest.approx(1 / 3, abs=1e-6)
    assert decisions["review_rate"] == pytest.approx(3 / 6, abs=1e-6)


def test_the_bound_on_false_accusations_by_hand() -> None:
    assert flag_bound(0.01, 3000, 10_000) == pytest.approx(0.01 + 1.96 * (0.0099 * (1 / 3000 + 1e-4)) ** 0.5)
