"""The whole pipeline by real `dvc repro`, on the synthetic set, in a repository of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

SMALL = {
    "download": {"dataset": "synthetic"},
    "preprocess": {"validation_share": 0.15, "calibration_share": 0.15, "own_test_share": 0.3},
    "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05, "precision": "fp32", "backbone_args": {
        "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_type": "deep", "stem_width": 4, "output_stride": 16}},
    "export": {"domain_images": 200, "domain_drawings": 100},
    "release": {
        "dataset": "synthetic", "min_accuracy": 0.0, "min_auc": 0.0, "max_ece": 1.0, "min_generated_flagged": 0.0,
    },
}  # fmt: skip


class Clone:
    """A git repository with this one's files, in which git and dvc run for real."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
            "DVC_NO_ANALYTICS": "1",
        }
        for name in ("PYTHONPATH", "CIFAKE_ARCHIVE", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        result = subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "state")

    def json(self, path: str) -> dict:
        return json.loads((self.path / path).read_text(encoding="utf-8"))

    def ledger(self) -> list[str]:
        return (self.path / "reports/test_ledger.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """This repository's files with small params and nothing built yet; the whole pipeline has run once."""
    made = Clone(tmp_path_factory.mktemp("pipeline") / "clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    built = ("models/", "reports/", "dvc.lock")
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(built) and (REPO / name).is_file():
            (made.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, made.path / name)
    params = yaml.safe_load((made.path / "params.yaml").read_text(encoding="utf-8"))
    for section, values in SMALL.items():
        params[section] |= values
    (made.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    made.run("git", "init", "--quiet")
    made.commit()
    made.run("dvc", "repro")
    made.commit()
    return made


def test_every_stage_ran_and_the_candidate_is_released(clone: Clone) -> None:
    card = clone.json("models/card.json")
    assert card["metrics"]["test"]["images"] == 120
    assert clone.json("reports/release.json")["decision"] == "released"
    assert len(clone.ledger()) == 1
    stages = yaml.safe_load((clone.path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert set(stages) == {"download", "preprocess", "train", "export", "evaluate", "release"}


def test_nothing_is_left_to_do_and_git_is_clean(clone: Clone) -> None:
    assert "up to date" in clone.run("dvc", "status")
    assert "Running stage" not in clone.run("dvc", "repro")
    assert clone.run("git", "status", "--porcelain") == ""


def test_mlflow_keeps_the_run(clone: Clone) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    experiment = client.get_experiment_by_name("ai-product-photo-detector")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["epochs"] == "2"
    assert run.data.params["augment.flip"] == "True"
    assert len(client.get_metric_history(run.info.run_id, "validation_accuracy")) == 2
    assert run.data.metrics["validation.accuracy"] == clone.json("reports/metrics.json")["validation"]["accuracy"]
    assert len(run.data.tags["git_commit"].removesuffix("-dirty")) == 40
    assert "dvc_lock_sha256" in run.data.tags


def test_dvc_shows_metrics_and_plots(clone: Clone) -> None:
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json"))
    metrics = shown[""]["data"]["reports/metrics.json"]["data"]
    assert metrics == clone.json("reports/metrics.json")
    clone.run("dvc", "plots", "show", "--out", "build/dvc_plots")
    assert "training" in (clone.path / "build/dvc_plots/index.html").read_text(encoding="utf-8")
    for picture in ("roc", "precision_recall", "confusion", "reliability", "training"):
        with Image.open(clone.path / f"reports/plots/{picture}.png") as image:
            assert image.width >= 400


def test_a_fresh_clone_rebuilds_without_training(clone: Clone, tmp_path: Path) -> None:
    """`build/` and DVC's cache are absent there; the checkpoint in git spares the training."""
    clone.run("git", "clone", "--quiet", str(clone.path), str(tmp_path / "fresh"))
    fresh = Clone(tmp_path / "fresh")
    said = fresh.run("dvc", "repro")
    for stage in ("download", "preprocess", "export", "evaluate"):
        assert f"Running stage '{stage}'" in said
    assert "Stage 'train' didn't change, skipping" in said
    assert fresh.run("git", "status", "--porcelain") == ""
    assert "up to date" in fresh.run("dvc", "status")
    assert len(fresh.ledger()) == 1
    digest = (fresh.path / "build/detector.onnx").read_bytes()
    assert digest == (clone.path / "models/detector.onnx").read_bytes()


def test_own_photos_and_an_experiment(clone: Clone) -> None:
    """Photos dropped into photos/ are imported, trained on and evaluated; an experiment releases nothing."""
    rng = np.random.default_rng(0)
    for row in range(60):
        folder = clone.path / "photos" / ("real", "ai_generated")[row % 2] / f"product{row // 2}"
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)).save(folder / "a.jpg")
    clone.run("dvc", "repro", "preprocess")
    clone.commit()
    late = clone.path / "photos/real/late.jpg"
    Image.new("RGB", (50, 40), "red").save(late)
    with pytest.raises(AssertionError, match=r"photos/ and data/ differ in real/late.jpg: 'dvc repro data.dvc'"):
        clone.run("dvc", "exp", "run", "-S", "train.epochs=1")
    late.unlink()
    clone.run("git", "restore", ".")
    clone.run("dvc", "exp", "run", "--name", "short", "-S", "train.epochs=1")
    assert clone.json("reports/dataset.json")["own_photos"]["images"] == 60
    assert clone.json("reports/metrics.json")["own_photos"]["images"] > 0
    assert clone.json("reports/release.json")["decision"] == "skipped"
    assert len(clone.ledger()) == 1
    assert "short" in clone.run("dvc", "exp", "show", "--csv")
    assert "validation.accuracy" in clone.run("dvc", "metrics", "diff", "HEAD")
