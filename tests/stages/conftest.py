"""A workspace of its own for each test of a stage: params.yaml in a temporary folder, real files, real stages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.paths import ModelPaths

REPO = Path(__file__).resolve().parents[2]
MODEL = "cifake"
# Gates that let everything pass, for models that learned in seconds on the synthetic set.
ANYTHING_PASSES = {
    "dataset": "synthetic", "min_accuracy": 0.0, "min_class_accuracy": 0.0, "min_auc": 0.0, "max_ece": 1.0,
    "min_recall": 0.0, "max_false_positive_rate_excess": 1.0, "max_out_of_domain": 1.0,
    "min_accuracy_jpeg_40": 0.0, "min_accuracy_blur_06": 0.0, "min_accuracy_noise_01": 0.0,
    "max_ood_flagged": 10_000, "min_map_gain": -1.0, "max_file_mb": 12, "max_accuracy_loss": 1.0,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "download": {"dataset": "synthetic", "synthetic_images": 400},
    "preprocess": {"validation_share": 0.15, "calibration_share": 0.15},
    "train": {
        # Not narrower: on some processors torch 2.13 crashes in the backward pass of the shortcuts' convolutions.
        "backbone_args": {
            "layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32],
            "stem_type": "deep", "stem_width": 4, "output_stride": 16,
        },
        "epochs": 2, "batch_size": 64, "learning_rate": 0.05, "precision": "fp32",
    },
    "export": {"version": "1.0.0", "domain_images": 200, "domain_drawings": 100},
    "evaluate": {"robustness_images": 20, "explained_images": 4, "ood_images": 3},
    "release": ANYTHING_PASSES | {"robustness_images": 20, "explained_images": 4, "ood_images": 3},
}  # fmt: skip


def make_tiny_params(**changes: dict[str, Any]) -> dict[str, Any]:
    """The entry of the repository's model, made small; `changes` are sections with keys to set."""
    text = (REPO / "params.yaml").read_text(encoding="utf-8")
    params: dict[str, Any] = yaml.safe_load(text)["models"][MODEL]
    for source in (TINY, changes):
        for section, values in source.items():
            params[section] |= values
    return params


class Workspace:
    """A folder in which the stages of one model run as processes of their own.

    Attributes:
        path: the folder.
        files: the model's, relative to it.
    """

    files = ModelPaths(MODEL)

    def __init__(self, path: Path) -> None:
        self.path = path

    def params(self, **changes: dict[str, Any]) -> None:
        self.write_params(make_tiny_params(**changes))

    def write_params(self, sections: dict[str, Any]) -> None:
        """Write params.yaml with this one model."""
        text = yaml.safe_dump({"models": {self.files.name: sections}})
        (self.path / "params.yaml").write_text(text, encoding="utf-8")

    def command(self, stage: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", f"stages.{stage}", self.files.name]

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(REPO), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"} | more

    def run(self, stage: str, room_kb: int | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run one stage to its end; `room_kb` lets no file grow beyond it, as a full disk would."""
        command = self.command(stage)
        if room_kb is not None:
            command = ["bash", "-c", f'ulimit -f {room_kb}; exec "$@"', "bash", *command]
            env["PYTHONDONTWRITEBYTECODE"] = "1"  # Python would leave cut .pyc files in the repository
            env["COVERAGE_PROCESS_CONFIG"] = ""  # nor could coverage write what it saw
        return subprocess.run(
            command, cwd=self.path, env=self.environment(**env), capture_output=True, text=True, check=False
        )

    def refuses(self, stage: str, *words: str, room_kb: int | None = None, **env: str) -> None:
        """Run one stage and assert that it ends with one clear line holding `words`, and exit code 1."""
        result = self.run(stage, room_kb, **env)
        last = result.stderr.strip().splitlines()[-1]
        assert result.returncode == 1, result.stderr
        assert last.startswith("error: "), result.stderr
        assert "Traceback" not in result.stderr
        for word in words:
            assert word in last


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A temporary folder with tiny params.yaml, entered for the time of the test."""
    monkeypatch.chdir(tmp_path)
    space = Workspace(tmp_path)
    space.params()
    return space


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder where download and preprocess have run on the synthetic set; tests copy what they change."""
    space = Workspace(tmp_path_factory.mktemp("prepared"))
    space.params()
    for stage in ("download", "preprocess"):
        assert (result := space.run(stage)).returncode == 0, result.stderr
    return space


@pytest.fixture(scope="session")
def trained(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """As `prepared`, and train and export have run too."""
    space = Workspace(tmp_path_factory.mktemp("trained") / "space")
    shutil.copytree(prepared.path, space.path)
    for stage in ("train", "export"):
        assert (result := space.run(stage)).returncode == 0, result.stderr
    return space


@pytest.fixture(name="tiny_params")
def tiny_params_fixture() -> Any:
    """The function that makes small params; its keyword arguments are sections with keys to set."""
    return make_tiny_params
