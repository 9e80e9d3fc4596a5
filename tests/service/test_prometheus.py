"""Debian's Prometheus with our rules scrapes the real service, and every panel of the dashboard shows something."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.support.photos import GOOD, encode, photo
from tests.support.server import ROOT, Server, await_answer, free_port, is_ready, serving
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.serve, pytest.mark.slow]
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboards/photo-detector.json").read_text(encoding="utf-8"))
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose drift monitor checks all the time."""
    settings = {"MONITOR": "true", "DRIFT_CHECK_SECONDS": "1", "DRIFT_WINDOW": "100"}
    with serving(tmp_path_factory.mktemp("service"), is_ready, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with our configuration, but the target and a scrape a second."""
    if (program := shutil.which("prometheus")) is None:
        pytest.skip("prometheus is missing; on Debian: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "ops/prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [service.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen([*command, f"--web.listen-address={url}"], stdout=file, stderr=file)
    try:
        await_answer(f"http://{url}/-/ready", process, output)
        with httpx.Client(base_url=f"http://{url}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the series of a query that are numbers."""
    answer = client.get("/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")}).json()
    assert answer["status"] == "success", answer
    return [series for series in answer["data"]["result"] if series["value"][1] != "NaN"]


def alerts(client: httpx.Client) -> dict[str, str]:
    """Return the alerts that are pending or firing."""
    found = client.get("/api/v1/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert["state"] for alert in found}


def test_every_panel_has_data_and_drifted_photos_fire_the_alert(service: Server, prometheus: httpx.Client) -> None:
    assert all(rule["health"] != "err" for rule in rules(prometheus))
    with httpx.Client(base_url=service.url, timeout=60) as client:
        wait_for(lambda: bool(ask(prometheus, "aidetect_model_info == 1")))
        assert "PhotoDrift" not in alerts(prometheus)
        deadline = time.monotonic() + 300
        number = 0
        while alerts(prometheus).get("PhotoDrift") != "firing":  # drawn photos are unlike the reference
            assert time.monotonic() < deadline, alerts(prometheus)
            files = [("files", encode(photo(32, 32, seed=number + place))) for place in range(20)]
            number += 20
            assert client.post("/predict/batch", files=files).json()["failed"] == 0
            answer = client.post("/predict", files={"file": GOOD["png"]}).json()
            client.post("/predict", files={"file": b"no photo"})
            client.post("/feedback", json={"request_id": answer["request_id"], "label": "real"})
            time.sleep(0.5)
    missing = [title for title, query in QUERIES if not ask(prometheus, query)]
    assert not missing


def rules(client: httpx.Client) -> list[dict[str, Any]]:
    """Return the rules that Prometheus loaded."""
    groups = client.get("/api/v1/rules").json()["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len(found) >= 5
    return found
