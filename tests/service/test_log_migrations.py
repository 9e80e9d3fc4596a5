"""Logs of earlier versions are read and brought up to date, whoever else has them open."""

import logging
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from service.log.database import Database
from service.log.migrations import MIGRATIONS
from service.log.prediction_log import PredictionLog
from service.log.tables import INDEXES, METADATA, PREDICTIONS
from service.settings import ROOT
from tests.support.log_rows import row
from tests.support.waiting import wait_for

# The tables as earlier versions made them; one entry for each of their numbers.
FIRST = (
    "request_id varchar(200) not null, time timestamp not null, model_version varchar(100) not null, "
    "score float not null, probability float not null, prediction varchar(20) not null, "
    "decision varchar(20) not null, in_domain boolean not null, distance float not null, brightness float not null, "
    "contrast float not null, sharpness float not null, embedding json not null, width integer not null, "
    "height integer not null"
)
LATER = {
    2: "jpeg_quality integer",
    3: "credential varchar(20)",
    4: "ai_prior float, flag_threshold float, clear_threshold float",
    5: "model varchar(40) not null default 'cifake'",
}
OLD_ROW = (
    "insert into predictions (request_id, time, model_version, score, probability, prediction, decision, in_domain, "
    "distance, brightness, contrast, sharpness, embedding, width, height) values ('{}', '2026-01-01 12:00:00', "
    "'1.0.0', 0.9, 0.9, 'ai_generated', 'flag', true, 2.5, 0.5, 0.2, 0.3, '[1, 2, 3, 4, 5, 6, 7, 8]', 640, 480)"
)
OPENS = """
import logging, sys
from service.log.prediction_log import PredictionLog
from tests.support.log_rows import row
logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout)
log = PredictionLog(sys.argv[1])
log.add([row(int(sys.argv[2]))])
log.close(60)
"""


def old_log(number: int, key: str = "integer primary key") -> list[str]:
    """Return the statements that make the log of an earlier version, with one row."""
    columns = ", ".join([f"id {key}", FIRST, *(LATER[later] for later in range(2, number + 1))])
    feedback = "request_id varchar(200) not null, time timestamp not null, label varchar(20) not null"
    return [
        f"create table predictions ({columns})",
        f"create table feedback (id {key}, {feedback}, api_key varchar(40))",
        "create index predictions_version_id on predictions (model_version, id)",
        "create index predictions_request_id on predictions (request_id)",
        "create index predictions_time on predictions (time)",
        "create index predictions_version_time on predictions (model_version, time)",
        OLD_ROW.format("old"),
    ]


def open_together(url: str, count: int) -> str:
    """Have several processes open a log at the same time and write a row each; return what they logged."""
    command = [sys.executable, "-c", OPENS, url]
    running = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for number in range(count)
    ]
    said = "".join(process.communicate(timeout=120)[0] for process in running)
    assert [process.returncode for process in running] == [0] * count, said
    return said


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def test_a_new_log_has_the_tables_and_the_newest_number(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(f"sqlite:///{file}")
    assert log.recent("cifake", "1.0.0", 1) == []
    log.close()
    with sqlite3.connect(file) as database:
        numbers = database.execute("select number from schema_version order by number").fetchall()
    assert [number for (number,) in numbers] == [migration.number for migration in MIGRATIONS]
    assert caplog.text == ""


def test_the_numbers_have_no_gaps_and_every_later_column_has_its_migration() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    first = {part.split()[0] for part in f"id, {FIRST}".split(", ")}
    later = [name for migration in MIGRATIONS for name in migration.columns]
    assert first | set(later) == {column.name for column in PREDICTIONS.columns}
    assert len(first) + len(later) == len(PREDICTIONS.columns)
    assert all(column.nullable or column.server_default for column in PREDICTIONS.columns if column.name in later)


@pytest.mark.parametrize("number", range(1, len(MIGRATIONS)))
def test_an_older_log_is_read_and_brought_up_to_date(file: Path, number: int, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(file) as database:
        for statement in old_log(number):
            database.execute(statement)
    for _ in range(2):  # the second finds nothing to do
        log = PredictionLog(f"sqlite:///{file}")
        (old,) = log.recent("cifake", "1.0.0", 10)
        log.close()
    assert (old["request_id"], old["model"], old["ood_score"], old["jpeg_quality"]) == ("old", "cifake", 2.5, None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"was of version {number} and is of version {len(MIGRATIONS)} now" in caplog.text
    assert ("older rows count as cifake's" in caplog.text) == (number < 5)
    assert (old["calibration"], old["shop_group"], old["listing"]) == (None, None, None)
    inspector = inspect(create_engine(f"sqlite:///{file}"))
    assert set(inspector.get_table_names()) == set(METADATA.tables)
    columns = {column["name"] for column in inspector.get_columns("predictions")}
    assert columns == {column.name for column in PREDICTIONS.columns}
    found = {index["name"] for table in METADATA.tables for index in inspector.get_indexes(table)}
    assert found == {index.name for index in INDEXES}


def test_several_processes_open_an_older_log_while_an_older_worker_writes(file: Path) -> None:
    with sqlite3.connect(file) as database:
        for statement in old_log(4):
            database.execute(statement)
    done = threading.Event()
    written = 0

    def write_as_before() -> None:
        nonlocal written
        with sqlite3.connect(file, timeout=60) as database:
            while not done.is_set():
                database.execute(OLD_ROW.format(f"beside-{written}"))
                database.commit()
                written += 1
                done.wait(0.01)

    older = threading.Thread(target=write_as_before)
    older.start()
    try:
        said = open_together(f"sqlite:///{file}", 3)
    finally:
        done.set()
        older.join()
    assert said.count("is of version") == len(said.splitlines()) == 1
    log = PredictionLog(f"sqlite:///{file}")
    rows = log.recent("cifake", "1.0.0", 100_000)
    log.close()
    assert {one["model"] for one in rows} == {"cifake"}
    expected = {
        "old",
        *(f"request-{number}" for number in range(3)),
        *(f"beside-{number}" for number in range(written)),
    }
    assert {one["request_id"] for one in rows} == expected


def test_an_older_worker_that_is_in_the_middle_of_writing_is_waited_for(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    for statement in old_log(4):
        older.execute(statement)
    older.execute("BEGIN IMMEDIATE")
    older.execute(OLD_ROW.format("beside"))
    soon = threading.Timer(1, older.commit)
    soon.start()
    log = PredictionLog(f"sqlite:///{file}")
    rows = log.recent("cifake", "1.0.0", 10)
    log.close()
    soon.join()
    older.close()
    assert [one["request_id"] for one in rows] == ["beside", "old"]
    assert len(caplog.records) == 1, "only that it was brought up to date"


def test_a_log_of_a_later_version_is_used_as_it_is(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    PredictionLog(f"sqlite:///{file}").recent("cifake", "1.0.0", 1)
    with sqlite3.connect(file) as database:
        database.execute("insert into schema_version values (99, '2030-01-01')")
        database.execute("alter table predictions add column of_later_times integer")
    log = PredictionLog(f"sqlite:///{file}")
    log.add([row(1)])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 1)
    log.close()
    assert caplog.text == ""


def test_models_are_told_apart_also_where_their_versions_are_equal(file: Path) -> None:
    log = PredictionLog(f"sqlite:///{file}")
    log.add([row(number, model=("cifake", "photos")[number % 2]) for number in range(9)])
    wait_for(lambda: log.newest("cifake", "1.0.0") == 9)
    found: dict[str, Any] = {name: log.recent(name, "1.0.0", 10) for name in ("cifake", "photos")}
    assert {name: len(rows) for name, rows in found.items()} == {"cifake": 5, "photos": 4}
    assert log.newest("photos", "1.0.0") == 8
    assert log.count_after("photos", "1.0.0", 4) == 2
    begin = row()["time"]
    assert len(log.between("photos", "1.0.0", begin, begin.replace(minute=1), 10)) == 4
    log.close()


def test_many_may_open_a_new_log_at_the_same_moment(tmp_path: Path) -> None:
    """SQLite waits for no lock when it changes to a write-ahead log: one in twenty rounds failed."""
    for number in range(60):
        together = threading.Barrier(4)

        def start(number: int = number, together: threading.Barrier = together) -> None:
            database = Database(f"sqlite:///{tmp_path / f'{number}.db'}")
            together.wait()
            database.open()
            database.close()

        with ThreadPoolExecutor(4) as threads:
            for started in [threads.submit(start) for _ in range(4)]:
                started.result()
