"""Only a candidate that passes every gate is read on test, once; a refusal touches nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image

from service.models.detector import Detector
from stages.common import sha256_file
from stages.release import LEDGER
from tests.support.server import await_answer, free_port


@pytest.fixture
def candidate(trained, workspace):
    """A workspace with a candidate scored on validation, and nothing released yet."""
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    assert (result := workspace.run("evaluate")).returncode == 0, result.stderr
    return workspace


def files_of(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def decision() -> str:
    return json.loads(Path("reports/cifake/release.json").read_text(encoding="utf-8"))["decision"]


@pytest.mark.slow
def test_release_reads_test_once_and_a_refusal_leaves_models_alone(candidate) -> None:
    assert (result := candidate.run("release")).returncode == 0, result.stderr
    assert decision() == "released"
    card = json.loads(Path("models/cifake/card.json").read_text(encoding="utf-8"))
    assert card["metrics"]["test"]["images"] == 80
    assert card["metrics"]["test_without_duplicates_and_leaks"]["images"] == 78
    assert card["model"] == Detector("models/cifake/model.onnx").card
    released = files_of("models")
    assert {"robustness.png", "deletion_insertion.png", "reliability.png"} <= {path.name for path in released}
    assert len(LEDGER.read_text(encoding="utf-8").splitlines()) == 1

    report = Path("reports/cifake/release.json").read_text(encoding="utf-8")
    assert "is the released model" in candidate.run("release").stdout
    assert Path("reports/cifake/release.json").read_text(encoding="utf-8") == report

    # An experiment that ends after the release joins the card; one of another training does not.
    train = card["model"]["params"]["train"]
    for seed_params, joins in ((train | {"epochs": 99}, False), (train | {"seed": None}, True)):
        seeds = {"train": seed_params, "seeds": {"0": {}}, "summary": {}}  # as bench/seeds.py writes it
        Path("reports/seeds.json").write_text(json.dumps(seeds), encoding="utf-8")
        assert candidate.run("release").returncode == 0
        with_seeds = json.loads(Path("models/cifake/card.json").read_text(encoding="utf-8"))
        assert ("seeds" in with_seeds["experiments"]) == joins
    assert with_seeds | {"experiments": {}} == card
    # A statistic that was added since joins the released model's reference: it needs no test.
    with np.load("build/cifake/candidate/reference.npz") as stored:
        np.savez("build/cifake/candidate/reference.npz", **stored, colourfulness=stored["contrast"])
    assert candidate.run("release").returncode == 0
    with np.load("models/cifake/reference.npz") as stored:
        assert "colourfulness" in stored.files
    assert len(LEDGER.read_text(encoding="utf-8").splitlines()) == 1
    released = files_of("models")

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
    assert len(LEDGER.read_text(encoding="utf-8").splitlines()) == 1

    assert candidate.run("release").returncode == 0
    assert decision() == "released"
    assert [json.loads(line)["version"] for line in LEDGER.read_text(encoding="utf-8").splitlines()] == [
        "1.0.0",
        "1.1.0",
    ]


@pytest.mark.slow
def test_a_refusal_before_the_first_release_says_why(candidate) -> None:
    candidate.params(release={"min_auc": 1.0, "min_accuracy": 1.0})
    candidate.refuses("release", "nothing is released yet", "release.min_accuracy")
    assert not LEDGER.exists()


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
    card = json.loads(Path("models/cifake/card.json").read_text(encoding="utf-8"))
    assert card["assessment"]["ood"]["large_photos"]["images"] == 1


@pytest.mark.slow
def test_large_photos_that_cannot_be_read_cost_no_reading_of_test(candidate, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no archive")
    for path, words in (("missing", "no folder"), ("empty", "no photo"), ("text.tar", "no folder, zip or tar")):
        candidate.refuses("release", "LARGE_PHOTOS", words, LARGE_PHOTOS=str(tmp_path / path))
    assert not LEDGER.exists()


@pytest.mark.slow
def test_evaluate_never_opens_test(candidate) -> None:
    Path("build/cifake/dataset/test.safetensors").unlink()
    assert (result := candidate.run("evaluate")).returncode == 0, result.stderr
    candidate.refuses("release", "test.safetensors is missing")
    assert not Path("models/cifake/card.json").exists()


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
        challenger = mlflow.MlflowClient(url).get_model_version_by_alias("ai-product-photo-detector", "challenger")
        assert str(challenger.version) == "1"
        assert challenger.tags["sha256"] == sha256_file("models/cifake/model.onnx")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_params_yaml_of_the_repository_has_every_section() -> None:
    params = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))
    assert list(params) == ["download", "preprocess", "train", "export", "evaluate", "release"]
