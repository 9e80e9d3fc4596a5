"""Tracking is a witness: a stage goes on whatever becomes of it."""

import sys
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest

from stages.tracking import tracked_run


def test_a_damaged_store_warns_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database, whatever its name says" * 100)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with ExitStack() as stack:
        stack.callback(mlflow.set_tracking_uri, before)
        with pytest.warns(UserWarning, match="MLflow keeps nothing of this run"):
            run = stack.enter_context(tracked_run("train", "cifake"))
        run.log_params({"epochs": 1})
        run.log_epoch({"epoch": 1, "train_loss": 0.5})
        run.set_tag("checkpoint_sha256", "abc")


def test_without_mlflow_a_stage_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as Python does where a package is not there
    with ExitStack() as stack:
        with pytest.warns(UserWarning, match="MLflow keeps nothing of this run"):
            run = stack.enter_context(tracked_run("train", "cifake"))
        run.log_params({"epochs": 1})
        run.log_artifact(Path("none"))
