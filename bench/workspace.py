"""A folder in which the pipeline's stages run on other params than the repository's, which stays as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[1]
MODEL = "cifake"


class Workspace:
    """Runs the stages of one model in `folder`, each in a process of its own, as DVC does."""

    def __init__(self, folder: Path, **changes: dict[str, Any]) -> None:
        """Write the folder's params.yaml.

        Args:
            folder: made where it is missing; a training that was stopped there goes on.
            changes: the model's sections of params.yaml with the keys to set.
        """
        self.folder = folder
        text = (REPO / "params.yaml").read_text(encoding="utf-8")
        self.params: dict[str, Any] = yaml.safe_load(text)["models"][MODEL]
        for section, values in changes.items():
            self.params[section] |= values
        folder.mkdir(parents=True, exist_ok=True)
        file, text = folder / "params.yaml", yaml.safe_dump({"models": {MODEL: self.params}}, sort_keys=False)
        if file.exists() and file.read_text(encoding="utf-8") != text:
            sys.exit(f"error: {folder} holds the run of other params: remove it, or name another --folder")
        file.write_text(text, encoding="utf-8")

    def take(self, *paths: str) -> None:
        """Use files or folders of the repository, without copies."""
        for path in paths:
            link = self.folder / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(REPO / path)

    def run(self, *stages: str) -> None:
        """Run stages one after the other; what they print is to be seen."""
        for stage in stages:
            subprocess.run(**self.process(stage), check=True)

    def process(self, stage: str) -> dict[str, Any]:
        """Return what `subprocess` needs to run a stage: command, folder and environment."""
        environment = os.environ | {
            "PYTHONPATH": str(REPO),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder.resolve() / 'mlflow.db'}",
        }
        environment.pop("CIFAKE_ARCHIVE", None)
        return {"args": [sys.executable, "-m", f"stages.{stage}", MODEL], "cwd": self.folder, "env": environment}

    def json(self, path: str) -> Any:
        """Return what a stage wrote."""
        return json.loads((self.folder / path).read_text(encoding="utf-8"))
