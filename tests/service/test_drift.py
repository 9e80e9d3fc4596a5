"""Drift: few false alarms, real shifts named in words, accuracy without labels, references of one's own."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import ks_stat_test, z_stat_test
from evidently.legacy.core import ColumnType

from service.drift import __main__ as command
from service.drift import columns
from service.drift.accuracy import REVIEWED_MINIMUM, estimated_accuracy, reviewed, reviewed_report
from service.drift.columns import Table
from service.drift.comparison import (
    ALPHA,
    ALPHA_COLUMNS,
    ALPHA_SHARE,
    MINIMUM,
    SHARE,
    TESTED,
    alerts,
    compare,
    report,
)  # fmt: skip
from service.drift.references import MINIMUM as REFERENCE_MINIMUM
from service.drift.references import BadReferenceError, Reference, References
from service.drift.reports import Reports, model_of
from service.drift.times import parse_time, span
from service.drift.window import evaluate_window
from service.log.prediction_log import PredictionLog
from service.models.card import Card
from service.settings import ROOT
from tests.support import tiny_model
from tests.support.log_rows import row
from tests.support.waiting import wait_for

NOW = datetime(2026, 11, 22, 18)  # noqa: DTZ001 - the log keeps UTC without a zone


def rows(count: int, seed: int, **shift: float) -> list[dict[str, Any]]:
    """Return rows with correlated columns as a model's predictions have them, some shifted; newest first."""
    rng = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-(rng.normal(0, 4, count) + shift.get("logit", 0))))
    contrast = rng.gamma(9, 0.02, count)
    sharpness = contrast * rng.uniform(1, 2, count) * shift.get("sharpness", 1)
    brightness = rng.beta(4, 4, count) + shift.get("brightness", 0)
    ood_score, embedding = rng.chisquare(20, count), rng.normal(shift.get("embedding", 0), 1, (count, 8))
    return [
        row(
            number,
            version="0.0.1",
            time=NOW - timedelta(minutes=number),
            score=float(probability[number]),
            probability=float(probability[number]),
            prediction="ai_generated" if probability[number] >= 0.5 else "real",
            ood_score=float(ood_score[number]),
            brightness=float(brightness[number]),
            contrast=float(contrast[number]),
            sharpness=float(sharpness[number]),
            embedding=embedding[number].tolist(),
            jpeg_quality=int(shift.get("jpeg_quality", 90)),
        )
        for number in range(count)
    ]


def table(count: int, seed: int, **shift: float) -> Table:
    """Return such rows as a table."""
    return columns.from_rows(rows(count, seed, **shift))


def reference(seed: int = 1) -> Reference:
    return Reference("reference.npz", table(10_000, seed), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 500])
def test_unchanged_windows_raise_few_alarms(size: int) -> None:
    stable = table(10_000, seed=1)
    alarms = sum(any(column.drifted for column in compare(table(size, seed), stable)) for seed in range(1000, 1300))
    # 300 looks at a rate of 1 %: more than 9 alarms come with a probability below 0.002.
    assert alarms <= 9
    tested = compare(table(size, 7), stable)
    assert sum(column.threshold for column in tested) == pytest.approx(ALPHA_SHARE + ALPHA_COLUMNS)
    assert ALPHA_SHARE + ALPHA_COLUMNS <= ALPHA


@pytest.mark.parametrize(
    ("shift", "name", "words"),
    [
        ({"logit": 3.0}, "called_ai", "more photos look AI-generated: "),
        ({"logit": -3.0}, "score", "scores lean to real: median score "),
        ({"brightness": 0.15}, "brightness", "photos are brighter than the reference: median brightness 0.6"),
        ({"sharpness": 0.6}, "sharpness", "photos are blurrier than the reference: median sharpness 0.1"),
        ({"embedding": 1.0}, "embedding_3", "photos look different to the model: embedding components "),
        (
            {"jpeg_quality": 40},
            "jpeg_quality",
            "photos are compressed harder than the reference: median jpeg_quality 40",
        ),
    ],
)
def test_a_shift_is_named_in_words(shift: dict[str, float], name: str, words: str) -> None:
    window, stable = table(300, 3, **shift), table(10_000, seed=1)
    found = compare(window, stable)
    assert name in {column.name for column in found if column.drifted}
    lines = alerts(found, window, stable)
    assert any(line.startswith(words) for line in lines), lines
    assert len([line for line in lines if "embedding" in line]) <= 1


def test_words_fit_formats_and_equal_medians() -> None:
    stable = table(2000, 1)
    mixed = table(400, 3)
    mixed["jpeg_quality"][::2] = 0
    lines = alerts(compare(mixed, stable), mixed, stable)
    assert "fewer photos are JPEG files: 50.0% against 100.0%" in lines
    spread = table(400, 3)
    spread["jpeg_quality"][:150] = 99
    (line,) = (line for line in alerts(compare(spread, stable), spread, stable) if "jpeg_quality" in line)
    assert line.startswith("jpeg_quality is spread otherwise than in the reference: from 90 to 99")


def test_rare_labels_are_tested_exactly() -> None:
    rng = np.random.default_rng(0)

    def shop(count: int, share: float) -> Table:
        probability = np.where(rng.random(count) < share, 0.9, 0.1)
        return columns.with_score(table(count, int(rng.integers(1_000_000))), probability)

    stable = shop(10_000, 0.005)
    (share,) = (column for column in compare(shop(200, 0.005), stable) if column.name == "called_ai")
    assert share.test == "fisher_exact"
    page = report(compare(shop(200, 0.005), stable), shop(200, 0.005), stable)
    assert "Fisher&#x27;s exact p_value" in page or "Fisher's exact p_value" in page
    (share,) = (column for column in compare(shop(200, 0.3), stable) if column.name == "called_ai")
    assert share.drifted
    (share,) = (column for column in compare(shop(200, 0.3), shop(1000, 0.3)) if column.name == "called_ai")
    assert share.test == "z"
    none = shop(200, 0)
    (share,) = (column for column in compare(none, shop(1000, 0)) if column.name == "called_ai")
    assert share.p_value == 1


def test_the_worst_comes_first() -> None:
    window, stable = table(500, 3, sharpness=0.3, brightness=0.08), table(10_000, seed=1)
    lines = alerts(compare(window, stable), window, stable)
    assert "blurrier" in lines[0]
    assert any("brighter" in line for line in lines[1:])


def test_the_docs_name_every_column_that_is_tested() -> None:
    text = (ROOT / "docs/DRIFT.md").read_text(encoding="utf-8").partition("## What is tested")[2].partition("All p-")[0]
    named = {
        name for line in text.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert named - set(columns.EMBEDDING) == {SHARE, *TESTED}
    assert {columns.EMBEDDING[0], columns.EMBEDDING[-1]} <= named


def test_what_the_reference_does_not_know_is_not_tested() -> None:
    window, stable = table(200, 3), table(5000, 1)
    del stable["size"], stable["jpeg_quality"]
    assert not {"size", "jpeg_quality"} & {column.name for column in compare(window, stable)}
    old = [one | {"jpeg_quality": None} for one in rows(200, 3)]
    assert "jpeg_quality" not in columns.from_rows(old)


def test_a_table_comes_back_as_it_was_stored() -> None:
    stored = table(50, 1)
    back = columns.from_arrays(columns.to_arrays(stored))
    assert set(back) == set(stored)
    for name, values in stored.items():
        np.testing.assert_array_equal(back[name], values)


def test_the_report_shows_the_numbers_of_the_answer() -> None:
    window, stable = table(300, 3, sharpness=0.6), table(3000, 1)
    page = report(compare(window, stable), window, stable)
    assert "<html" in page
    assert "http://" not in page.partition("<body")[0].replace("http://www.w3.org", "")  # asks no other host
    (sharpness,) = (column for column in compare(window, stable) if column.name == "sharpness")
    assert "sharpness" in page
    assert sharpness.drifted
    # Evidently's own decimals of the p-value of a column that did not drift, which are not all zeros
    calm = max(compare(window, stable), key=lambda column: column.p_value)
    assert f"{calm.p_value:.2f}" in page or f"{calm.p_value:.3f}" in page


def test_the_p_values_are_those_of_evidentlys_tests() -> None:
    window, stable = table(300, 3, sharpness=0.9, logit=0.5), table(3000, 1)
    called = [pd.Series(np.where(one["probability"] >= 0.5, "ai_generated", "real")) for one in (stable, window)]
    for column in compare(window, stable):
        if column.name == SHARE:
            expected = z_stat_test(*called, ColumnType.Categorical, column.threshold).drift_score
        else:
            values = (pd.Series(one[column.name]) for one in (stable, window))
            expected = ks_stat_test(*values, ColumnType.Numerical, column.threshold).drift_score
        assert column.p_value == pytest.approx(expected, rel=1e-9, abs=1e-15), column.name


def test_estimated_accuracy_is_that_of_calibrated_probabilities() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(0.3, 0.3, 2000)
    inside = 0
    for _ in range(200):
        chosen = rng.choice(probability, 500)
        right = float(((rng.random(500) < chosen) == (chosen >= 0.5)).mean())
        mean, low, high = estimated_accuracy(chosen)
        assert low < mean < high
        inside += low <= right <= high
    assert inside >= 180  # of 190 expected
    assert estimated_accuracy(np.ones(5)) == (1, 1, 1)


def test_reviewed_photos_are_counted_apart() -> None:
    some = rows(200, 3)
    labels = {one["request_id"]: "real" for one in some[:30]}
    verdicts = [(one, "real") for one in some[:30]]
    assert reviewed(verdicts[: REVIEWED_MINIMUM - 1]) is None
    found = reviewed(verdicts)
    assert found is not None
    called = sum(one["prediction"] == "ai_generated" for one in some[:30])
    assert (found.photos, found.false_accusations, found.missed, found.ai_share) == (30, called, 0, 0)
    assert found.accuracy == pytest.approx(1 - called / 30)
    seen = evaluate_window("cifake", some, labels, "none here")
    assert seen.reviewed_page is None  # one label only: nothing to tell apart
    assert "<html" in reviewed_report(verdicts + [(one, "ai_generated") for one in some[30:60]])
    labels |= {one["request_id"]: "ai_generated" for one in some[30:60]}
    page = evaluate_window("cifake", some, labels, "none here").reviewed_page
    assert page is not None
    assert "Of reviewed photos" in page.partition("</header>")[0]


def test_an_id_that_a_client_sends_again_means_its_last_photo() -> None:
    some = [one | {"request_id": "constant"} for one in rows(100, 3)]
    assert len(evaluate_window("cifake", some, {"constant": "real"}, "none here").reviewed) == 1
    assert evaluate_window("cifake", some, {"constant": "real"}, "none here").reviewed[0][0] == some[0]


def test_nothing_is_said_of_few_predictions_or_without_a_reference() -> None:
    few = evaluate_window("cifake", rows(MINIMUM - 1, 3, logit=9), {}, reference())
    assert (few.answer["status"], few.answer["columns"], few.answer["alerts"]) == ("insufficient_data", [], [])
    assert few.answer["estimated_accuracy"] is None
    assert few.page is None
    without = evaluate_window("cifake", rows(200, 3), {}, "reference.npz is missing")
    assert without.answer["status"] == "insufficient_data"
    assert without.answer["alerts"] == ["no reference: reference.npz is missing"]
    assert without.answer["reference"] is None
    assert without.page is None
    none = evaluate_window("cifake", [], {}, reference())
    assert (none.answer["window_size"], none.answer["window_start"]) == (0, None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-22T17:00:00Z", NOW - timedelta(hours=1)),
        ("2026-11-22T18:00:00+01:00", NOW - timedelta(hours=1)),
        ("2026-11-22T17:00", NOW - timedelta(hours=1)),
    ],
)
def test_times(text: str, moment: datetime) -> None:
    assert parse_time(text, NOW) == moment


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("999999d", None),
        ("0001-01-01T00:00:00+05:00", None),
        ("yesterday", None),
        (None, "1h"),
        ("1h", "2h"),
        ("0s", None),
        ("1h", "now"),
        ("", None),
    ],
)
def test_what_is_no_time_range_is_refused(since: str | None, until: str | None) -> None:
    with pytest.raises(ValueError, match=r"is not a time|until"):
        span(since, until, NOW)


def add_model(folder: Path, tiny: Path) -> None:
    """Write the folder of a model, with a reference that knows no files."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tiny.read_bytes())
    card = Card.model_validate(tiny_model.CARD | {"name": folder.name})
    (folder / "card.json").write_text(card.to_json(), encoding="utf-8")
    arrays: dict[str, Any] = columns.to_arrays(table(2000, 1))
    del arrays["size"], arrays["jpeg_quality"]
    np.savez(folder / "reference.npz", label=np.arange(2000) % 2, **arrays)


@pytest.fixture
def shop(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PredictionLog]:
    """A log with a week of predictions, a model with its reference, and the settings that name them."""
    add_model(tmp_path / "models" / "cifake", tiny)
    url = f"sqlite:///{tmp_path / 'log.db'}"
    for name, value in (("MODELS", tmp_path / "models"), ("LOG_URL", url), ("DRIFT_URL", tmp_path / "drift")):
        monkeypatch.setenv(name, str(value))
    log = PredictionLog(url)
    yield log
    log.close()


def run(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["drift", *words])
    return command.main()


def test_the_command_line_adopts_and_undoes_a_reference(
    shop: PredictionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("baseline", "--since", "2026-11-01", monkeypatch=monkeypatch) == 2
    assert "0 predictions of cifake 0.0.1 are too few" in capsys.readouterr().err
    odd = rows(REFERENCE_MINIMUM + 100, 5, sharpness=0.5)
    shop.add(odd)
    wait_for(lambda: len(shop.recent("cifake", "0.0.1", 1000)) == len(odd))
    out = tmp_path / "report.html"
    assert run("report", "--since", "2026-11-01", "--out", str(out), monkeypatch=monkeypatch) == 1
    assert "blurrier" in capsys.readouterr().out
    assert "<html" in out.read_text(encoding="utf-8")
    assert run("baseline", "--since", "2026-11-01", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "-model-0.0.1, 600 predictions, " in said
    assert "in a row" not in said  # it holds one window of 500 alone
    assert "without" not in said
    assert run("report", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("ok: 500 predictions")
    assert run("baseline", "--undo", monkeypatch=monkeypatch) == 0
    assert "in force: reference.npz, 2000 predictions, 50.0% AI-generated" in capsys.readouterr().out
    assert run("report", monkeypatch=monkeypatch) == 1
    assert run("baseline", "--undo", monkeypatch=monkeypatch) == 2
    assert "no reference of cifake was adopted" in capsys.readouterr().err
    assert run("baseline", "--until", "1h", monkeypatch=monkeypatch) == 2
    assert run("report", "--since", "noon", monkeypatch=monkeypatch) == 2
    assert "write 24h, 7d" in capsys.readouterr().err


def test_columns_that_are_not_in_all_rows_or_references_are_told(
    shop: PredictionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = rows(REFERENCE_MINIMUM + 100, 5)
    mixed[-1]["jpeg_quality"] = None
    shop.add(mixed)
    wait_for(lambda: len(shop.recent("cifake", "0.0.1", 1000)) == len(mixed))
    assert run("baseline", "--since", "2026-11-01", monkeypatch=monkeypatch) == 0
    assert "without jpeg_quality: some of these predictions are from before" in capsys.readouterr().out

    (kept,) = (tmp_path / "drift/references/cifake").glob("*.npz")
    for file, others in ((kept, []), (tmp_path / "models/cifake/reference.npz", ["--undo"])):
        with np.load(file) as stored:
            left = {name: stored[name] for name in stored.files if name != "contrast"}
        np.savez(file, **left)
        assert run("baseline", *others, monkeypatch=monkeypatch) == 2
        assert f"{file.stem}" in (said := capsys.readouterr().err)
        assert "has no column 'contrast'" in said


def test_a_reference_of_another_model_is_not_used(shop: PredictionLog, tmp_path: Path) -> None:
    references = References(str(tmp_path / "drift"), "cifake", tmp_path / "models" / "cifake")
    adopted = references.adopt(rows(600, 5), "0.0.1")
    assert references.current("0.0.1").name == adopted.name
    assert adopted.adopted is not None
    assert {"size", "jpeg_quality"} <= set(adopted.table)
    with pytest.raises(BadReferenceError, match=r"adopted of another version of cifake: adopt one of 0\.0\.2"):
        references.current("0.0.2")
    references.adopt(rows(600, 6), "0.0.2")
    assert references.current("0.0.1").name == adopted.name  # a roll-back finds its own again
    references.undo()
    (tmp_path / "drift" / "references" / "cifake" / f"{adopted.name}.npz").write_bytes(b"PK broken")
    with pytest.raises(BadReferenceError, match="--undo"):
        references.current("0.0.1")
    assert references.undo() == adopted.name
    assert references.current("0.0.1").name == "reference.npz"
    (tmp_path / "models" / "cifake" / "reference.npz").unlink()
    with pytest.raises(BadReferenceError, match=r"reference\.npz is missing"):
        references.current("0.0.1")
    (tmp_path / "drift" / "references" / "cifake" / "active.json").write_text("{")
    with pytest.raises(BadReferenceError, match=r"active\.json of cifake is damaged"):
        references.current("0.0.1")


def test_references_of_before_are_the_first_models(
    shop: PredictionLog, tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Adopted when there was one model: their folder names none, and their column is called `distance`."""
    url = str(tmp_path / "drift")
    name = References(url, "cifake", tmp_path / "models" / "cifake").adopt(rows(600, 5), "0.0.1").name
    new, old = tmp_path / "drift" / "references" / "cifake", tmp_path / "drift" / "references"
    with np.load(new / f"{name}.npz") as file:
        arrays = {"distance" if key == "ood_score" else key: file[key] for key in file.files}
    np.savez(old / f"{name}.npz", **arrays)
    (new / "active.json").rename(old / "active.json")
    (new / f"{name}.npz").unlink()

    references = References(url, "cifake", tmp_path / "models" / "cifake")
    found = references.current("0.0.1")
    assert found.name == name
    np.testing.assert_array_equal(found.table["ood_score"], arrays["distance"])
    references.current("0.0.1")
    assert caplog.text.count("names no model: it is read as cifake's") == 1
    later = references.adopt(rows(600, 6), "0.0.1")
    assert references.active() == [name, later.name]
    references.undo()
    assert references.current("0.0.1").name == name
    references.undo()
    assert references.current("0.0.1").name == "reference.npz"
    add_model(tmp_path / "models" / "photos", tiny)
    others = References(url, "photos", tmp_path / "models" / "photos")
    assert (others.active(), others.current("0.0.1").name) == ([], "reference.npz")


def test_the_command_line_takes_a_model(
    shop: PredictionLog, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_model(tmp_path / "models" / "photos", tiny)
    shop.add([one | {"model": "photos"} for one in rows(600, 5, sharpness=0.5)])
    wait_for(lambda: len(shop.recent("photos", "0.0.1", 1000)) == 600)
    assert run("report", "--model", "photos", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().out.startswith("drift: 500 predictions")
    assert run("report", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "of cifake, the first of cifake, photos; --model takes another"
    assert said[1].startswith("insufficient_data: 0 predictions")
    assert run("baseline", "--model", "photos", "--since", "2026-11-01", monkeypatch=monkeypatch) == 0
    assert run("report", "--model", "photos", monkeypatch=monkeypatch) == 0
    assert run("baseline", "--model", "shoes", monkeypatch=monkeypatch) == 2
    assert "there is no model 'shoes'; there is cifake, photos" in capsys.readouterr().err


def test_old_reports_are_deleted_and_names_lead_nowhere_else(tmp_path: Path) -> None:
    reports = Reports(str(tmp_path / "new"), retention_days=30)
    assert reports.names("cifake") == []
    seen = evaluate_window("cifake", rows(200, 3), {}, reference())
    now = seen.answer["timestamp"]
    plain = json.loads(json.dumps({"alerts": seen.answer["alerts"]}))
    for days in (40, 20, 0):
        answer = plain | {"model": "cifake", "timestamp": now - timedelta(days=days), "status": "ok"}
        reports.keep(answer, f"page of {days}")
    assert len(reports.names("cifake")) == 2
    assert reports.page(reports.names("cifake")[0]) == "page of 0"
    assert reports.answer(reports.names("cifake")[1])["status"] == "ok"
    (tmp_path / "new" / "reports" / f"{reports.names('cifake')[1]}.json").write_text("{")
    assert [answer["name"] for answer in reports.answers("cifake", 10)] == reports.names("cifake")[:1]
    assert all(model_of(name) == "cifake" for name in reports.names("cifake"))
    assert not any(map(model_of, ["../references/active", "20261122T180000Z-ok/../x", "", "20261122T180000Z-ok\n"]))
    assert len(list((tmp_path / "new" / "reports").iterdir())) == 4  # no part of a file is left


def test_a_reference_of_series_says_that_it_will_alarm() -> None:
    assert command.own_alarms(table(2500, 1), 500) == (5, 0)
    series = table(2500, 1)
    series["brightness"] = series["brightness"] + np.repeat(np.linspace(0, 0.4, 5), 500)  # each day is brighter
    windows, alarms = command.own_alarms(series, 500)
    assert (windows, alarms >= 3) == (5, True)
    assert command.own_alarms(table(900, 1), 500) == (0, 0)


def test_references_and_reports_may_lie_in_a_bucket(shop: PredictionLog, tmp_path: Path) -> None:
    url = "memory://bucket/drift"  # fsspec's own; s3:// and gs:// go the same way
    references = References(url, "cifake", tmp_path / "models" / "cifake")
    name = references.adopt(rows(600, 5), "0.0.1").name
    assert References(url, "cifake", tmp_path / "models" / "cifake").current("0.0.1").name == name
    reports = Reports(url, 0)
    kept = reports.keep(
        {
            "model": "cifake",
            "timestamp": evaluate_window("cifake", rows(200, 3), {}, reference()).answer["timestamp"],
            "status": "ok",
        },
        "page",
    )
    assert Reports(url, 0).page(kept) == "page"


def test_the_alert_rules_hold(promtool: str) -> None:
    folder = ROOT / "ops" / "prometheus"
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_begins_with_what_the_answer_says() -> None:
    page = evaluate_window("cifake", rows(300, 3, sharpness=0.6), {}, reference()).page
    assert page is not None
    head = page.partition("</header>")[0]
    assert "These photos are unlike the reference" in head
    assert "<li>photos are blurrier than the reference: median" in head
    calm = evaluate_window("cifake", rows(300, 3), {}, replace(reference(), name="<b>shop</b>")).page
    assert calm is not None
    assert "These photos are like the reference" in calm
    assert "&lt;b&gt;shop" in calm.partition("</header>")[0]


def test_a_reference_tells_what_it_is() -> None:
    seen = evaluate_window("cifake", rows(200, 3), {}, replace(reference(), ai_share=0.25))
    assert seen.answer["reference"].ai_share == 0.25
    assert seen.answer["reference"].rows == 10_000
