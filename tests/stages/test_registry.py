"""Promote and roll back: MLflow's aliases and the folder that services read agree at every step."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest

from stages.common import StageError, sha256_file
from tests.support import tiny_model
from tools import registry

NAME = "ai-product-photo-detector"


def release(version: str, folder: Path = Path("models/cifake")) -> None:
    """Write a release of a tiny model."""
    shutil.rmtree(folder, ignore_errors=True)
    tiny_model.release(folder, version)
    (folder / "plots").mkdir()
    (folder / "reference.npz").write_bytes(b"reference")
    (folder / "plots/roc.png").write_bytes(b"plot")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A registry of its own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def served(to: Path) -> str:
    version: str = json.loads((to / "current/card.json").read_text())["version"]
    assert (to / "current/model.onnx").is_file()
    assert (to / "current/plots/roc.png").is_file()
    return version


@pytest.mark.slow
def test_promote_and_roll_back(client: mlflow.MlflowClient) -> None:
    to = Path("deploy")

    def aliases() -> dict[str, str]:
        model = client.get_registered_model(NAME)
        return {alias: client.get_model_version(NAME, str(n)).tags["version"] for alias, n in model.aliases.items()}

    release("1.0.0")
    assert registry.promote(None, to) == served(to) == "1.0.0"
    assert aliases() == {"champion": "1.0.0"}
    with pytest.raises(StageError, match="nothing to go back to"):
        registry.rollback(to)
    release("1.1.0")
    assert registry.promote(None, to) == served(to) == "1.1.0"
    assert aliases() == {"champion": "1.1.0", "previous": "1.0.0"}
    assert registry.rollback(to) == served(to) == "1.0.0"
    assert aliases() == {"champion": "1.0.0"}
    with pytest.raises(StageError, match=r"VERSION=… of these: 1\.0\.0, 1\.1\.0"):  # not back to what was given up
        registry.rollback(to)
    assert served(to) == "1.0.0"
    shutil.copy(to / "1.0.0/card.json", to / "1.1.0/card.json")  # parts of two releases
    assert registry.promote("1.1.0", to) == served(to) == "1.1.0"
    shutil.rmtree(to)
    assert registry.promote("1.0.0", to) == served(to) == "1.0.0"
    assert sorted(path.name for path in to.iterdir()) == ["1.0.0", "current"]
    with pytest.raises(StageError, match=r"version 9\.9\.9 is not registered; these are: 1\.0\.0, 1\.1\.0"):
        registry.promote("9.9.9", to)
    registry.register(Path("models/cifake"))
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2  # once each


@pytest.mark.slow
def test_what_does_not_fit_is_refused(client: mlflow.MlflowClient) -> None:
    release("1.0.0")
    registry.register(Path("models/cifake"))
    card = tiny_model.CARD | {"version": "1.0.0", "license": "another"}
    tiny_model.build(Path("models/cifake/model.onnx"), card)
    with pytest.raises(StageError, match=r"is not the file that models/card\.json was written for"):
        registry.promote(None, Path("deploy"))
    release("1.0.0")
    tiny_model.build(Path("models/cifake/model.onnx"), card)
    said = json.loads(Path("models/cifake/card.json").read_text())
    said["sha256"] = sha256_file("models/cifake/model.onnx")
    Path("models/cifake/card.json").write_text(json.dumps(said))
    with pytest.raises(StageError, match=r"another file is registered as version 1\.0\.0"):
        registry.promote(None, Path("deploy"))
    Path("models/cifake/reference.npz").unlink()
    with pytest.raises(StageError, match=r"reference\.npz is missing"):
        registry.promote(None, Path("deploy"))
    assert not Path("deploy").exists()
