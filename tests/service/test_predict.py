"""Whatever one file does, the others of its batch get their answers."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import metrics, predict
from service.http.state import AppState, start_worker
from service.models.detector import Detector, Scores
from service.models.images import Uint8
from service.photo import Photo, decode
from service.predict import OUR_FAULT, predict_many, predict_one
from service.settings import Settings
from tests.support.photos import GOOD, encode, photo, with_chunk
from tests.support.tiny_model import CARD, build

POISON = encode(photo(seed=7))
BATCH = [("a.png", GOOD["png"]), ("odd.png", POISON), ("b.jpg", GOOD["jpeg"])]


@pytest.fixture
def state(tiny: Path, tmp_path: Path) -> Iterator[AppState]:
    """A worker's state without its HTTP, on a tiny model."""
    log = f"sqlite:///{tmp_path / 'log.db'}"
    started = start_worker(Settings(model_path=tiny, log_url=log, monitor=False))
    yield started
    started.log.close()


def refused(kind: str) -> float:
    return metrics.total("aidetect_image_validation_errors_total", error_type=kind)


def test_an_unexpected_failure_is_its_items_error(
    state: AppState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(data: bytes, **options: Any) -> Photo:
        if data == POISON:
            raise IndexError("what nobody thought of")
        return decode(data, **options)

    monkeypatch.setattr(predict, "decode", read)
    before = refused(OUR_FAULT)
    with caplog.at_level(logging.ERROR):
        answer = predict_many(BATCH, "one", state.in_force(), state)
    assert [item.error_type for item in answer.results] == [None, OUR_FAULT, None]
    assert (answer.successful, answer.failed) == (2, 1)
    assert answer.results[2].probability is not None
    assert refused(OUR_FAULT) == before + 1
    assert "photo one:1 could not be processed" in caplog.text
    assert "what nobody thought of" in caplog.text
    with pytest.raises(IndexError):
        predict_one(POISON, "two", state.in_force(), state)
    assert refused(OUR_FAULT) == before + 2


def test_a_photo_that_the_model_fails_on_fails_alone(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = state.models()["cifake"]
    odd, whole = detector.prepare(decode(POISON).image), Detector.score

    def score(self: Detector, images: Uint8) -> Scores:
        if any(np.array_equal(image, odd) for image in images):
            raise FloatingPointError("no number")
        return whole(self, images)

    monkeypatch.setattr(Detector, "score", score)
    counted = metrics.total("aidetect_predictions_total", status="success")
    answer = predict_many(BATCH, "one", state.in_force(), state)
    assert [item.error_type for item in answer.results] == [None, OUR_FAULT, None]
    assert metrics.total("aidetect_predictions_total", status="success") == counted + 2
    assert answer.total_inference_time_ms > 0


def test_a_lossless_jpeg_is_answered_among_others(state: AppState) -> None:
    """It was a 500, and took its batch along."""
    batch = [("a.png", GOOD["png"]), ("odd.jpg", GOOD["lossless_jpeg"])]
    answer = predict_many(batch, "one", state.in_force(), state)
    assert answer.failed == 0


def test_a_mark_sends_to_a_person_where_that_is_asked(tmp_path: Path) -> None:
    card = CARD | {"domain": CARD["domain"] | {"threshold": 1000.0}}
    model = build(tmp_path / "model.onnx", card)
    said = {}
    for marks in ("show", "review"):
        log = f"sqlite:///{tmp_path / marks}.db"
        state = start_worker(Settings(model_path=model, log_url=log, monitor=False, ai_marks=marks))
        models = state.in_force()
        answers = (predict_one(encode(photo(seed=seed)), "x", models, state) for seed in range(200))
        seed = next(seed for seed, answer in enumerate(answers) if answer.decision == "clear")
        marked = with_chunk(encode(photo(seed=seed)), b"tEXt", b"parameters\0a shoe, Steps: 2, Sampler: Euler")
        answer = predict_one(marked, "x", models, state)
        assert answer.provenance.trust == "claimed"
        said[marks] = (answer.decision, answer.decided_by)
        state.log.close()
    assert said == {"show": ("clear", "pixels"), "review": ("review", "mark")}
