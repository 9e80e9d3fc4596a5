"""How often a flag is right, by Bayes' rule and by hand."""

import numpy as np
import pytest

from service.models.card import Card
from stages.evaluation.flag_precision import flag_precision
from stages.evaluation.scoring import Scored
from tests.support import tiny_model


def test_the_precision_of_a_flag_by_hand() -> None:
    thresholds = {"flag": {"0.01": 0.6}, "clear": 0.2}
    card = Card.model_validate(tiny_model.CARD | {"thresholds": thresholds})
    labels = np.repeat(np.array([0, 1], np.uint8), 1000)
    probability = np.repeat([0.1, 0.999, 0.1, 0.999], [990, 10, 500, 500])
    scores = Scored(labels, probability, np.zeros(2000), np.zeros((2000, 2), np.float32))
    found = flag_precision(scores, card, 0.01)
    for prior in (0.01, 0.05, 0.5):
        row = found[f"prior_{prior:g}"]
        precision = prior * 0.5 / (prior * 0.5 + (1 - prior) * 0.01)
        assert row["precision"] == row["precision_with_ai_prior_0.5"] == pytest.approx(precision, abs=1e-6)
        assert row["precision_at_least"] < precision
    # 10 of 1,000: Clopper and Pearson's 95 % interval ends at 1.83 %.
    assert found["prior_0.5"]["precision_at_least"] == pytest.approx(0.5 / (0.5 + 0.01831), abs=1e-4)
    probability[-500:] = probability[990:1000] = 0.9  # under a prior of 1 % that is below one half: no flag
    found = flag_precision(scores, card, 0.01)
    assert found["prior_0.01"]["recall"] == 0.0
    assert "precision" not in found["prior_0.01"]
    assert found["prior_0.01"]["precision_with_ai_prior_0.5"] > 0.3
    assert found["prior_0.01"]["review_rate"] > 0.009
