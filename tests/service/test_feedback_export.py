"""What moderators said, as a table, slice by slice, and on its way into training."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from client import Client
from service.feedback import COLUMNS, disagreement, reviewed, slices
from service.log.prediction_log import PredictionLog
from stages.data.own_photos import own_photos
from tests.support.log_rows import row
from tests.support.photos import encode, photo
from tests.support.server import ROOT, Server
from tests.support.waiting import wait_for

DOCS = ROOT / "docs" / "FEEDBACK.md"


def command(log: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command line on a log."""
    whole = [sys.executable, "-m", "service.feedback", *arguments]
    environment = os.environ | {"LOG_URL": log, "PYTHONPATH": str(ROOT)}
    return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    """Six predictions, four of them reviewed, one twice."""
    made = PredictionLog(f"sqlite:///{tmp_path / 'log.db'}")
    made.add([row(number, prediction="real" if number % 2 else "ai_generated") for number in range(6)])
    made.add([row(6, credential="valid", in_domain=True, width=32, height=32, decision="flag", probability=0.999)])
    wait_for(lambda: len(made.recent("cifake", "1.0.0", 10)) == 7)
    for number, label in ((0, "real"), (1, "real"), (2, "real"), (0, "ai_generated"), (3, "ai_generated"), (6, "real")):
        made.add_feedback(f"request-{number}", label, "ann" if number else None)
    return made


def test_of_several_verdicts_the_newest_counts(log: PredictionLog) -> None:
    found = {each["request_id"]: each for each in reviewed(log, None, None)}
    assert {name: (each["label"], each["agrees"]) for name, each in found.items()} == {
        "request-0": ("ai_generated", True), "request-1": ("real", True), "request-2": ("real", False),
        "request-3": ("ai_generated", False), "request-6": ("real", False),
    }  # fmt: skip
    assert tuple(found["request-0"]) == COLUMNS
    assert (found["request-0"]["reviewer"], found["request-1"]["reviewer"]) == (None, "ann")
    assert reviewed(log, "1h", "1m") == []
    assert len(reviewed(log, "1h", None)) == 5


def test_slices_and_the_kinds_of_disagreement(log: PredictionLog) -> None:
    rows = reviewed(log, None, None)
    parts = slices(rows)
    assert {name: len(part) for name, part in parts.items()}["all"] == 5
    assert len(parts["called real"]) == 2
    assert [each["request_id"] for each in parts["credential valid"]] == ["request-6"]
    assert [each["request_id"] for each in parts["up to 32 px"]] == ["request-6"]
    whole, *others = [line.split() for line in disagreement(rows).splitlines()[1:]]
    assert whole == ["all", "5", "3", "60.0%", "2", "1"]
    shares = [float(line[-3].rstrip("%")) for line in others]
    assert shares == sorted(shares, reverse=True)
    assert disagreement([]).count("\n") == 1


def test_the_command_line(log: PredictionLog, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    done = command(url, "export", str(tmp_path / "feedback.csv"), "--since", "1h")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'feedback.csv'}: 5 reviewed predictions\n"), done.stderr
    with (tmp_path / "feedback.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [each["label"] for each in rows] == ["real", "real", "ai_generated", "ai_generated", "real"]
    done = command(url, "disagreement")
    assert done.stdout.splitlines()[1].split()[:3] == ["all", "5", "3"]
    for arguments, words in (
        (("disagreement", "--since", "soon"), "'soon' is not a time"),
        (("disagreement", "--until", "1h"), "until needs since"),
        (("export", str(tmp_path / "none" / "feedback.csv")), "No such file"),
    ):
        done = command(url, *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.serve
def test_from_a_verdict_to_an_own_photo(server: Server, tmp_path: Path) -> None:
    """docs/FEEDBACK.md, step by step."""
    (tmp_path / "catalogue").mkdir()
    labels = {"shoe-4711-1": "real", "shoe-4711-2": "real", "cup-12-1": "ai_generated"}
    with Client(server.url) as asking:
        for place, (name, label) in enumerate(labels.items()):
            path = tmp_path / "catalogue" / f"{name}.jpg"
            path.write_bytes(encode(photo(seed=place), "JPEG"))
            assert asking.predict(path, request_id=name).request_id == name
            asking.feedback(name, label)  # type: ignore[arg-type]
    log = f"sqlite:///{server.output.with_name('predictions.db')}"
    (export,) = re.findall(r"python -m (service\.feedback export.*)\n", DOCS.read_text(encoding="utf-8"))
    assert command(log, *export.split()[1:], folder=tmp_path).returncode == 0
    with (tmp_path / "feedback.csv").open(newline="") as file:
        kept = [line for line in csv.reader(file) if line[0] in {"request_id", *labels}]
    with (tmp_path / "feedback.csv").open("w", newline="") as file:
        csv.writer(file).writerows(kept)  # the service of these tests answers others too
    (copying,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    subprocess.run([sys.executable, "-c", copying], cwd=tmp_path, check=True)
    found = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "photos").rglob("*.jpg")}
    assert found == {
        "photos/real/shoe-4711/shoe-4711-1.jpg", "photos/real/shoe-4711/shoe-4711-2.jpg",
        "photos/ai_generated/cup-12/cup-12-1.jpg",
    }  # fmt: skip
    taken = own_photos(tmp_path / "photos", size=(32, 32), quality=90)
    assert sorted(taken.groups) == ["cup-12", "shoe-4711", "shoe-4711"]
