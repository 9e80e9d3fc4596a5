"""From a probability to a decision."""

import itertools

import pytest

from service.models import decision
from service.models.card import Card
from service.models.decision import Thresholds, decide
from tests.support import tiny_model

CARD = Card.model_validate(tiny_model.CARD)
LIMITS = Thresholds(flag=0.8, clear=0.2)


@pytest.mark.parametrize(
    ("probability", "in_domain", "limits", "expected"),
    [
        (0.8, True, LIMITS, "flag"),
        (0.7999, True, LIMITS, "review"),
        (0.99, False, LIMITS, "review"),
        (0.2, True, LIMITS, "review"),
        (0.1999, True, LIMITS, "clear"),
        (0.0, False, LIMITS, "review"),
        (0.4, True, Thresholds(flag=0.3, clear=0.2), "review"),  # never flagged below 0.5
        (0.5, True, Thresholds(flag=0.3, clear=0.2), "flag"),
        (0.5, True, Thresholds(flag=0.9, clear=0.7), "review"),  # never cleared from 0.5 on
        (0.4999, True, Thresholds(flag=0.9, clear=0.7), "clear"),
    ],
)
def test_decide(probability: float, in_domain: bool, limits: Thresholds, expected: str) -> None:
    assert decide(probability, in_domain, limits) == expected


def test_shift_prior_is_bayes_rule() -> None:
    # 1 % AI images, likelihood ratio 9 : 1 -> odds 9/99
    assert decision.shift_prior(0.9, 0.01) == pytest.approx(9 / 108)
    assert decision.shift_prior(0.9, 0.5) == 0.9
    assert decision.shift_prior(decision.shift_prior(0.37, 0.01), 0.5, base=0.01) == pytest.approx(0.37)
    assert [decision.shift_prior(p, 0.01) for p in (0.0, 1.0)] == [0, 1]
    shifted = [decision.shift_prior(p / 100, 0.2) for p in range(101)]
    assert all(low < high for low, high in itertools.pairwise(shifted))


def test_a_moved_threshold_keeps_its_photos() -> None:
    plain = decision.thresholds(CARD, 0.01, 0.5)
    moved = decision.thresholds(CARD, 0.01, 0.9)
    assert (plain.flag, plain.clear) == (0.8, 0.2)
    for percent in range(1, 100):
        probability = percent / 100
        shifted = decision.shift_prior(probability, 0.9)
        assert (shifted >= moved.flag) == (probability >= plain.flag)
        assert (shifted < moved.clear) == (probability < plain.clear)


def test_domain_reports_its_two_halves_apart() -> None:
    assert decision.domain(CARD, 6.0, 32, 32) == decision.Domain(embedding=True, geometry=True)
    assert decision.domain(CARD, 6.1, 32, 32) == decision.Domain(embedding=False, geometry=True)
    assert decision.domain(CARD, 1.0, 33, 32) == decision.Domain(embedding=True, geometry=False)
    assert not decision.domain(CARD, 1.0, 32, 31).inside


def test_confidence_and_label() -> None:
    assert [decision.confidence(p, True) for p in (0.0, 0.19, 0.25, 0.5, 0.69, 0.75, 0.8731)] == [
        "high",
        "high",
        "medium",
        "low",
        "low",
        "medium",
        "high",
    ]
    assert {decision.confidence(p, False) for p in (0.0, 0.5, 0.75, 0.999)} == {"low"}
    assert [decision.predict(p) for p in (0.4999, 0.5)] == ["real", "ai_generated"]
