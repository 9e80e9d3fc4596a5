"""The prediction log keeps what was answered and never stands in a prediction's way."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import SQLAlchemyError

from service.http.middleware import new_request_id
from service.log.prediction_log import PredictionLog
from service.log.tables import PREDICTIONS
from service.models import images
from tests.support.log_rows import row
from tests.support.waiting import wait_for


def test_rows_come_back_newest_first(tmp_path: Path) -> None:
    log = PredictionLog(f"sqlite:///{tmp_path / 'new' / 'folder' / 'log.db'}")
    assert log.recent("cifake", "1.0.0", 10) == []
    log.add([row(number) for number in range(5)])
    log.add([row(9, version="0.9.0")])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 5)
    newest = log.recent("cifake", "1.0.0", 2)
    assert [found["request_id"] for found in newest] == ["request-4", "request-3"]
    assert {key: value for key, value in newest[0].items() if key != "id"} == row(4)
    log.close()


def test_closing_writes_what_is_queued_from_both_workers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    logs = [PredictionLog(url), PredictionLog(url)]
    for number in range(1500):
        logs[number % 2].add([row(number)])
    for log in logs:
        log.close(60)
    with sqlite3.connect(tmp_path / "log.db") as database:
        assert database.execute("select count(distinct request_id) from predictions").fetchone() == (1500,)
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_broken_database_costs_nothing_and_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file where the folder belongs")
    log = PredictionLog(f"sqlite:///{folder / 'log.db'}")
    log.add([row(1)])
    wait_for(lambda: "cannot be written" in caplog.text)
    with pytest.raises((SQLAlchemyError, OSError)):
        log.recent("cifake", "1.0.0", 1)
    log.add([row(2)])
    folder.unlink()
    wait_for(lambda: not folder.is_file() and folder.exists() and len(log.recent("cifake", "1.0.0", 10)) == 2)
    log.close()
    assert caplog.text.count("cannot be written") == 1


def test_a_broken_database_does_not_hold_up_the_end(tmp_path: Path) -> None:
    log = PredictionLog("sqlite:////proc/no/such/log.db")
    log.add([row(1)])
    log.close(60)
    assert not log._writer.thread.is_alive()


def test_a_log_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute(  # the first version's
            "create table predictions (id integer primary key, request_id, time, model_version, score, probability, "
            "prediction, decision, in_domain, distance, brightness, contrast, sharpness, embedding json not null, "
            "width, height)"
        )
        database.execute("insert into predictions values (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)")
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    log.add([row(1)])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 1)
    with sqlite3.connect(tmp_path / "log.db") as database:
        database.execute("update predictions set jpeg_quality = null")
    assert log.recent("cifake", "1.0.0", 1)[0]["jpeg_quality"] is None
    log.close()


def test_every_statistic_of_a_photo_has_its_column() -> None:
    statistics = images.statistics(np.zeros((1, 32, 32, 3), np.uint8))
    assert set(statistics) <= set(PREDICTIONS.columns.keys())


def test_a_time_range_is_read_whole_or_as_a_random_part(tmp_path: Path) -> None:
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    log.add([row(number) for number in range(60)])
    wait_for(lambda: log.newest("cifake", "1.0.0") == 60)
    begin = row()["time"]
    found = log.between("cifake", "1.0.0", begin.replace(second=10), begin.replace(second=20), 100)
    assert [one["request_id"] for one in found] == [f"request-{number}" for number in range(19, 9, -1)]
    some = log.between("cifake", "1.0.0", begin, begin.replace(second=59), 20)
    assert len({one["id"] for one in some}) == 20
    assert some != log.between("cifake", "1.0.0", begin, begin.replace(second=59), 20)
    assert log.count_after("cifake", "1.0.0", 50) == 10
    assert log.newest("cifake", "0.9.0") == log.count_after("cifake", "0.9.0", 0) == 0
    log.close()


def test_the_last_word_on_a_photo_counts(tmp_path: Path) -> None:
    log = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    for label in ("real", "ai_generated"):
        log.add_feedback("request-1", label, None)
    assert log.labels([f"request-{number}" for number in range(1200)]) == {"request-1": "ai_generated"}
    log.close()


def test_a_share_of_the_predictions_is_kept_and_the_request_id_decides(tmp_path: Path) -> None:
    kept = []
    for name in ("a", "b"):
        log = PredictionLog(f"sqlite:///{tmp_path / name}.db", share=0.25)
        log.add([row(request_id=new_request_id(), version="other") for _ in range(2000)])
        log.add([row(number) for number in range(2000)])
        log.close()
        log = PredictionLog(f"sqlite:///{tmp_path / name}.db")
        kept.append({found["request_id"] for found in log.recent("cifake", "1.0.0", 5000)})
        assert 400 < len(log.recent("cifake", "other", 5000)) < 600  # 5 standard deviations of 500
        log.close()
    assert kept[0] == kept[1]
    assert 400 < len(kept[0]) < 600
