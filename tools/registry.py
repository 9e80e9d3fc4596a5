"""The life of released models: MLflow's registry knows them by alias, a folder holds those in service.

python -m tools.registry promote [--model NAME] [--version 1.3.0]    that version, or the one in models/NAME, becomes
                                                                     `champion`
python -m tools.registry rollback [--model NAME]                     the one before becomes `champion` again
python -m tools.registry list [--model NAME]                         what is registered, and which is which

Without --model the only model in models/ is meant. The champion's files are laid out in `--to FOLDER` (deploy/ without
it): FOLDER/versions/<name>/<version>/, and a link FOLDER/models/<name> to them. A service with MODELS=FOLDER/models
takes it into service while it answers. The registry is that of MLFLOW_TRACKING_URI, or mlflow.db in the working
directory.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlflow

from service.models.card import CARD, MODEL, PLOTS, REFERENCE, Card, ModelError, check_encoder, read_card
from stages.common import StageError, run_command, sha256_file
from stages.tracking import EXPERIMENT

MODELS = Path("models")
CHAMPION, PREVIOUS = "champion", "previous"
_HOW = "docs/RELEASES.md says how an older release is registered"
_FOLDER = "release"  # of a run's artifacts
# Before a model was a folder there was one. It was registered under the project's name, and its file was another.
_OLD_NAME, _OLD_MODEL = "ai-product-photo-detector", "detector.onnx"
_NEW_NAME = "cifake"


def pick(name: str | None, known: Collection[str], where: str) -> str:
    """Return the model that is meant: `name`, or without it the only one.

    Args:
        name: as it was given; None: it was not.
        known: all names that there are.
        where: they are listed, for the error.

    Raises:
        StageError: there is no such model, or more than one fits.
    """
    names = ", ".join(sorted(known)) or "none"
    if name is None and len(known) == 1:
        return next(iter(known))
    if name is None:
        raise StageError(f"name a model with --model (MODEL=… for make): {where} has {names}")
    if name not in known:
        raise StageError(f"{where} has no model '{name}': there is {names}")
    return name


def register(folder: Path) -> str:
    """Register the release in a folder, if its version is not registered yet; return the registry's number of it.

    Raises:
        StageError: the folder holds no whole release, or another file of this version is registered.
    """
    card = read_release(folder)
    _take_over(card.name)
    client = mlflow.MlflowClient()
    for known in _versions(card.name):
        if known.tags.get("version") == card.version:
            if known.tags.get("sha256") != card.sha256:
                raise StageError(f"another file is registered as version {card.version}: raise export.version")
            return str(known.version)
    _create(card.name)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"release {card.name} {card.version}") as run:
        encoder = [folder / card.encoder.file] if card.encoder else []
        for file in (_model_file(folder), folder / CARD, folder / REFERENCE, *encoder):
            mlflow.log_artifact(str(file), _FOLDER)
        if (folder / PLOTS).is_dir():
            mlflow.log_artifacts(str(folder / PLOTS), f"{_FOLDER}/{PLOTS}")
        test = card.released.metrics["test"]
        mlflow.log_metrics({f"test_{key}": test[key] for key in ("accuracy", "auc", "ece")})
    source = f"runs:/{run.info.run_id}/{_FOLDER}"
    tags = {"version": card.version, "sha256": card.sha256, "git_commit": str(card.released.git_commit)}
    return str(client.create_model_version(card.name, source, run.info.run_id, tags=tags).version)


def promote(name: str, version: str | None, to: Path, folder: Path | None = None) -> str:
    """Make a version of a model champion and lay its files out; return it.

    Args:
        name: of the model.
        version: a registered one, or that of `folder`; None: that of `folder`.
        to: where services look for it.
        folder: with a release that is registered first, if it is not yet; None: models/<name>.

    Raises:
        StageError: no such version is registered, or the folder holds no whole release.
    """
    _take_over(name)
    folder = folder or MODELS / name
    numbers = {known.tags.get("version"): str(known.version) for known in _versions(name)}
    if version in numbers:
        number = numbers[version]
    elif version is None or (folder.is_dir() and read_release(folder).version == version):
        number = register(folder)
    else:
        raise StageError(f"{name} {version} is not registered; these versions are: {_named(name)}. {_HOW}")
    client = mlflow.MlflowClient()
    model = client.get_model_version(name, number)
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    deploy(model, to)  # first: a champion that nobody can fetch is none
    client.set_registered_model_alias(name, CHAMPION, number)
    if before is not None and str(before) != number:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    return str(model.tags["version"])


def rollback(name: str, to: Path) -> str:
    """Make the earlier champion champion again; return its version.

    Once only: a second rollback would bring back the version that was just given up.

    Raises:
        StageError: there was none, or it was gone back to already.
    """
    _take_over(name)
    client = mlflow.MlflowClient()
    try:
        before = client.get_model_version_by_alias(name, PREVIOUS)
    except mlflow.MlflowException as error:
        raise StageError(
            f"nothing to go back to: no other champion of {name} came before this one, or it was just gone back to. "
            f"Name the version: make promote MODEL={name} VERSION=… of these: {_named(name)}. {_HOW}"
        ) from error
    version = promote(name, before.tags["version"], to)
    client.delete_registered_model_alias(name, PREVIOUS)
    return version


def deploy(model: Any, to: Path) -> None:
    """Lay a registered version's files out, and point <to>/models/<name> there, at one stroke.

    Raises:
        StageError: what the registry holds is not what was registered, or a folder is in the link's place.
    """
    versions, link = to / "versions" / model.name, to / "models" / model.name
    folder = versions / model.tags["version"]
    if link.is_dir() and not link.is_symlink():
        raise StageError(f"{link} is a folder of its own: move it away, a link to {versions} belongs there")
    for parent in (versions, link.parent):
        parent.mkdir(parents=True, exist_ok=True)
    if not _whole(folder, model):
        with tempfile.TemporaryDirectory(dir=versions, prefix=".fetching-") as fetched:
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=model.source, dst_path=fetched))
            read_release(got)
            _model_file(got).rename(got / MODEL)
            shutil.rmtree(folder, ignore_errors=True)
            got.rename(folder)
    fresh = to / f".{model.name}-{os.getpid()}"  # not beside the link: services take what lies there for a model
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("..") / folder.relative_to(to))
    fresh.replace(link)


def read_release(folder: Path) -> Card:
    """Return the card of a release, of today's layout or of the one before.

    Raises:
        StageError: the folder holds no release, or not a whole one.
    """
    model = _model_file(folder)
    missing = [file.name for file in (model, folder / CARD, folder / REFERENCE) if not file.is_file()]
    if missing:
        raise StageError(f"{folder} holds no release: {', '.join(missing)} is missing")
    try:
        card = read_card(folder)
    except ModelError as error:
        raise StageError(str(error)) from error
    if card.release is None:
        raise StageError(f"{folder} holds a candidate, not a release: run 'make release' first")
    if sha256_file(model) != card.sha256:
        raise StageError(f"{model} is not the file that {folder / CARD} was written for")
    try:
        check_encoder(folder, card)
    except ModelError as error:
        raise StageError(str(error)) from error
    return card


def _model_file(folder: Path) -> Path:
    old = folder / _OLD_MODEL
    return old if old.is_file() else folder / MODEL


def _whole(folder: Path, model: Any) -> bool:
    """Tell whether a folder holds a registered version, and not parts of it or of another one."""
    try:
        card = read_release(folder)
    except StageError:
        return False
    return (card.version, card.sha256) == (model.tags["version"], model.tags["sha256"])


def _create(name: str) -> None:
    client = mlflow.MlflowClient()
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)


def _take_over(name: str) -> None:
    """Register under a model's own name what was registered under the project's, and say so in one line."""
    if name != _NEW_NAME:
        return
    client = mlflow.MlflowClient()
    new = {known.tags.get("version"): str(known.version) for known in _versions(name)}
    old = [known for known in _versions(_OLD_NAME) if known.tags.get("version") not in new]
    if not old:
        return
    _create(name)
    for known in sorted(old, key=lambda known: int(known.version)):
        copy = client.create_model_version(name, known.source, known.run_id, tags=known.tags)
        new[known.tags.get("version")] = str(copy.version)
    aliases = client.get_registered_model(_OLD_NAME).aliases
    if CHAMPION not in client.get_registered_model(name).aliases:
        for alias, number in aliases.items():
            version = client.get_model_version(_OLD_NAME, str(number)).tags.get("version")
            client.set_registered_model_alias(name, alias, new[version])
    taken = ", ".join(str(known.tags.get("version")) for known in old)
    print(f"note: versions {taken}, registered as {_OLD_NAME}, are versions of {name} now", file=sys.stderr)


def _versions(name: str) -> list[Any]:
    return list(mlflow.MlflowClient().search_model_versions(f"name = '{name}'"))


def _named(name: str) -> str:
    return ", ".join(sorted(str(known.tags.get("version")) for known in _versions(name))) or "none"


def _list(name: str) -> None:
    known = mlflow.MlflowClient().search_registered_models(filter_string=f"name = '{name}'")
    aliases = {str(number): alias for alias, number in known[0].aliases.items()} if known else {}
    for model in sorted(_versions(name), key=lambda model: int(model.version)):
        alias = aliases.get(str(model.version), "")
        print(f"{name} {model.tags.get('version', '?'):10} {model.tags.get('sha256', '')[:12]}  {alias}".rstrip())


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("promote", "rollback", "list"):
        options = commands.add_parser(command)
        options.add_argument("--model", help="its name; without it: the only model in models/")
        if command != "list":
            options.add_argument("--to", type=Path, default=Path("deploy"), help="where services look for it")
        if command == "promote":
            options.add_argument("--version", help="a registered one; without it: the one in the folder")
            options.add_argument(
                "--from", type=Path, dest="folder", help="a folder with the release, such as an older commit's models/"
            )
    arguments = parser.parse_args()
    if arguments.command == "promote" and arguments.folder:
        found = read_release(arguments.folder).name
        name = pick(arguments.model or found, {found}, str(arguments.folder))
    else:
        known = {path.parent.name for path in MODELS.glob(f"*/{CARD}")}
        if arguments.model and _versions(arguments.model):
            known.add(arguments.model)
        name = pick(arguments.model, known, f"{MODELS}/")
    if arguments.command == "list":
        _take_over(name)
        _list(name)
        return
    if arguments.command == "promote":
        version = promote(name, arguments.version, arguments.to, arguments.folder)
    else:
        version = rollback(name, arguments.to)
    print(
        f"{name} {version} is champion, and in {arguments.to / 'models' / name}: a service with "
        f"MODELS={arguments.to / 'models'} answers with it in a second or two, and /health says which it is"
    )
    if (arguments.to / "current").exists():
        print(
            f"note: {arguments.to / 'current'} is of the layout before and stays as it was: start services with "
            f"MODELS={arguments.to / 'models'} instead of MODEL_PATH, then remove it",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command(main)
