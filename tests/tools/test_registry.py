"""Promote and roll back: MLflow's aliases and the folder that services read agree at every step."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from service.models.card import read_card
from service.models.detector import Detector
from stages.common import StageError
from tests.support import tiny_frozen, tiny_model
from tests.support.tiny_frozen import ENCODER
from tools import registry

OLD_NAME = "ai-product-photo-detector"
TO = Path("deploy")


def release(version: str, name: str = "cifake", folder: Path | None = None) -> Path:
    """Write a release of a tiny model; return its folder."""
    folder = folder or Path("models") / name
    shutil.rmtree(folder, ignore_errors=True)
    tiny_model.release(folder, version)
    (folder / "card.json").write_text(read_card(folder).model_copy(update={"name": name}).to_json())
    (folder / "plots").mkdir()
    (folder / "reference.npz").write_bytes(b"reference")
    (folder / "plots/roc.png").write_bytes(b"plot")
    return folder


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mlflow.MlflowClient]:
    """A registry of its own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")  # absolute: MLflow keeps stores by this name
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def served(name: str = "cifake") -> str:
    """Return the version that a service with MODELS=deploy/models finds."""
    folder = TO / "models" / name
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.onnx", "plots", "reference.npz"]
    assert (folder / "plots/roc.png").is_file()
    card = read_card(folder)
    assert card.name == name
    return card.version


def aliases(client: mlflow.MlflowClient, name: str = "cifake") -> dict[str, str]:
    model = client.get_registered_model(name)
    return {alias: client.get_model_version(name, str(n)).tags["version"] for alias, n in model.aliases.items()}


@pytest.fixture
def command(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, list[str]]]:
    """Run the command line; return what it prints, and the notes beside it."""

    def run(*arguments: str) -> tuple[str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["tools.registry", *arguments])
        capsys.readouterr()
        registry.main()
        printed = capsys.readouterr()
        return printed.out, [line for line in printed.err.splitlines() if line.startswith("note: ")]

    return run


@pytest.mark.slow
def test_promote_and_roll_back(client: mlflow.MlflowClient) -> None:
    release("1.0.0")
    assert registry.promote("cifake", None, TO) == served() == "1.0.0"
    assert aliases(client) == {"champion": "1.0.0"}
    with pytest.raises(StageError, match="nothing to go back to"):
        registry.rollback("cifake", TO)
    release("1.1.0")
    assert registry.promote("cifake", None, TO) == served() == "1.1.0"
    assert aliases(client) == {"champion": "1.1.0", "previous": "1.0.0"}
    assert registry.rollback("cifake", TO) == served() == "1.0.0"
    assert aliases(client) == {"champion": "1.0.0"}
    with pytest.raises(StageError, match=r"MODEL=cifake VERSION=… of these: 1\.0\.0, 1\.1\.0"):
        registry.rollback("cifake", TO)  # not back to what was given up
    assert served() == "1.0.0"
    versions = TO / "versions/cifake"
    shutil.copy(versions / "1.0.0/card.json", versions / "1.1.0/card.json")  # parts of two releases
    assert registry.promote("cifake", "1.1.0", TO) == served() == "1.1.0"
    shutil.rmtree(TO)
    assert registry.promote("cifake", "1.0.0", TO) == served() == "1.0.0"
    assert sorted(path.name for path in TO.iterdir()) == ["models", "versions"]
    assert [path.name for path in versions.iterdir()] == ["1.0.0"]
    with pytest.raises(StageError, match=r"cifake 9\.9\.9 is not registered; these versions are: 1\.0\.0, 1\.1\.0"):
        registry.promote("cifake", "9.9.9", TO)
    registry.register(Path("models/cifake"))
    assert len(client.search_model_versions("name = 'cifake'")) == 2  # once each


@pytest.mark.slow
def test_each_model_is_swapped_alone(command: Callable[..., tuple[str, list[str]]]) -> None:
    release("1.0.0")
    assert "cifake 1.0.0 is champion, and in deploy/models/cifake: " in command("promote")[0]  # the only one
    release("2.0.0", "photos")
    with pytest.raises(StageError, match=r"name a model with --model \(MODEL=… for make\): models/ has cifake, photos"):
        command("promote")
    with pytest.raises(StageError, match="models/ has no model 'foto': there is cifake, photos"):
        command("rollback", "--model", "foto")
    command("promote", "--model", "photos")
    release("2.1.0", "photos")
    link = (TO / "models/cifake").lstat().st_ino
    command("promote", "--model", "photos")
    assert (served("cifake"), served("photos")) == ("1.0.0", "2.1.0")
    assert "photos 2.0.0 is champion" in command("rollback", "--model", "photos")[0]
    assert (served("cifake"), served("photos")) == ("1.0.0", "2.0.0")
    assert (TO / "models/cifake").lstat().st_ino == link
    lines = [line.split() for line in command("list", "--model", "photos")[0].splitlines()]
    assert [(line[:2], line[3:]) for line in lines] == [(["photos", "2.0.0"], ["champion"]), (["photos", "2.1.0"], [])]
    shutil.rmtree("models/photos")  # it stays in the registry
    assert "photos 2.1.0 is champion" in command("promote", "--model", "photos", "--version", "2.1.0")[0]
    (TO / "models/photos").unlink()
    (TO / "models/photos").mkdir()
    with pytest.raises(StageError, match="deploy/models/photos is a folder of its own: move it away"):
        registry.promote("photos", "2.0.0", TO)


@pytest.mark.slow
def test_releases_of_the_layout_before_are_promoted_and_gone_back_to(
    client: mlflow.MlflowClient, command: Callable[..., tuple[str, list[str]]]
) -> None:
    """There was one model, `detector.onnx`, registered under the project's name and laid out in deploy/current."""
    old = release("1.2.0", folder=Path("old/models"))
    (old / "model.onnx").rename(old / "detector.onnx")
    registry.register(old)
    (known,) = client.search_model_versions("name = 'cifake'")
    client.create_registered_model(OLD_NAME)
    client.create_model_version(OLD_NAME, known.source, known.run_id, tags=known.tags)
    client.set_registered_model_alias(OLD_NAME, "champion", "1")
    client.delete_registered_model("cifake")
    (TO / "1.2.0").mkdir(parents=True)
    (TO / "current").symlink_to("1.2.0")

    release("1.3.0")
    _, notes = command("promote")
    assert notes[0] == f"note: versions 1.2.0, registered as {OLD_NAME}, are versions of cifake now"
    assert notes[1].startswith("note: deploy/current is of the layout before and stays as it was: ")
    assert "MODELS=deploy/models instead of MODEL_PATH" in notes[1]
    assert aliases(client) == {"champion": "1.3.0", "previous": "1.2.0"}
    printed, notes = command("rollback")
    assert printed.startswith("cifake 1.2.0 is champion")
    assert len(notes) == 1  # that of the versions is told once
    assert served() == "1.2.0"

    older = release("1.1.0", folder=Path("older/models"))
    command("promote", "--from", str(older))
    assert served() == "1.1.0"
    assert len(client.search_model_versions("name = 'cifake'")) == 3
    assert len(client.search_model_versions(f"name = '{OLD_NAME}'")) == 1


@pytest.mark.slow
def test_what_does_not_fit_is_refused(client: mlflow.MlflowClient) -> None:
    folder = release("1.0.0")
    registry.register(folder)
    model = folder / "model.onnx"
    other = tiny_model.build(Path("other.onnx"), tiny_model.CARD | {"version": "1.0.0", "license": "another"})
    shutil.copy(other, model)
    with pytest.raises(StageError, match=r"model\.onnx is not the file that models/cifake/card\.json was written for"):
        registry.promote("cifake", None, TO)
    card = read_card(folder)
    (folder / "card.json").write_text(card.model_copy(update={"sha256": registry.sha256_file(model)}).to_json())
    with pytest.raises(StageError, match=r"another file is registered as version 1\.0\.0"):
        registry.promote("cifake", None, TO)
    (folder / "card.json").write_text(card.of_file.to_json())
    with pytest.raises(StageError, match=r"models/cifake holds a candidate, not a release"):
        registry.promote("cifake", None, TO)
    (folder / "reference.npz").unlink()
    with pytest.raises(StageError, match=r"reference\.npz is missing"):
        registry.promote("cifake", None, TO)
    assert not TO.exists()


@pytest.mark.slow
def test_an_encoder_goes_with_its_model(client: mlflow.MlflowClient) -> None:
    folder = tiny_frozen.release(Path("models/photos"))
    (folder / "reference.npz").write_bytes(b"reference")
    assert registry.promote("photos", None, TO) == "1.0.0"
    served = TO / "models/photos"
    assert sorted(path.name for path in served.iterdir()) == ["card.json", ENCODER, "model.onnx", "reference.npz"]
    assert Detector(served).version == "1.0.0"
    (served / ENCODER).write_bytes(b"parts of another release")
    assert registry.promote("photos", "1.0.0", TO) == "1.0.0"  # laid out anew
    assert (served / ENCODER).read_bytes() == (folder / ENCODER).read_bytes()
    (folder / ENCODER).write_bytes(b"another")
    with pytest.raises(StageError, match=r"encoder\.safetensors has sha256 .* put all files of one release there"):
        registry.promote("photos", None, TO)
    (folder / ENCODER).unlink()
    with pytest.raises(StageError, match=r"models/photos/encoder\.safetensors not found"):
        registry.promote("photos", None, TO)
    assert Detector(served).version == "1.0.0"
