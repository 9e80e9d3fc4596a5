"""A shop's own thresholds in service: in force, chosen by group, replaced while serving, and the file's faults."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from service import metrics
from service.http.errors import ApiError
from service.http.state import AppState, start_worker
from service.models.card import Card, read_card
from service.models.detector import Detector
from service.models.shop import in_force, read_calibration
from service.models.store import CALIBRATION, ModelStore
from service.predict import predict_many, predict_one
from service.settings import Settings
from tests.support import tiny_model
from tests.support.http import in_process, is_error
from tests.support.photos import GOOD, encode, photo
from tests.support.shops import calibration_of, write_calibration
from tests.support.waiting import wait_for

NEW = {"format": 2, "input": tiny_model.CARD["input"] | {"resize": "squash"}}
WIDE = NEW | {
    "name": "wide",
    "domain": tiny_model.CARD["domain"]
    | {"threshold": 1e9, "geometry": {"min_width": 40, "max_width": 400, "min_height": 20, "max_height": 200}},
}
PHOTO = encode(photo(100, 50, seed=3))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two tiny models, for photos of different sizes."""
    for name, more in (("cifake", NEW | {"name": "cifake"}), ("wide", WIDE)):
        tiny_model.release(tmp_path / "models" / name, "1.0.0", **more)
    return tmp_path / "models"


@pytest.fixture
def card(models: Path) -> Card:
    """The card of the model that the shop's calibration belongs to."""
    return read_card(models / "wide")


@pytest.fixture
def file(card: Card, tmp_path: Path) -> Path:
    """The shop's calibration: nothing is flagged, but for the groups `shoes` and `worn`."""
    return write_calibration(tmp_path / "shop.json", calibration_of(card, 1.000001, {"shoes": 0.0, "worn": 0.3}))


@pytest.fixture
def state(models: Path, file: Path, tmp_path: Path) -> Iterator[AppState]:
    """What the routes of a worker share."""
    log = f"sqlite:///{tmp_path / 'log.db'}"
    started = start_worker(Settings(models=models, calibration=file, log_url=log, monitor=False, alpha=0.05))
    yield started
    started.log.close()


def store_of(models: Path, file: Path, alpha: float = 0.05) -> ModelStore:
    return ModelStore(Settings(models=models, calibration=file, monitor=False, alpha=alpha))


def test_the_shops_thresholds_decide_for_its_model_alone(state: AppState, models: Path) -> None:
    released, deciding = Detector(models / "wide", alpha=0.05), state.in_force()
    assert (deciding["wide"].calibration, deciding["cifake"].calibration) == ("shop", "released")
    assert deciding["wide"].detector.thresholds.flag == pytest.approx(1.000001)
    assert deciding["wide"].detector.thresholds.clear == released.thresholds.clear
    assert deciding["wide"].upper == 0.1
    assert state.store.models["wide"].thresholds == released.thresholds, "the model itself stays as it is"
    assert state.in_force("shoes")["wide"].detector.thresholds.flag == 0
    assert state.in_force("hats")["wide"].detector.thresholds.flag == 0.99, "small groups share the rest's"
    assert state.in_force("hats")["cifake"].calibration == "released"


def test_answers_and_log_say_whose_thresholds_decided(state: AppState, tmp_path: Path) -> None:
    high = next(
        data
        for data in (
            encode(Image.new("RGB", (100, 50), colour)) for colour in ("red", "lime", "blue", "yellow", "white")
        )
        if predict_one(data, "tried", state.in_force(), state).probability >= 0.5
    )
    never, always = (predict_one(high, name, state.in_force(name), state) for name in ("hats", "shoes"))
    assert (never.decision, always.decision) == ("review", "flag")
    assert (never.calibration, always.calibration) == ("shop", "shop")
    batch = predict_many([("a", PHOTO), ("b", GOOD["png"])], "many", state.in_force(), state)
    assert [item.calibration for item in batch.results] == ["shop", "released"]
    state.log.close()
    with create_engine(f"sqlite:///{tmp_path / 'log.db'}").connect() as connection:
        query = text("select request_id, calibration, shop_group, flag_threshold from predictions "
                     "where request_id != 'tried' order by request_id")  # fmt: skip
        rows = connection.execute(query).fetchall()
    assert [tuple(row)[:3] for row in rows] == [
        ("hats", "shop", "hats"), ("many:0", "shop", None), ("many:1", "released", None), ("shoes", "shop", "shoes"),
    ]  # fmt: skip
    assert [row.flag_threshold for row in rows] == pytest.approx([0.99, 1.000001, 0.7, 0])


@pytest.mark.parametrize("prior", [0.01, 0.5, 0.9])
def test_a_promise_holds_whatever_the_prior(models: Path, card: Card, prior: float) -> None:
    """A threshold and the probabilities that it is compared with move by the same rule."""
    detector = Detector(models / "wide", ai_prior=prior)
    by = in_force(detector, calibration_of(card, 0.9))
    assert by.detector.reported(0.91) > by.detector.thresholds.flag > by.detector.reported(0.89)
    never = in_force(detector, calibration_of(card, 1.000001))
    assert never.detector.reported(1) < never.detector.thresholds.flag


def test_a_group_with_too_few_products_for_alpha_gets_the_whole_shops(models: Path, card: Card) -> None:
    shop = calibration_of(card, 0.9, {"shoes": 0.4})
    few = shop.groups["shoes"].model_copy(update={"promises": {0.05: shop.groups["shoes"].promises[0.05]}})
    shop = shop.model_copy(update={"groups": {"shoes": few}})
    flags = [in_force(Detector(models / "wide", alpha=alpha), shop, "shoes").detector.thresholds.flag
             for alpha in (0.05, 0.01)]  # fmt: skip
    assert flags == pytest.approx([0.4, 0.9])


@pytest.mark.parametrize("group", ["socks", "SHOES"])
def test_a_group_that_nobody_calibrated_is_refused(state: AppState, group: str) -> None:
    with pytest.raises(ApiError, match="name one of bags, hats, shoes, worn, or none") as error:
        state.in_force(group)
    assert (error.value.status_code, error.value.error) == (404, "unknown_group")


def test_a_new_file_takes_over_and_a_bad_one_does_not(
    models: Path, file: Path, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(models, file)
    first = store.shop
    assert first is not None
    assert not store.refused
    assert metrics.total("aidetect_model_loaded", model=CALIBRATION) == 1
    done = metrics.total("aidetect_model_swaps_total", model=CALIBRATION, result="done")
    write_calibration(file, calibration_of(card, 0.6))
    store.update()
    assert store.shop is first, "not yet: the file may still be written"
    store.update(settled=1e-9)
    second = store.shop
    assert second is not None
    assert second.shop.promises[0.05].flag == 0.6
    assert metrics.total("aidetect_model_swaps_total", model=CALIBRATION, result="done") == done + 1
    caplog.clear()
    file.write_text("{")
    for _ in range(3):
        store.update(settled=1e-9)
    assert store.shop is second
    assert set(store.refused) == {CALIBRATION}
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "is damaged or no calibration" in said
    assert f"that of {second.made_at} stays in service" in said
    file.unlink()
    store.update(settled=1e-9)
    assert store.shop is second
    assert "cannot be read" in store.refused[CALIBRATION]
    write_calibration(file, second)
    store.update(settled=1e-9)
    assert not store.refused
    assert metrics.total("aidetect_model_loaded", model=CALIBRATION) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": "0" * 64}, "serves: run 'python -m tools.calibrate' again with this"),
        ({"model": "photos"}, "it is for photos, and no such model is in service"),
    ],
)
def test_the_file_of_another_model_is_refused(
    models: Path, file: Path, change: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = read_calibration(file).model_copy(update=change)
    store = store_of(models, file)
    first = store.shop
    write_calibration(file, other)
    store.update(settled=1e-9)
    assert store.shop is first
    assert said in store.refused[CALIBRATION]
    caplog.clear()
    fresh = store_of(models, file)
    assert fresh.shop is None
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said in line
    assert "the thresholds of the models' cards decide" in line
    assert metrics.total("aidetect_model_loaded", model=CALIBRATION) == 0


def test_an_alpha_that_is_not_promised_is_refused(models: Path, file: Path) -> None:
    store = store_of(models, file, alpha=0.001)
    assert store.shop is None
    assert "promises nothing at ALPHA=0.001 (999 products are needed, it has 300)" in store.refused[CALIBRATION]


def test_a_new_version_of_the_model_ends_the_promise(models: Path, file: Path, card: Card) -> None:
    store = store_of(models, file)
    assert store.shop is not None
    tiny_model.release(models / "wide", "2.0.0", **WIDE)
    for _ in range(2):
        store.update(settled=1e-9)
    assert store.models["wide"].version == "2.0.0"
    assert store.shop is None
    assert "run 'python -m tools.calibrate' again with this version" in store.refused[CALIBRATION]
    assert in_force(store.models["wide"], calibration_of(card, 0.6)).calibration == "released"


def test_over_http(models: Path, file: Path, tmp_path: Path) -> None:
    with in_process(tmp_path, models=models, calibration=file, alpha=0.05) as client:
        for route in ("/predict", "/predict/explain"):
            answer = client.post(route, files={"file": PHOTO}, data={"group": "shoes"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["calibration"] == "shop"
        answer = client.post("/predict/batch", files=[("files", PHOTO)], data={"group": "hats"})
        assert [item["calibration"] for item in answer.json()["results"]] == ["shop"]
        for route, field in (("/predict", "file"), ("/predict/batch", "files")):
            refused = client.post(route, files={field: PHOTO}, data={"group": "socks"})
            assert is_error(refused, 404, "unknown_group")
        model = client.get("/model").json()
        found = {each["name"]: each["thresholds"] for each in model["models"]}
        assert (found["cifake"]["calibration"], found["cifake"]["shop"]) == ("released", None)
        assert found["wide"]["calibration"] == "shop"
        assert found["wide"]["shop"] == {
            "flag": 1.000001, "upper": 0.1, "photos": 300, "products": 300, "made_at": "2026-11-30T12:00:00+00:00",
            "recall": 0.9, "out_of_domain": 0.02,
            "groups": {
                "bags": {"flag": 0.99, "upper": 0.1, "photos": 100, "products": 100},
                "hats": {"flag": 0.99, "upper": 0.1, "photos": 100, "products": 100},
                "shoes": {"flag": 0.0, "upper": 0.1, "photos": 300, "products": 300},
                "worn": {"flag": 0.3, "upper": 0.1, "photos": 300, "products": 300},
            },
        }  # fmt: skip
        told = client.post("/predict", files={"file": PHOTO}, data={"group": "worn"}).json()
        wait_for(lambda: client.get(f"/predictions/{told['request_id']}").status_code == 200)
        earlier = client.get(f"/predictions/{told['request_id']}").json()
        assert (earlier["calibration"], earlier["group"], earlier["flag_threshold"]) == ("shop", "worn", 0.3)


def test_a_group_without_a_calibration_in_service_is_refused(models: Path, tmp_path: Path) -> None:
    with in_process(tmp_path, models=models) as client:
        refused = client.post("/predict", files={"file": PHOTO}, data={"group": "shoes"})
        assert is_error(refused, 404, "unknown_group")
        assert "no shop's calibration is in service (CALIBRATION)" in refused.json()["detail"]
        assert client.post("/predict", files={"file": PHOTO}).json()["calibration"] == "released"
