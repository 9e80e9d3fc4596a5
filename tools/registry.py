"""The life of released models: MLflow's registry knows them by alias, a folder holds the one in service.

python -m tools.registry promote [--version 1.3.0]     that version, or the one in models/, becomes `champion`
python -m tools.registry rollback                      the one before becomes `champion` again
python -m tools.registry list                          what is registered, and which is which

`--to FOLDER` (deploy/ without it) also lays the champion's files there: FOLDER/<version>/, and a link FOLDER/current.
A service with MODEL_PATH=FOLDER/current/model.onnx takes it up while it answers. The registry is that of
MLFLOW_TRACKING_URI, or mlflow.db in the working directory.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow

from service.models.card import Card, ModelError, read_card
from stages.common import StageError, run_stage, sha256_file
from stages.tracking import EXPERIMENT

MODELS = Path("models/cifake")
FILES = ("model.onnx", "card.json", "reference.npz")  # and plots/
CHAMPION, PREVIOUS = "champion", "previous"
_HOW = "docs/RELEASES.md says how an older release is registered"
_FOLDER = "release"  # of a run's artifacts


def register(folder: Path) -> str:
    """Register the release in a folder, if its version is not; return the registry's number of it.

    Raises:
        StageError: the folder holds no whole release, or another file of this version is registered.
    """
    card = read_release(folder)
    name, version = card.name, card.version
    client = mlflow.MlflowClient()
    for known in _versions(name):
        if known.tags.get("version") == version:
            if known.tags.get("sha256") != card.sha256:
                raise StageError(f"another file is registered as version {version}: raise export.version")
            return str(known.version)
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"release {version}") as run:
        for file in FILES:
            mlflow.log_artifact(str(folder / file), _FOLDER)
        if (folder / "plots").is_dir():
            mlflow.log_artifacts(str(folder / "plots"), f"{_FOLDER}/plots")
        mlflow.log_metrics({f"test_{key}": card.released.metrics["test"][key] for key in ("accuracy", "auc", "ece")})
    source = f"runs:/{run.info.run_id}/{_FOLDER}"
    tags = {"version": version, "sha256": card.sha256, "git_commit": str(card.released.git_commit)}
    return str(client.create_model_version(name, source, run.info.run_id, tags=tags).version)


def promote(version: str | None, to: Path) -> str:
    """Make a version champion and lay its files out; return it. None: the one in models/, registered if need be.

    Raises:
        StageError: no such version is registered.
    """
    card = read_release(MODELS)
    name = card.name
    if version in (None, card.version):
        number = register(MODELS)
    else:
        numbers = {known.tags.get("version"): str(known.version) for known in _versions(name)}
        if version not in numbers:
            raise StageError(f"version {version} is not registered; these are: {_named(name)}. {_HOW}")
        number = numbers[version]
    client = mlflow.MlflowClient()
    model = client.get_model_version(name, number)
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    deploy(model, to)  # first: a champion that nobody can fetch is none
    client.set_registered_model_alias(name, CHAMPION, number)
    if before is not None and str(before) != number:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    return str(model.tags["version"])


def rollback(to: Path) -> str:
    """Make the champion before this one champion again; return its version.

    Once only: a second time would bring back what was just given up.

    Raises:
        StageError: there was none, or it was gone back to already.
    """
    name = read_release(MODELS).name
    client = mlflow.MlflowClient()
    try:
        before = client.get_model_version_by_alias(name, PREVIOUS)
    except mlflow.MlflowException as error:
        raise StageError(
            f"nothing to go back to: no other champion came before this one, or it was just gone back to. Name the "
            f"version: make promote VERSION=… of these: {_named(name)}. {_HOW}"
        ) from error
    version = promote(before.tags["version"], to)
    client.delete_registered_model_alias(name, PREVIOUS)
    return version


def deploy(model: Any, to: Path) -> None:
    """Lay a registered version's files out as <to>/<version>/, and point <to>/current there, at one stroke.

    Raises:
        StageError: what the registry holds is not what was registered.
    """
    folder = to / model.tags["version"]
    to.mkdir(parents=True, exist_ok=True)
    if not _whole(folder, model):
        with tempfile.TemporaryDirectory(dir=to, prefix=".fetching-") as fetched:
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=model.source, dst_path=fetched))
            read_release(got)
            shutil.rmtree(folder, ignore_errors=True)
            got.rename(folder)
    link = to / f".current-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(to / "current")


def _whole(folder: Path, model: Any) -> bool:
    """Tell whether a folder holds a registered version, and not parts of it or of another one."""
    try:
        card = read_release(folder)
    except StageError:
        return False
    return (card.version, card.sha256) == (model.tags["version"], model.tags["sha256"])


def read_release(folder: Path) -> Card:
    """Return the card of a release.

    Raises:
        StageError: the folder holds none, or not a whole one.
    """
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise StageError(f"{folder} holds no release: {', '.join(missing)} is missing")
    try:
        card = read_card(folder)
    except ModelError as error:
        raise StageError(str(error)) from error
    if sha256_file(folder / FILES[0]) != card.sha256:
        raise StageError(f"{folder / FILES[0]} is not the file that {folder / 'card.json'} was written for")
    return card


def _versions(name: str) -> list[Any]:
    return list(mlflow.MlflowClient().search_model_versions(f"name = '{name}'"))


def _named(name: str) -> str:
    return ", ".join(sorted(str(known.tags.get("version")) for known in _versions(name))) or "none"


def _list() -> None:
    name = read_release(MODELS).name
    known = mlflow.MlflowClient().search_registered_models(filter_string=f"name = '{name}'")
    aliases = {str(number): alias for alias, number in known[0].aliases.items()} if known else {}
    for model in sorted(_versions(name), key=lambda model: int(model.version)):
        alias = aliases.get(str(model.version), "")
        print(f"{model.tags.get('version', '?'):10} {model.tags.get('sha256', '')[:12]}  {alias}".rstrip())


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("promote", "rollback"):
        command = commands.add_parser(name)
        command.add_argument("--to", type=Path, default=Path("deploy"), help="where services look for it")
        if name == "promote":
            command.add_argument("--version", help="a registered one; without it: the one in models/")
    commands.add_parser("list")
    arguments = parser.parse_args()
    if arguments.command == "list":
        _list()
        return
    version = promote(arguments.version, arguments.to) if arguments.command == "promote" else rollback(arguments.to)
    print(
        f"version {version} is champion, and in {arguments.to / 'current'}: "
        "a service that reads it answers with it in a second or two, and /health says which it is"
    )


if __name__ == "__main__":
    run_stage(main)
