"""MLflow: every training is a run with its params, curves, git commit and dvc.lock digest.

Without MLFLOW_TRACKING_URI the runs go where a bare `mlflow ui` in the repository looks: sqlite:///mlflow.db. Where
MLflow is not installed, such as on a rented machine, the stages go on without it.
"""

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common import sha256_file

EXPERIMENT = "ai-product-photo-detector"


class Run:
    """One MLflow run. Tracking is a witness: when it fails it warns, and the stage goes on."""

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id

    def _try(self, what: str, call: Callable[[Any], object]) -> None:
        if self.run_id is None:
            return
        import mlflow

        try:
            call(mlflow)
        except Exception as error:  # any store's, any driver's
            warnings.warn(f"MLflow did not take {what}: {error}", stacklevel=3)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep params, nested ones by dotted name."""
        self._try("params", lambda mlflow: mlflow.log_params(dict(_flat(params)), run_id=self.run_id))

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Keep one epoch's curves; `row["epoch"]` is the step."""
        values, step = {k: v for k, v in row.items() if k != "epoch"}, int(row["epoch"])
        self._try("an epoch", lambda mlflow: mlflow.log_metrics(values, step=step, run_id=self.run_id))

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Keep the numbers of a nested mapping by dotted name."""
        numbers = {k: v for k, v in _flat(metrics) if isinstance(v, int | float)}
        self._try("metrics", lambda mlflow: mlflow.log_metrics(numbers, run_id=self.run_id))

    def log_artifact(self, path: Path) -> None:
        """Keep a file."""
        self._try("a file", lambda mlflow: mlflow.log_artifact(str(path), run_id=self.run_id))

    def set_tag(self, key: str, value: str) -> None:
        """Keep a tag."""
        self._try("a tag", lambda mlflow: mlflow.MlflowClient().set_tag(self.run_id, key, value))


def git_commit() -> str | None:
    """Return the commit that is checked out, with "-dirty" where code or params differ from it; None outside git."""

    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)

    try:
        commit = git("rev-parse", "HEAD").stdout.strip()
        # dvc.lock and the reports are not asked: the pipeline itself is rewriting them.
        dirty = git("diff", "--quiet", "HEAD", "--", "stages", "service", "dvc.yaml", "params.yaml").returncode
    except OSError:  # git is not installed
        return None
    return f"{commit}-dirty" if commit and dirty else commit or None


@contextmanager
def tracked_run(stage: str, model: str, checkpoint_sha256: str | None = None) -> Iterator[Run]:
    """Yield a run: the one that trained `checkpoint_sha256` if that is known here, else a new one.

    A new run is named as the experiment is (or else `<stage> <model>`), and its tag `model` names the model.
    """
    try:
        import mlflow

        mlflow.set_experiment(EXPERIMENT)
        known = checkpoint_sha256 and mlflow.search_runs(
            filter_string=f"tags.checkpoint_sha256 = '{checkpoint_sha256}'",
            output_format="list",
            max_results=1,
        )
        active = (
            mlflow.start_run(run_id=known[0].info.run_id)
            if known
            else mlflow.start_run(run_name=os.environ.get("DVC_EXP_NAME", f"{stage} {model}"))
        )
    except Exception as error:  # any store's, any driver's
        warnings.warn(f"MLflow keeps nothing of this run: {error}", stacklevel=2)
        yield Run(None)
        return
    with active:
        run = Run(active.info.run_id)
        if not known:
            lock = Path("dvc.lock")
            run.set_tag("model", model)
            run.set_tag("git_commit", git_commit() or "none")
            run.set_tag("dvc_lock_sha256", sha256_file(lock) if lock.exists() else "none")
        yield run


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
