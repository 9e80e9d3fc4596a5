"""Moderators' verdicts over HTTP."""

import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tests.support.http import is_error
from tests.support.photos import GOOD

pytestmark = pytest.mark.usefixtures("then_good")


def say(client: TestClient, request_id: str, label: str) -> httpx.Response:
    """Say what the photo of an earlier answer is."""
    return client.post("/feedback", json={"request_id": request_id, "label": label})


def kept(log_file: Path, request_id: str) -> list[tuple[str, str | None]]:
    """Return the labels kept for a prediction, and by which key."""
    with sqlite3.connect(log_file) as database:
        query = "select label, api_key from feedback where request_id = ? order by id"
        return database.execute(query, (request_id,)).fetchall()


@pytest.mark.parametrize("label", ["real", "ai_generated"])
def test_feedback_is_taken_right_after_the_answer_and_kept(client: TestClient, log_file: Path, label: str) -> None:
    told = client.post("/predict", files={"file": GOOD["png"]}).json()
    answer = say(client, told["request_id"], label)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "prediction_id": told["request_id"],
        "prediction": told["prediction"],
        "label": label,
        "agrees": told["prediction"] == label,
        "request_id": answer.headers["X-Request-ID"],
    }
    assert kept(log_file, told["request_id"]) == [(label, None)]


def test_said_again_both_are_kept_in_order(client: TestClient, log_file: Path) -> None:
    request_id = client.post("/predict", files={"file": GOOD["png"]}).json()["request_id"]
    assert say(client, request_id, "real").status_code == 200
    assert say(client, request_id, "ai_generated").status_code == 200
    assert [label for label, _ in kept(log_file, request_id)] == ["real", "ai_generated"]


def test_an_item_of_a_batch_has_an_id_of_its_own(client: TestClient, log_file: Path) -> None:
    body = client.post("/predict/batch", files=[("files", GOOD["png"])] * 2).json()
    item = body["results"][1]["request_id"]
    assert say(client, item, "real").status_code == 200
    assert len(kept(log_file, item)) == 1
    refused = say(client, body["request_id"], "real")
    assert is_error(refused, 404, "unknown_prediction")
    assert "batch" in refused.json()["detail"]


@pytest.mark.parametrize("unknown", ["01M81YWJSJ51VK5SBFRPYH2ZSF", "x", "x:0", "a" * 128 + ":999"])
def test_an_unknown_prediction_is_a_404(client: TestClient, unknown: str) -> None:
    assert is_error(say(client, unknown, "real"), 404, "unknown_prediction")


BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "none": ({}, 422),
    "empty": ({"content": b"", "headers": {"Content-Type": "application/json"}}, 422),
    "no_json": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
    "no_text": ({"content": b"\xff\xfe\x00", "headers": {"Content-Type": "application/json"}}, 422),
    "deep": ({"content": b"[" * 60_000, "headers": {"Content-Type": "application/json"}}, 422),
    "long_number": (
        {"content": b'{"label": ' + b"9" * 10_000 + b"}", "headers": {"Content-Type": "application/json"}},
        422,
    ),
    "list": ({"json": []}, 422),
    "no_label": ({"json": {"request_id": "x"}}, 422),
    "no_id": ({"json": {"label": "real"}}, 422),
    "other_label": ({"json": {"request_id": "x", "label": "fake"}}, 422),
    "number_as_id": ({"json": {"request_id": 1, "label": "real"}}, 422),
    "empty_id": ({"json": {"request_id": "", "label": "real"}}, 422),
    "nul_in_id": ({"json": {"request_id": "a\0b", "label": "real"}}, 422),
    "quote_in_id": ({"json": {"request_id": "' or 1=1 --", "label": "real"}}, 422),
    "line_end_in_id": ({"json": {"request_id": "x\n", "label": "real"}}, 422),
    "long_id": ({"json": {"request_id": "x" * 129, "label": "real"}}, 422),
    "form": ({"data": {"request_id": "x", "label": "real"}}, 415),
    "pickle": ({"content": b"x", "headers": {"Content-Type": "application/vnd.bentoml+pickle"}}, 415),
    "gzip": ({"json": {"request_id": "x", "label": "real"}, "headers": {"Content-Encoding": "gzip"}}, 415),
    "large": ({"json": {"request_id": "x" * 70_000, "label": "real"}}, 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_bad_body_is_refused(client: TestClient, name: str) -> None:
    request, status = BODIES[name]
    assert is_error(client.post("/feedback", **request), status)


def test_an_earlier_answer_is_found_with_the_thresholds_of_its_time(client: TestClient) -> None:
    told = client.post("/predict", files={"file": GOOD["png"]}).json()
    limits = client.get("/model").json()["thresholds"]
    assert say(client, told["request_id"], "real").status_code == 200
    found = client.get(f"/predictions/{told['request_id']}")
    assert found.status_code == 200, found.text
    logged = found.json()
    assert {key: logged[key] for key in ("prediction", "probability", "decision", "in_domain", "model_version")} == {
        key: told[key] for key in ("prediction", "probability", "decision", "in_domain", "model_version")
    }
    assert (logged["flag_threshold"], logged["clear_threshold"]) == (limits["flag"], limits["clear"])
    assert logged["ai_prior"] == limits["ai_prior"]
    assert logged["prediction_id"] == told["request_id"]
    assert logged["label"] == "real"
    assert is_error(client.get("/predictions/never-given"), 404, "unknown_prediction")
    assert is_error(client.get("/predictions/a%20b"), 422, "validation_error")
