"""A git repository with this one's files and small params, in which git, dvc and make run for real."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from stages.paths import ModelPaths
from tests.stages.conftest import ANYTHING_PASSES, MODEL

REPO = Path(__file__).resolve().parents[2]
_OF_USERS = (  # variables that would have a run here depend on who runs it
    "PYTHONPATH", "CIFAKE_ARCHIVE", "PHOTOS_ARCHIVE", "LARGE_PHOTOS", "MLFLOW_TRACKING_URI", "MAKEFLAGS", "MAKELEVEL",
)  # fmt: skip
FEW = {"robustness_images": 40, "explained_images": 4, "ood_images": 10}
SMALL: dict[str, dict[str, Any]] = {
    "download": {"dataset": "synthetic"},
    "preprocess": {"validation_share": 0.15, "calibration_share": 0.15, "own_test_share": 0.3},
    "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05, "precision": "fp32", "backbone_args": {
        "layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32], "stem_type": "deep", "stem_width": 4,
        "output_stride": 16}},
    "export": {"domain_images": 200, "domain_drawings": 100},
    "evaluate": FEW,
    "release": ANYTHING_PASSES | FEW,
}  # fmt: skip


class Clone:
    """A git repository of its own.

    Attributes:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def tried(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command there, with the Python of these tests first on the path."""
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
            "DVC_NO_ANALYTICS": "1",
        }
        for name in (
            "PYTHONPATH",
            "CIFAKE_ARCHIVE",
            "PHOTOS_ARCHIVE",
            "LARGE_PHOTOS",
            "MLFLOW_TRACKING_URI",
            "MAKEFLAGS",
            "MAKELEVEL",
        ):
            environment.pop(name, None)
        return subprocess.run(command, cwd=self.path, env=environment, capture_output=True, text=True, check=False)

    def run(self, *command: str) -> str:
        """Run a command that must succeed; return what it prints."""
        result = self.tried(*command)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    def commit(self, *paths: str) -> None:
        """Commit everything, or some paths only."""
        self.run("git", "add", "--all", *paths)
        self.run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "state")

    def params(self, model: str = MODEL, **changes: dict[str, Any]) -> None:
        """Set keys of sections of a model in params.yaml; a model that is not there begins as a copy of the first."""
        models = yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))["models"]
        sections = copy.deepcopy(models.get(model, models[MODEL]))
        for section, values in changes.items():
            sections[section] |= values
        self.write_params(model, sections)

    def write_params(self, model: str, sections: dict[str, Any]) -> None:
        """Write the sections of a model into params.yaml."""
        params = yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))
        params["models"][model] = sections
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def json(self, path: str) -> dict[str, Any]:
        """Return what a JSON file there holds."""
        held: dict[str, Any] = json.loads((self.path / path).read_text(encoding="utf-8"))
        return held

    def ledger(self) -> list[str]:
        """Return the lines of the ledger, one for each reading of test; none where test was never read."""
        path = self.path / ModelPaths(MODEL).released.ledger
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def make_clone(path: Path) -> Clone:
    """Make a repository of this one's files as they are now, committed, and nothing built yet.

    Its params have one model, MODEL, made small: others need photos that no machine draws from a seed. Of those it has
    the releases and reports, which pages show.
    """
    made = Clone(path)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    models = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))["models"]
    made_here = (f"{ModelPaths(MODEL).released.path}/", "dvc.lock", "params.yaml", f"{ModelPaths(MODEL).reports}/")
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(made_here) and (REPO / name).is_file():
            (made.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, made.path / name)
    text = yaml.safe_dump({"models": {MODEL: models[MODEL]}}, sort_keys=False)
    (made.path / "params.yaml").write_text(text, encoding="utf-8")
    made.params(**SMALL)
    made.run("git", "init", "--quiet")
    made.commit()
    return made
