"""The whole pipeline by real `dvc repro`, on the synthetic set, in a repository of its own."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.clone import Clone, make_clone

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository in which the whole pipeline has run once."""
    made = make_clone(tmp_path_factory.mktemp("pipeline") / "clone")
    made.run("dvc", "repro")
    made.commit()
    return made


def test_every_stage_ran_and_the_candidate_is_released(clone: Clone) -> None:
    card = clone.json("models/cifake/card.json")
    assert card["metrics"]["test"]["images"] == 120
    assert clone.json("reports/cifake/release.json")["decision"] == "released"
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
    assert (
        run.data.metrics["validation.accuracy"] == clone.json("reports/cifake/metrics.json")["validation"]["accuracy"]
    )
    assert len(run.data.tags["git_commit"].removesuffix("-dirty")) == 40
    assert "dvc_lock_sha256" in run.data.tags


def test_dvc_shows_metrics_and_plots(clone: Clone) -> None:
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json"))
    metrics = shown[""]["data"]["reports/cifake/metrics.json"]["data"]
    assert metrics == clone.json("reports/cifake/metrics.json")
    clone.run("dvc", "plots", "show", "--out", "build/dvc_plots")
    assert "training" in (clone.path / "build/dvc_plots/index.html").read_text(encoding="utf-8")
    for picture in ("roc", "precision_recall", "confusion", "reliability", "training"):
        with Image.open(clone.path / f"reports/cifake/plots/{picture}.png") as image:
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
    digest = (fresh.path / "build/cifake/candidate/model.onnx").read_bytes()
    assert digest == (clone.path / "models/cifake/model.onnx").read_bytes()


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
    assert clone.json("reports/cifake/dataset.json")["own_photos"]["images"] == 60
    assert clone.json("reports/cifake/metrics.json")["own_photos"]["images"] > 0
    assert clone.json("reports/cifake/release.json")["decision"] == "skipped"
    assert len(clone.ledger()) == 1
    assert "short" in clone.run("dvc", "exp", "show", "--csv")
    assert "validation.accuracy" in clone.run("dvc", "metrics", "diff", "HEAD")
