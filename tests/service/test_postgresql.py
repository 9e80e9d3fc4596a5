"""The prediction log on a real PostgreSQL, alone and behind the real service."""

import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import SQLAlchemyError

from service import metrics
from service.log.migrations import MIGRATIONS
from service.log.prediction_log import PredictionLog, ReviewCounts, ThresholdsInForce
from service.log.tables import INDEXES, now
from tests.service.test_log_migrations import OLD_ROW, old_log, open_together
from tests.support.http import is_error
from tests.support.log_rows import row
from tests.support.photos import GOOD
from tests.support.server import Server, free_port, is_ready, serving
from tests.support.waiting import wait_for

PASSWORD = "hush-it-is-the-password"


@dataclass
class Postgres:
    """A PostgreSQL server of our own.

    Attributes:
        programs: the folder with initdb and pg_ctl.
        folder: where all of it lies.
        port: on loopback.
    """

    programs: Path
    folder: Path
    port: int
    # PostgreSQL refuses to run as root; Debian's package made this user.
    user: dict[str, Any] = field(
        default_factory=lambda: {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.getuid() else {}
    )

    def create(self) -> None:
        """Make the files of a server that asks for a password."""
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if self.user:
            for path in (self.folder, secret):
                shutil.chown(path, self.user["user"], self.user["group"])
        files = ["--pgdata", self.folder / "data", "--pwfile", secret, "--no-sync"]
        self._run("initdb", *files, "--username", "tester", "--auth", "scram-sha-256", "--encoding", "UTF8")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c max_connections=30"
        options += " -c fsync=off"  # the processes are killed here, never the machine
        self._run("pg_ctl", "start", "-w", "-D", self.folder / "data", "-l", self.folder / "log", "-o", options)

    def stop(self, how: str = "fast") -> None:
        """Stop it in good order, or `immediate`ly as a power cut would."""
        self._run("pg_ctl", "stop", "-w", "-D", self.folder / "data", "-m", how)

    def restart(self, how: str) -> None:
        """Stop and start it."""
        self.stop(how)
        self.start()

    def url(self, database: str = "postgres", password: str = PASSWORD, driver: str = "+psycopg") -> str:
        """Return the URL of a database, as LOG_URL has it."""
        return f"postgresql{driver}://tester:{password}@127.0.0.1:{self.port}/{database}"

    def new(self) -> str:
        """Make an empty database and return its name."""
        name = f"log_{secrets.token_hex(6)}"
        self.ask("postgres", f"create database {name}")
        return name

    def ask(self, database: str, query: str, *values: Any) -> list[Any]:
        """Run a query and return its rows."""
        with psycopg.connect(self.url(database, driver=""), autocommit=True) as connection:
            answer = connection.execute(query.encode(), values or None)
            return answer.fetchall() if answer.description else []

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        with (self.folder / "output").open("a") as output:  # no pipe: the server would hold it open
            result = subprocess.run(command, cwd="/", stdout=output, stderr=output, check=False, **self.user)
        assert result.returncode == 0, (self.folder / "output").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A running server; tests that stop it start it again."""
    programs = sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))  # Debian's, off PATH
    programs += [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    if not programs:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    port = free_port()
    # Not in pytest's folders: those are closed to the user that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(programs[-1], Path(folder), port)
        server.create()
        server.start()
        yield server
        server.stop("immediate")


@pytest.fixture
def database(postgres: Postgres) -> str:
    """An empty database."""
    return postgres.new()


def errors() -> float:
    """Return how many writes to logs of this process failed."""
    return metrics.total("aidetect_prediction_log_errors_total")


def test_rows_come_back_newest_first(postgres: Postgres, database: str) -> None:
    log = PredictionLog(postgres.url(database))
    assert log.recent("cifake", "1.0.0", 10) == []
    log.add([row(number) for number in range(5)])
    log.add([row(9, version="0.9.0")])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 5)
    newest = log.recent("cifake", "1.0.0", 2)
    assert [found["request_id"] for found in newest] == ["request-4", "request-3"]
    assert {key: value for key, value in newest[0].items() if key != "id"} == row(4)
    log.close()


def test_what_moderators_said_is_counted(postgres: Postgres, database: str) -> None:
    log = PredictionLog(postgres.url(database))
    boots = ThresholdsInForce("cifake", "1.0.0", "shop", ("boots", None), 0.9)
    shop = {"in_domain": True, "calibration": "shop"}
    log.add([row(number, **shop, probability=0.9 if number < 3 else 0.1) for number in range(8)])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 8)
    for number, label in ((0, "real"), (1, "ai_generated"), (4, "real"), (7, "real")):
        log.add_feedback(f"request-{number}", label, None)
    found = log.review_counts(boots, log.newest_feedback(), 1000)
    assert found == ReviewCounts(3, 2, 1, 5, 2, 2, row(0)["time"])
    assert log.review_counts(boots, log.newest_feedback(), 2).others == 4
    released = ThresholdsInForce("cifake", "1.0.0", "released", (), 0.9)
    assert log.review_counts(released, log.newest_feedback(), 1000) == ReviewCounts()
    log.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_both_ways_to_write_the_url_work(postgres: Postgres, database: str, scheme: str) -> None:
    log = PredictionLog(postgres.url(database).replace("postgresql+psycopg", scheme))
    assert log.recent("cifake", "1.0.0", 1) == []
    log.close()


@pytest.mark.parametrize("attempt", range(8))
def test_workers_that_open_an_empty_database_at_once_all_succeed(
    postgres: Postgres, database: str, attempt: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = errors()
    logs = [PredictionLog(postgres.url(database)) for _ in range(4)]
    together = threading.Barrier(len(logs))
    failures: list[BaseException] = []

    def work(log: PredictionLog, number: int) -> None:
        try:
            together.wait()
            log.recent("cifake", "1.0.0", 1)
            log.add([row(number)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(log, number)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for log in logs:
        log.close(60)
    assert postgres.ask(database, "select count(*) from predictions") == [(4,)]
    assert errors() == before
    assert caplog.text == ""


def test_closing_writes_what_is_queued_from_both_workers(postgres: Postgres, database: str) -> None:
    logs = [PredictionLog(postgres.url(database)) for _ in range(2)]
    for number in range(3000):
        logs[number % 2].add([row(number)])
    for log in logs:
        log.close(60)
    assert postgres.ask(database, "select count(distinct request_id), count(*) from predictions") == [(3000, 3000)]


def test_a_prediction_is_found_and_feedback_is_kept(postgres: Postgres, database: str) -> None:
    log = PredictionLog(postgres.url(database))
    assert log.find("request-1") is None
    log.add([row(1, prediction="real"), row(2), row(1)])
    wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 3)
    newest = log.find("request-1")
    assert newest is not None
    assert newest["prediction"] == "ai_generated"
    assert newest["embedding"] == [0.5] * 8
    assert log.find("request-3") is None
    log.add_feedback("request-1", "real", None)
    log.add_feedback("request-1", "ai_generated", "shop")
    kept = postgres.ask(database, "select label, api_key from feedback where request_id = 'request-1' order by id")
    assert kept == [("real", None), ("ai_generated", "shop")]
    log.close()


def test_what_is_too_old_is_deleted(postgres: Postgres, database: str) -> None:
    old, young = now() - timedelta(days=31), now() - timedelta(days=29)
    first = PredictionLog(postgres.url(database))
    first.add([row(1, time=old), row(2, time=young)])
    first.close(60)
    said = "insert into feedback (request_id, time, label) values (%s, %s, 'real'), (%s, %s, 'real')"
    postgres.ask(database, said, "request-1", old, "request-2", young)
    second = PredictionLog(postgres.url(database), retention_days=30)
    second.add([row(3, time=young)])
    second.close(60)
    left = postgres.ask(database, "select request_id from predictions order by id")
    assert left == [("request-2",), ("request-3",)]
    assert postgres.ask(database, "select request_id from feedback") == [("request-2",)]


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_restarted_in_between_loses_nothing(
    postgres: Postgres, database: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost = metrics.total("aidetect_prediction_log_lost_total")
    log = PredictionLog(postgres.url(database))
    ended = threading.Event()
    added = 0

    def keep_adding() -> None:
        nonlocal added
        while not ended.wait(0.002):
            log.add([row(added)])
            added += 1

    thread = threading.Thread(target=keep_adding)
    thread.start()
    try:
        wait_for(lambda: len(log.recent("cifake", "1.0.0", 10)) == 10)
        postgres.restart(how)
        before = added
        wait_for(lambda: log.find(f"request-{before}") is not None)
        postgres.stop(how)
        wait_for(lambda: "cannot be written" in caplog.text)
        with pytest.raises(SQLAlchemyError):
            log.recent("cifake", "1.0.0", 1)
        postgres.start()
    finally:
        ended.set()
        thread.join()
    log.close(60)
    assert postgres.ask(database, "select count(distinct request_id) from predictions") == [(added,)]
    assert metrics.total("aidetect_prediction_log_lost_total") == lost
    assert "is written again" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_wrong_password_is_a_warning_that_does_not_show_it(
    postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(postgres.url(database, password="hush-a-wrong-one"))
    log.add([row(1)])
    wait_for(lambda: "password authentication failed" in caplog.text)
    assert "hush" not in caplog.text
    log.close(60)


def indexes(postgres: Postgres, database: str) -> set[str]:
    """Return the names of the indexes that are whole, without those of primary keys."""
    query = "select indexrelid::regclass::text from pg_index where indisvalid and not indisprimary"
    mine = " and indrelid in ('predictions'::regclass, 'feedback'::regclass)"
    return {name for (name,) in postgres.ask(database, query + mine)}


def test_an_older_log_is_brought_up_to_date_while_others_open_and_write_it(postgres: Postgres, database: str) -> None:
    for statement in old_log(4, key="bigserial primary key"):
        postgres.ask(database, statement)
    # What is left of a build that was cut short: an index that is not whole.
    postgres.ask(database, "create index predictions_model_id on predictions (request_id)")
    postgres.ask(database, "update pg_index set indisvalid = false where indexrelid = 'predictions_model_id'::regclass")
    done = threading.Event()
    written = 0

    def write_as_before() -> None:
        nonlocal written
        while not done.wait(0.01):
            postgres.ask(database, OLD_ROW.format(f"beside-{written}"))
            written += 1

    older = threading.Thread(target=write_as_before)
    older.start()
    try:
        said = open_together(postgres.url(database), 3)
    finally:
        done.set()
        older.join()
    assert said.count(f"was of version 4 and is of version {len(MIGRATIONS)} now") == 1, said
    log = PredictionLog(postgres.url(database))
    rows = log.recent("cifake", "1.0.0", 100_000)
    expected = {
        "old",
        *(f"request-{number}" for number in range(3)),
        *(f"beside-{number}" for number in range(written)),
    }
    assert {one["request_id"] for one in rows} == expected
    wait_for(lambda: indexes(postgres, database) == {index.name for index in INDEXES})
    log.close()
    columns = "select indexdef from pg_indexes where indexname = 'predictions_model_id'"
    assert "(model, model_version, id)" in postgres.ask(database, columns)[0][0]


@pytest.fixture(scope="module")
def logged(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """The real service on an empty database, and the database's name; neither it nor its URL is ever printed."""
    database = postgres.new()
    settings = {"LOG_URL": postgres.url(database), "MONITOR": "true"}
    with serving(tmp_path_factory.mktemp("logged"), is_ready, **settings) as server:
        yield server, database
    printed = server.printed()
    assert "postgresql+psycopg://" not in printed
    assert PASSWORD not in printed
    assert "Traceback" not in printed, printed


def ask(server: Server, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request over a connection of its own, so that either worker may answer."""
    return httpx.request(method, server.url + path, timeout=60, **options)


def predict(server: Server) -> str:
    """Send a photo and return its answer's id."""
    answer = ask(server, "POST", "/predict", files={"file": GOOD["png"]})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def say(server: Server, request_id: str) -> httpx.Response:
    """Say what the photo of an earlier answer is."""
    return ask(server, "POST", "/feedback", json={"request_id": request_id, "label": "real"})


def value(server: Server, name: str) -> float:
    """Return a counter of the service."""
    families = text_string_to_metric_families(ask(server, "GET", "/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def rows(postgres: Postgres, database: str) -> set[str]:
    """Return the ids of all predictions in the log."""
    return {name for (name,) in postgres.ask(database, "select request_id from predictions")}


@pytest.mark.serve
def test_two_workers_log_to_one_database(postgres: Postgres, logged: tuple[Server, str]) -> None:
    server, database = logged
    told = {predict(server) for _ in range(12)}
    wait_for(lambda: told <= rows(postgres, database))
    for request_id in sorted(told)[:4]:
        assert say(server, request_id).status_code == 200
    assert postgres.ask(database, "select count(*) from feedback where label = 'real'") == [(4,)]
    assert is_error(say(server, "nobody-knows-it"), 404, "unknown_prediction")
    wait_for(lambda: ask(server, "GET", "/drift").json().get("window_size", 0) >= 12)
    assert value(server, "aidetect_prediction_log_errors_total") == 0
    assert "prediction log" not in server.printed()


@pytest.mark.serve
def test_a_stopped_database_stops_no_prediction(postgres: Postgres, logged: tuple[Server, str]) -> None:
    server, database = logged
    known = predict(server)
    wait_for(lambda: known in rows(postgres, database))
    postgres.stop()
    try:
        meanwhile = {predict(server) for _ in range(12)}
        wait_for(lambda: ask(server, "GET", "/drift").status_code == 503)  # until then it told what it saw before
        for _ in range(4):
            assert is_error(say(server, known), 503, "log_unavailable")
            assert ask(server, "GET", "/health").json()["status"] == "healthy"
            assert ask(server, "GET", "/readyz").status_code == 200
        wait_for(lambda: "cannot be written" in server.printed())
    finally:
        postgres.start()
    wait_for(lambda: meanwhile <= rows(postgres, database))
    assert say(server, known).status_code == 200
    assert value(server, "aidetect_prediction_log_errors_total") > 0
    assert value(server, "aidetect_prediction_log_lost_total") == 0
    assert len(server.workers()) == 2
