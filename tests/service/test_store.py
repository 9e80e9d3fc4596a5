"""Models side by side: which one answers, how each is swapped alone, and every fault of a model's folder."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import metrics
from service.http.state import AppState, start_worker
from service.models.card import Card, ModelError, read_card
from service.models.choice import choose, overlap
from service.models.detector import Detector
from service.models.images import boxes
from service.models.store import ModelStore
from service.predict import predict_many, predict_one
from service.settings import ROOT, Settings
from tests.support import tiny_model
from tests.support.photos import BAD, encode, photo

RELEASED = ROOT / "models" / "cifake"
WIDE_INPUT = tiny_model.CARD["input"] | {"width": 48, "height": 24, "resize": "squash"}


def geometry(*limits: int) -> dict[str, Any]:
    """Return a card's part `domain`, from the least and the most width and height."""
    names = ("min_width", "max_width", "min_height", "max_height")
    return tiny_model.CARD["domain"] | {"geometry": dict(zip(names, limits, strict=True))}


WIDE = {"name": "wide", "format": 2, "input": WIDE_INPUT, "domain": geometry(40, 400, 20, 200)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the released model, and a tiny one that takes photos of another shape."""
    folder = tmp_path / "models"
    shutil.copytree(RELEASED, folder / "cifake")
    tiny_model.release(folder / "wide", "1.0.0", **WIDE)
    return folder


@pytest.fixture
def state(models: Path, tmp_path: Path) -> Iterator[AppState]:
    """What the routes of a worker share, with both models."""
    started = start_worker(Settings(models=models, log_url=f"sqlite:///{tmp_path / 'log.db'}", monitor=False))
    yield started
    started.log.close()


def store_of(folder: Path) -> ModelStore:
    return ModelStore(Settings(models=folder, monitor=False))


def sized(*sizes: tuple[int, int]) -> list[tuple[str, bytes]]:
    return [(f"{width}x{height}.png", encode(photo(width, height, seed=width))) for width, height in sizes]


def test_one_batch_gets_the_answers_of_two_models(state: AppState) -> None:
    batch = [*sized((32, 32), (100, 50)), ("bad.txt", BAD["text"][0]), *sized((33, 33), (300, 30))]
    answer = predict_many(batch, "one", state.in_force(), state)
    assert [item.model for item in answer.results] == ["cifake", "wide", None, "cifake", "wide"]
    assert [item.filename for item in answer.results] == [name for name, _ in batch]
    assert [item.domain.geometry for item in answer.results if item.domain] == [True, True, False, True]
    assert (answer.model, answer.model_version) == ("cifake", read_card(RELEASED).version)
    assert answer.results[1].model_version == "1.0.0"
    assert answer.failed == 1
    for item, (_, data) in zip(answer.results, batch, strict=True):
        if item.error is None:
            alone = predict_one(data, "x", state.in_force(), state)
            assert (item.model, item.model_version, item.decision) == (
                alone.model, alone.model_version, alone.decision,
            )  # fmt: skip
            assert item.probability == pytest.approx(alone.probability, abs=2e-6)
    assert metrics.total("aidetect_predictions_total", model="wide", status="success") > 0


def test_each_model_is_swapped_alone(models: Path) -> None:
    store = store_of(models)
    cifake, wide = store.models["cifake"], store.models["wide"]
    done = metrics.total("aidetect_model_swaps_total", model="wide", result="done")
    store.update(settled=0.0)
    assert store.models == {"cifake": cifake, "wide": wide}
    tiny_model.release(models / "wide", "2.0.0", **WIDE)
    store.update()
    assert store.models["wide"] is wide  # not yet: the files may still be written
    store.update(settled=1e-9)
    assert store.models["cifake"] is cifake
    assert store.models["wide"].version == "2.0.0"
    assert metrics.total("aidetect_model_swaps_total", model="wide", result="done") == done + 1


def test_a_folder_that_vanishes_for_a_moment_changes_nothing(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of(models)
    before = dict(store.models)
    (models / "wide").rename(models / ".wide")
    store.update()
    (models / ".wide").rename(models / "wide")
    store.update(settled=1e-9)
    assert store.models == before
    assert not store.refused
    assert not caplog.records


def test_a_folder_that_is_gone_leaves_its_model_in_service(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of(models)
    wide = store.models["wide"]
    shutil.rmtree(models / "wide")
    for _ in range(3):
        store.update(settled=1e-9)
    assert store.models["wide"] is wide
    (line,) = (record.getMessage() for record in caplog.records)
    assert "not found" in line
    assert "wide 1.0.0 stays in service" in line
    tiny_model.release(models / "wide", "1.0.0", **WIDE)
    store.update(settled=1e-9)
    assert not store.refused


def test_a_model_that_appears_joins(models: Path) -> None:
    store = store_of(models)
    tiny_model.release(models / "large", "1.0.0", **WIDE | {"name": "large", "domain": geometry(500, 4000, 500, 4000)})
    (models / "notes").mkdir()
    store.update(settled=1e-9)
    assert list(store.models) == ["cifake", "large", "wide"]
    assert not store.refused


def no_card(folder: Path) -> None:
    (folder / "card.json").unlink()


def another_models_card(folder: Path) -> None:
    tiny_model.release(folder, "1.0.0", **WIDE | {"name": "narrow"})


def another_cards_name(folder: Path) -> None:
    card = read_card(folder)
    (folder / "card.json").write_text(card.model_copy(update={"version": "9.9.9"}).to_json())


def damaged_card(folder: Path) -> None:
    (folder / "card.json").write_text("{")


def damaged_file(folder: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def damaged_file_of_that_digest(folder: Path) -> None:
    damaged_file(folder)
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(read_card(folder).model_copy(update={"sha256": digest}).to_json())


def the_same_sizes(folder: Path) -> None:
    tiny_model.release(folder, "1.0.0", **WIDE | {"domain": geometry(32, 40, 30, 32)})


def no_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


FAULTS = {
    no_card: "holds no card.json",
    another_models_card: "is the card of narrow: name the folder narrow, or put wide's card there",
    another_cards_name: "is wide 1.0.0, and",
    damaged_card: "is damaged",
    damaged_file: "put both files of one release there",
    damaged_file_of_that_digest: "is truncated or no ONNX model",
    the_same_sizes: "claims sizes of photos that cifake claims too",
    no_model: "not found",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("when", ["at the start", "while serving"])
def test_a_fault_is_one_line_and_the_others_stay(
    models: Path, fault: Any, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    if when == "at the start":
        fault(models / "wide")
        store = store_of(models)
        assert list(store.models) == ["cifake"]
    else:
        store = store_of(models)
        before = dict(store.models)
        fault(models / "wide")
        store.update(settled=1e-9)
        assert store.models == before
    store.update(settled=1e-9)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert FAULTS[fault] in line
    assert str(models / "wide") in line
    assert "\n" not in line
    assert store.refused == {"wide": store.refused["wide"]}
    assert metrics.total("aidetect_model_loaded", model="cifake") == 1
    assert metrics.total("aidetect_model_loaded", model="wide") == ("wide" in store.models)
    shutil.rmtree(models / "wide")
    tiny_model.release(models / "wide", "3.0.0", **WIDE)
    store.update(settled=1e-9)
    assert store.models["wide"].version == "3.0.0"
    assert not store.refused
    assert metrics.total("aidetect_model_loaded", model="wide") == 1


@pytest.mark.parametrize(
    ("kind", "says"), [("file", "is a file"), ("missing", "does not exist"), ("empty", "no model")]
)
def test_models_that_is_no_folder_of_models_is_one_line(
    tmp_path: Path, models: Path, kind: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    elif kind == "empty":
        (place / "notes").mkdir(parents=True)
    store = store_of(place)
    store.update(settled=1e-9)
    assert not store.models
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"MODELS={place} ")
    assert says in line
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    models.rename(place)
    store.update(settled=1e-9)
    assert list(store.models) == ["cifake", "wide"]
    assert not store.refused
    place.rename(models)
    store.update(settled=1e-9)
    assert list(store.models) == ["cifake", "wide"]


@pytest.mark.parametrize("named", ["file", "folder", "bare file", "link"])
def test_the_setting_of_before_serves_that_model_alone(
    tmp_path: Path, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_model.release(tmp_path / "deploy" / "1.0.0", "1.0.0")
    (tmp_path / "deploy" / "current").symlink_to(folder)
    paths = {"file": folder / "model.onnx", "folder": folder, "link": tmp_path / "deploy" / "current" / "model.onnx"}
    paths["bare file"] = tiny_model.build(tmp_path / "mine.onnx")
    store = ModelStore(Settings(model_path=paths[named], monitor=False))
    assert list(store.models) == ["cifake"]
    assert (store.models["cifake"].card.release is None) == (named == "bare file")
    (line,) = (record.getMessage() for record in caplog.records)
    assert "MODELS" in line


def test_a_fault_of_a_photo_in_one_model_is_that_photos(state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Detector.score

    def score(self: Detector, pixels: Any) -> Any:
        if self.name == "wide":
            raise FloatingPointError("no number")
        return whole(self, pixels)

    monkeypatch.setattr(Detector, "score", score)
    answer = predict_many(sized((32, 32), (100, 50), (30, 30), (120, 60)), "one", state.in_force(), state)
    assert [item.error_type for item in answer.results] == [None, "internal_error", None, "internal_error"]


SIDES = st.integers(1, 10_000)
RANGES = st.tuples(SIDES, SIDES).map(sorted)


def card_of(across: list[int], down: list[int]) -> Card:
    return Card.model_validate(tiny_model.CARD | {"domain": geometry(*across, *down)})


@given(st.lists(st.tuples(RANGES, RANGES), min_size=1, max_size=4), SIDES, SIDES)
def test_the_model_that_knows_a_size_is_chosen(ranges: list[Any], width: int, height: int) -> None:
    cards = {f"m{place}": card_of(*each) for place, each in enumerate(ranges)}

    def knows(card: Card) -> bool:
        known = card.domain.geometry
        return known.min_width <= width <= known.max_width and known.min_height <= height <= known.max_height

    chosen = choose(cards, width, height)
    assert chosen == choose(dict(reversed(cards.items())), width, height)
    if knowing := [name for name, card in cards.items() if knows(card)]:
        assert chosen == knowing[0]
    one, other = (card.domain.geometry for card in (cards["m0"], list(cards.values())[-1]))
    assert overlap(one, other) == overlap(other, one)
    if knows(cards["m0"]) and knows(list(cards.values())[-1]):
        assert overlap(one, other)


def test_a_newcomer_does_not_take_the_place_of_a_model_that_knows_the_same_sizes(models: Path) -> None:
    store = store_of(models)
    served = dict(store.models)
    tiny_model.release(models / "aaa", "1.0.0", **WIDE | {"name": "aaa"})
    store.update(settled=0)
    assert store.models == served
    assert "claims sizes of photos that wide claims too" in store.refused["aaa"]
    assert list(store_of(models).models) == ["aaa", "cifake"]  # at a start the order of names decides


@pytest.mark.parametrize(("changed", "other"), [("aaa", "wide"), ("wide", "aaa")])
def test_new_files_that_claim_the_sizes_of_another_model_change_nothing(models: Path, changed: str, other: str) -> None:
    cards = {"wide": WIDE, "aaa": WIDE | {"name": "aaa", "domain": geometry(500, 600, 500, 600)}}
    tiny_model.release(models / "aaa", "1.0.0", **cards["aaa"])
    store = store_of(models)
    served = dict(store.models)
    tiny_model.release(models / changed, "2.0.0", **cards[changed] | {"domain": cards[other]["domain"]})
    for _ in range(2):
        store.update(settled=1e-9)
        assert store.models == served
        assert f"claims sizes of photos that {other} claims too" in store.refused[changed]
    tiny_model.release(models / changed, "3.0.0", **cards[changed])
    store.update(settled=1e-9)
    assert store.models[changed].version == "3.0.0"
    assert store.models[other] is served[other]
    assert not store.refused


def test_an_unknown_size_goes_to_the_nearest() -> None:
    cards = {"small": card_of([32, 32], [32, 32]), "large": card_of([512, 512], [512, 512])}
    assert choose(cards, 64, 64) == "small"
    assert choose(cards, 256, 256) == "large"
    assert choose(cards, 128, 128) == "large"  # as near: the first by name
    with pytest.raises(ValueError, match="empty"):
        choose({}, 1, 1)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "models").glob("*/card.json")))
def test_every_model_of_the_repository_serves(name: str) -> None:
    folder = ROOT / "models" / name
    detector = Detector(folder)
    card = detector.card
    assert card.name == name
    assert card.release is not None
    assert card.of_file == read_card(folder / "model.onnx").of_file
    known = card.domain.geometry
    size = (known.min_width, known.max_height)
    scores = detector.score(np.stack([detector.prepare(photo(*size))] * 2))
    assert np.isfinite(scores.probability).all()
    assert len(boxes(*size, card.input)) == card.input.views
    printed = subprocess.run(
        [sys.executable, "-m", "service.models.card", folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert Card.model_validate(json.loads(printed.stdout)) == card


def test_a_folder_whose_card_names_no_digest_is_refused(tmp_path: Path) -> None:
    folder = tiny_model.release(tmp_path / "wide", "1.0.0", **WIDE)
    (folder / "card.json").write_text(read_card(folder).model_copy(update={"sha256": None}).to_json())
    with pytest.raises(ModelError, match="names none"):
        Detector(folder)


def test_the_pixels_are_those_of_the_photo(models: Path) -> None:
    detector = Detector(models / "wide")
    whole = Image.new("RGB", (100, 50), (10, 20, 30))
    assert detector.prepare(whole).shape == (24, 48, 3)
