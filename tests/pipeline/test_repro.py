"""The whole pipeline by real `dvc repro`, on the synthetic set, in a repository of its own."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.clone import Clone, make_clone
from tests.support.tiny_frozen import make_encoder, small_sections

STAGES = ("download", "preprocess", "train", "export", "evaluate", "release")
pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

TAKEN = "train: nothing it depends on has changed since the release: models/cifake/checkpoint.safetensors is taken"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A repository in which the whole pipeline has run once."""
    made = make_clone(tmp_path_factory.mktemp("pipeline") / "clone")
    made.run("dvc", "repro")
    made.commit()
    return made


def test_every_stage_ran_and_the_candidate_is_released(clone: Clone) -> None:
    card = clone.json("models/cifake/card.json")
    assert card["release"]["metrics"]["test"]["images"] == 120
    assert clone.json("reports/cifake/release.json")["decision"] == "released"
    assert len(clone.ledger()) == 1
    stages = yaml.safe_load((clone.path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert set(stages) == {f"{name}@cifake" for name in STAGES}


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
    assert run.data.tags["model"] == "cifake"
    assert run.info.run_name == "train cifake"


def test_dvc_shows_metrics_and_plots(clone: Clone) -> None:
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json"))
    metrics = shown[""]["data"]["reports/cifake/metrics.json"]["data"]
    assert metrics == clone.json("reports/cifake/metrics.json")
    clone.run("dvc", "plots", "show", "--out", "build/dvc_plots")
    page = (clone.path / "build/dvc_plots/index.html").read_text(encoding="utf-8")
    assert "Loss on validation" in page
    assert "Confusion on validation" in page
    for picture in ("roc", "precision_recall", "confusion", "reliability", "training"):
        with Image.open(clone.path / f"build/cifake/candidate/plots/{picture}.png") as image:
            assert image.width >= 400


def test_a_fresh_clone_rebuilds_without_training(clone: Clone, tmp_path: Path) -> None:
    """`build/` and DVC's cache are absent there; the released checkpoint in git spares the training."""
    clone.run("git", "clone", "--quiet", str(clone.path), str(tmp_path / "fresh"))
    fresh = Clone(tmp_path / "fresh")
    said = fresh.run("dvc", "repro")
    for stage in STAGES[:-1]:
        assert f"Running stage '{stage}@cifake'" in said
    assert "Stage 'release@cifake' didn't change, skipping" in said
    assert TAKEN in said
    assert "epoch" not in said
    assert fresh.run("git", "status", "--porcelain") == ""
    assert "up to date" in fresh.run("dvc", "status")
    assert len(fresh.ledger()) == 1
    digest = (fresh.path / "build/cifake/candidate/model.onnx").read_bytes()
    assert digest == (clone.path / "models/cifake/model.onnx").read_bytes()

    # Another training does not take it, and when that one is thrown away it is taken again.
    said = fresh.run("dvc", "exp", "run", "-S", "models.cifake.train.epochs=1", "train@cifake")
    assert TAKEN not in said
    assert "'epoch': 1" in said
    assert fresh.run("git", "status", "--porcelain", "models") == ""
    fresh.run("git", "restore", ".")
    assert TAKEN in fresh.run("dvc", "repro", "train@cifake")
    # Where it lies already, only --force comes here: then it is trained, and gives the same file.
    said = fresh.run("dvc", "repro", "--force", "--single-item", "train@cifake")
    assert TAKEN not in said
    assert "'epoch': 2" in said
    assert fresh.run("git", "status", "--porcelain") == ""


def test_a_second_model_runs_beside_the_first(clone: Clone) -> None:
    """Another entry in params.yaml is all that it takes, and an edit of one leaves the other as it is."""
    clone.params("second", download={"synthetic_size": 64}, preprocess={"image_size": 64}, train={"epochs": 1})
    said = clone.run("dvc", "repro")
    for stage in STAGES:
        assert f"Running stage '{stage}@second'" in said
        assert f"Stage '{stage}@cifake' didn't change, skipping" in said
    card = clone.json("models/second/card.json")
    assert card["name"] == "second"
    assert card["input"]["width"] == 64
    assert clone.json("models/cifake/card.json")["input"]["width"] == 32
    assert len(clone.ledger()) == 1
    clone.commit()
    clone.params("second", evaluate={"explained_images": 5})
    assert set(json.loads(clone.run("dvc", "status", "--json"))) == {"evaluate@second"}
    clone.run("git", "restore", ".")


def test_own_photos_and_an_experiment(clone: Clone) -> None:
    """Photos dropped into photos/ are imported, trained on and evaluated; an experiment releases nothing."""
    rng = np.random.default_rng(0)
    for row in range(60):
        folder = clone.path / "photos" / ("real", "ai_generated")[row % 2] / f"product{row // 2}"
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)).save(folder / "a.jpg")
    clone.run("dvc", "repro", "preprocess@cifake")
    clone.commit()
    late = clone.path / "photos/real/late.jpg"
    Image.new("RGB", (50, 40), "red").save(late)
    experiment = ("dvc", "exp", "run", "-S", "models.cifake.train.epochs=1")
    with pytest.raises(AssertionError, match=r"photos/ and data/ differ in real/late.jpg: 'dvc repro data.dvc'"):
        clone.run(*experiment, "release@cifake")
    late.unlink()
    clone.run("git", "restore", ".")
    clone.run(*experiment, "--name", "short", "release@cifake")
    assert clone.json("reports/cifake/dataset.json")["own_photos"]["images"] == 60
    assert clone.json("reports/cifake/metrics.json")["own_photos"]["images"] > 0
    assert clone.json("reports/cifake/release.json")["decision"] == "skipped"
    assert clone.run("git", "status", "--porcelain", "models") == ""
    assert "short" in clone.run("dvc", "exp", "show", "--csv")
    assert "validation.accuracy" in clone.run("dvc", "metrics", "diff", "HEAD")


def test_a_model_on_a_frozen_encoder_and_own_photos(clone: Clone, tmp_path: Path) -> None:
    """The other recipe goes the same way: released, rebuilt without training, and fitted again with own photos."""
    clone.run("git", "clone", "--quiet", str(clone.path), str(tmp_path / "first"))
    first = Clone(tmp_path / "first")
    first.write_params("shop", small_sections())
    make_encoder(first.path / "build/shop/encoder.safetensors")
    first.run("dvc", "repro", "release@shop")
    assert first.json("reports/shop/release.json")["decision"] == "released"
    first.commit()
    assert "up to date" in first.run("dvc", "status", "--with-deps", "release@shop")

    first.run("git", "clone", "--quiet", str(first.path), str(tmp_path / "fresh"))
    fresh = Clone(tmp_path / "fresh")
    assert TAKEN.replace("cifake", "shop") in fresh.run("dvc", "repro", "release@shop")
    assert fresh.run("git", "status", "--porcelain") == ""
    for part in ("model.onnx", "encoder.safetensors", "card.json"):
        made = (fresh.path / "build/shop/candidate" / part).read_bytes()
        assert made == (first.path / "build/shop/candidate" / part).read_bytes(), part

    rng = np.random.default_rng(0)
    for place in range(3):
        photo = fresh.path / f"photos/real/lamps/{place}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(photo)
    said = fresh.run("dvc", "repro", "evaluate@shop")
    assert TAKEN.replace("cifake", "shop") not in said
    assert fresh.json("reports/shop/dataset.json")["own_photos"] == 3
    assert fresh.json("reports/shop/metrics.json")["validation"]["own_photos"]["images"] == 3
