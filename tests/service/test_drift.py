"""Drift: nothing is said of few predictions, false alarms keep their rate, real shifts are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.drift import ALPHA, MINIMUM, DriftMonitor, compare
from service.prediction_log import PredictionLog
from tests.service.test_prediction_log import row, wait_for

Table = dict[str, Any]


def table(rows: int, seed: int, **shift: float) -> Table:
    """Return correlated columns as a model's predictions have them, some of them shifted."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 4, rows) + shift.get("logit", 0)
    brightness = rng.beta(4, 4, rows) + shift.get("brightness", 0)
    contrast = rng.gamma(9, 0.02, rows)
    return {
        "probability": (1 / (1 + np.exp(-logit))).astype(np.float32),
        "distance": rng.chisquare(20, rows).astype(np.float32),
        "brightness": brightness.astype(np.float32),
        "contrast": contrast.astype(np.float32),
        "sharpness": (contrast * rng.uniform(1, 2, rows) * shift.get("sharpness", 1)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    columns = table(10_000, seed=1)
    np.savez(path, label=(columns["probability"] > 0.5).astype(np.uint8), **columns)
    return path


@pytest.mark.parametrize("size", [100, 500])
def test_unchanged_windows_raise_few_alarms(size: int) -> None:
    stable = table(10_000, seed=1)
    alarms = sum(any(column.drifted for column in compare(table(size, seed), stable)) for seed in range(1000, 1400))
    # 400 looks at a rate of 1 %: more than 12 alarms come with a probability below 0.001.
    assert alarms <= 12
    assert sum(column.threshold for column in compare(table(size, 7), stable)) == pytest.approx(ALPHA)


@pytest.mark.parametrize(
    ("shift", "name", "words"),
    [
        ({"logit": 3.0}, "score", "scores lean to AI-generated"),
        ({"brightness": 0.15}, "brightness", "brighter"),
        ({"sharpness": 0.6}, "sharpness", "blurrier"),
    ],
)
def test_a_shift_is_named_in_words(
    tmp_path: Path, reference: Path, shift: dict[str, float], name: str, words: str
) -> None:
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    monitor = DriftMonitor(log, reference, "1.0.0", window=500)
    assert not monitor.detected()
    shifted = table(300, seed=3, **shift)
    log.add([_row(number, shifted) for number in range(MINIMUM - 1)])
    wait_for(lambda: monitor.look()["window_size"] == MINIMUM - 1)
    assert monitor.look()["status"] == "insufficient_data"
    assert monitor.look()["columns"] == []
    assert monitor.look()["estimated_accuracy"] is None
    log.add([_row(number, shifted) for number in range(MINIMUM - 1, 300)])
    wait_for(lambda: monitor.look()["window_size"] == 300)
    found = monitor.look()
    assert found["status"] == "drift"
    assert found["drift_detected"]
    assert [column.name for column in found["columns"] if column.drifted] == [name]
    assert words in found["alerts"][0]
    assert found["drift_score"] == max(column.statistic for column in found["columns"])
    probability = shifted["probability"].astype(float)
    assert found["estimated_accuracy"] == pytest.approx(np.maximum(probability, 1 - probability).mean())
    assert found["prediction_ratio"].ai_generated == pytest.approx((probability >= 0.5).mean())
    assert monitor.detected()
    log.close()


def test_without_a_reference_nothing_is_compared(tmp_path: Path) -> None:
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    plain = table(200, seed=5)
    log.add([_row(number, plain) for number in range(200)])
    monitor = DriftMonitor(log, tmp_path / "reference.npz", "1.0.0", window=150)
    wait_for(lambda: monitor.look()["window_size"] == 150)
    found = monitor.look()
    assert found["status"] == "insufficient_data"
    assert found["reference"] is None
    assert "no reference" in found["alerts"][0]
    assert not found["drift_detected"]
    log.close()


def _row(number: int, columns: Table) -> dict[str, Any]:
    values: dict[str, Any] = {name: float(column[number]) for name, column in columns.items()}
    return row(number, **values, score=values["probability"])
