"""Only a candidate that passes every gate is read on test, once; a refusal touches nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml
from PIL import Image

from service.models.card import read_card
from service.models.detector import Detector
from stages.common import sha256_file
from stages.paths import ModelFolder
from stages.releasing.swap import repair
from tests.stages.conftest import Workspace
from tests.support.server import await_answer, free_port

RELEASED = Workspace.files.released


@pytest.fixture
def candidate(trained, workspace):
    """A workspace with a candidate scored on validation, and nothing released yet."""
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    assert (result := workspace.run("evaluate")).returncode == 0, result.stderr
    return workspace


def files_of(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def parts_of(folder: ModelFolder) -> list[Path]:
    return [folder.model, folder.checkpoint, folder.reference]


def decision() -> str:
    return json.loads(Workspace.files.release_report.read_text(encoding="utf-8"))["decision"]


def versions_read() -> list[str]:
    return [json.loads(line)["version"] for line in RELEASED.ledger.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_release_reads_test_once_and_a_refusal_leaves_models_alone(candidate) -> None:
    assert (result := candidate.run("release")).returncode == 0, result.stderr
    assert decision() == "released"
    card = read_card(RELEASED.path)
    assert card.released.metrics["test"]["images"] == 80
    assert card.released.metrics["test_without_duplicates_and_leaks"]["images"] == 78
    assert Detector(RELEASED.path).card == card
    assert {path.name for path in RELEASED.plots.iterdir()} >= {"robustness.png", "reliability.png", "training.png"}
    for made, kept in zip(parts_of(candidate.files.candidate), parts_of(RELEASED), strict=True):
        assert made.read_bytes() == kept.read_bytes()
    assert versions_read() == ["1.0.0"]
    assert not candidate.files.next_release.path.exists()

    # The same once more: nothing is read, and a finished release is never edited.
    released, report = files_of("models"), candidate.files.release_report.read_text(encoding="utf-8")
    assert "is the released model" in candidate.run("release").stdout
    assert candidate.files.release_report.read_text(encoding="utf-8") == report
    assert released == files_of("models")

    candidate.params(export={"flip_average": False})  # another candidate of the same version
    for stage in ("export", "evaluate", "release"):
        assert (result := candidate.run(stage)).returncode == 0, result.stderr
    assert decision() == "refused"
    assert "raise export.version" in result.stdout

    candidate.params(export={"version": "1.1.0", "flip_average": False}, release={"enabled": False})
    for stage in ("export", "evaluate", "release"):
        assert candidate.run(stage).returncode == 0
    assert decision() == "disabled"

    candidate.params(export={"version": "1.1.0", "flip_average": False})
    assert candidate.run("release", DVC_EXP_BASELINE_REV="abc").returncode == 0
    assert decision() == "skipped"
    assert released == files_of("models")

    assert candidate.run("release").returncode == 0
    assert decision() == "released"
    assert versions_read() == ["1.0.0", "1.1.0"]

    # As a kill between the two renames leaves it.
    released = files_of("models")
    RELEASED.path.rename(candidate.files.next_release.path)
    shutil.copytree(candidate.files.next_release.path, candidate.files.last_release.path)
    assert "is the released model" in candidate.run("release").stdout
    assert released == files_of("models")


PUBLISH = """
import os, signal, sys
from stages.paths import ModelPaths
from stages.releasing.swap import publish

left = int(sys.argv[1])

def killed(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(killed)
publish(ModelPaths("cifake"))
"""


@pytest.mark.parametrize("before", [{"ledger.jsonl": b"1"}, {"ledger.jsonl": b"1", "card.json": b"1"}, {}])
def test_a_kill_at_any_moment_leaves_one_whole_release(workspace, before: dict[str, bytes]) -> None:
    """At each change in the file system in turn; the next run repairs what is left to do."""
    files, after = workspace.files, {"ledger.jsonl": b"12", "card.json": b"2"}
    for moment in range(20):
        for folder in ("build", "models"):
            shutil.rmtree(folder, ignore_errors=True)
        for path, content in ((files.released.path, before), (files.next_release.path, after)):
            for name, data in content.items():
                path.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        command = [sys.executable, "-c", PUBLISH, str(moment)]
        ended = subprocess.run(command, env=workspace.environment(), check=False).returncode
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        repair(files)
        left = {path.relative_to(RELEASED.path).as_posix(): data for path, data in files_of(str(RELEASED.path)).items()}
        assert left == (before if moment == 0 else after)
        assert not list(files.build.iterdir())
    assert moment > 0
    assert files_of("models") == {RELEASED.path / name: data for name, data in after.items()}


@pytest.mark.slow
def test_a_refusal_before_the_first_release_says_why(candidate) -> None:
    candidate.params(release={"min_auc": 1.0, "min_accuracy": 1.0})
    candidate.refuses("release", "cifake has no release yet", "release.min_accuracy")
    assert not RELEASED.path.exists()


@pytest.mark.slow
def test_large_photos_pass_the_gate_and_join_the_card(candidate, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    Image.new("RGB", (800, 600), "white").save(folder / "white.jpg")
    candidate.params(release={"max_ood_flagged": 0})
    assessment = json.loads(Path("reports/cifake/assessment.json").read_text(encoding="utf-8"))
    for ways in assessment["ood"].values():
        for row in ways.values():
            row["flagged"] = 0
    Path("reports/cifake/assessment.json").write_text(json.dumps(assessment), encoding="utf-8")
    result = candidate.run("release", LARGE_PHOTOS=str(folder))
    assert result.returncode == 0, result.stderr
    assert read_card(RELEASED.path).released.assessment["ood"]["large_photos"]["images"] == 1


@pytest.mark.slow
def test_large_photos_that_cannot_be_read_cost_no_reading_of_test(candidate, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no archive")
    for path, words in (("missing", "not a folder"), ("empty", "no photo"), ("text.tar", "not a folder, zip or tar")):
        candidate.refuses("release", "LARGE_PHOTOS", words, LARGE_PHOTOS=str(tmp_path / path))
    assert not RELEASED.path.exists()


@pytest.mark.slow
def test_evaluate_never_opens_test(candidate) -> None:
    shutil.rmtree(candidate.files.test)
    assert (result := candidate.run("evaluate")).returncode == 0, result.stderr
    candidate.refuses("release", "test.safetensors is missing")
    assert not RELEASED.path.exists()


@pytest.mark.slow
def test_a_release_is_challenger_in_the_registry(candidate, tmp_path_factory) -> None:
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/server.db", "--artifacts-destination", str(home / "files")]
    output = home / "output.txt"
    with output.open("w") as file:
        server = subprocess.Popen(command, cwd=home, stdout=file, stderr=file, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{url}/health", server, output)
        assert (result := candidate.run("release", MLFLOW_TRACKING_URI=url)).returncode == 0, result.stderr
        challenger = mlflow.MlflowClient(url).get_model_version_by_alias("cifake", "challenger")
        assert str(challenger.version) == "1"
        assert challenger.tags["sha256"] == sha256_file(RELEASED.model)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_every_model_in_params_yaml_has_every_section() -> None:
    params = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))
    for sections in params["models"].values():
        assert list(sections) == ["recipe", "download", "preprocess", "train", "export", "evaluate", "release"]
