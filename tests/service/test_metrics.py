"""Every metric is observed, and its labels cannot grow without bound."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from service import metrics
from tests.support.photos import BAD, GOOD, encode, photo
from tests.support.server import Server, is_ready, serving
from tests.support.waiting import wait_for

pytestmark = pytest.mark.serve

FAILURES = {  # need something broken, and are counted where their tests break it
    "aidetect_drift_errors": "test_drift_monitor.py",
    "aidetect_prediction_log_errors": "test_prediction_log.py",
    "aidetect_prediction_log_lost": "test_prediction_log.py",
    "aidetect_rate_limit_errors": "test_redis.py",
}
MAY_BE_ZERO = {  # right when nothing drifts
    *("aidetect_drift_score", "aidetect_drift_detected", "aidetect_drift_checks_in_a_row"),
    "aidetect_promise_broken",  # test_promise.py breaks one
    "aidetect_drift_estimated_accuracy",  # not a number while the window is too small
    "aidetect_model_swaps",  # test_swap.py counts them
}
HEADERS = {"X-API-Key": "secret"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with everything on."""
    settings = {"API_KEYS": "shop:secret", "RATE_LIMITS": "true", "RATE_LIMIT_EXPLAIN": "1/hour"}
    settings |= {"RATE_LIMIT_PREDICT": "", "RATE_LIMIT_BATCH": "", "MAX_IMAGES_IN_FLIGHT": "20", "THREADS": "1"}
    settings["MONITOR"] = "true"
    with serving(tmp_path_factory.mktemp("measured"), is_ready, **settings) as server:
        yield server


def samples(server: Server) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return each metric's samples as (labels, value)."""
    text = httpx.get(f"{server.url}/metrics", headers=HEADERS, timeout=60).text
    return {
        family.name: [(sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_every_metric_is_observed(measured: Server) -> None:
    with httpx.Client(base_url=measured.url, headers=HEADERS, timeout=60) as client:
        told = client.post("/predict", files={"file": GOOD["png"]}).json()
        client.post("/predict", files={"file": BAD["png_crc"][0]})
        for _ in range(2):
            client.post("/predict/explain", files={"file": GOOD["png"]})
        client.post("/predict/listing", files=[("files", GOOD["png"])])
        client.post("/feedback", json={"request_id": told["request_id"], "label": "real"})
        client.get("/drift")
        client.get("/drift", headers={"X-API-Key": "wrong"})
        batch = [("files", encode(photo(1200, 800), "JPEG", quality=60))] * 20
        with ThreadPoolExecutor(12) as pool:  # more than fit
            codes = list(pool.map(lambda _: client.post("/predict/batch", files=batch).status_code, range(12)))
        assert 200 in codes  # maybe one alone: all twelve may come while the first one is served
    wait_for(lambda: samples(measured)["aidetect_prediction_log_rows"][0][1] > 20)
    wait_for(lambda: max(size for _, size in samples(measured)["aidetect_drift_window_size"]) >= 20)
    found = samples(measured)
    declared = {value._name for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)}
    assert len(declared) > 20
    assert declared <= set(found)
    for name in declared - set(FAILURES) - MAY_BE_ZERO:
        assert any(value > 0 for _, value in found[name]), f"{name} was never observed"
    assert {name for name in found if name.startswith("aidetect_")} == declared


def test_no_client_can_make_new_time_series(measured: Server) -> None:
    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {
            (name, tuple(sorted(labels.items()))) for name, found in samples(measured).items() for labels, _ in found
        }

    def send(number: int) -> None:
        with httpx.Client(base_url=measured.url, timeout=60) as client:
            client.request(f"METHOD{number}", f"/path/{number}", headers=HEADERS)
            client.get(f"/path/{number}", headers=HEADERS | {"X-Request-ID": f"id-{number}"})
            client.get(f"/model?number={number}", headers={"X-API-Key": f"wrong-{number}"})
            client.post("/predict", files={"file": f"photo {number}".encode()}, headers=HEADERS)

    series()  # the first look is not counted in itself
    for number in range(3):
        send(number)
    before = series()
    for number in range(3, 30):
        send(number)
    assert series() == before
