"""What every stage needs: its section of params.yaml, whole-or-nothing files, and one clear line for an error."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from stages.paths import ModelPaths

LABELS = ("real", "ai_generated")  # the index is the label: 1 means AI-generated
RECIPES = ("frozen", "network")  # the steps of network are the scripts stages/*.py, of frozen those in stages/frozen/


class StageError(Exception):
    """A fault that the person who runs the pipeline can fix; the message says how."""


class Params(BaseModel):
    """Base of a stage's params: unknown keys and values out of range are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Params)


def _known_size(size: int | list[int]) -> int | list[int]:
    sides = [size] if isinstance(size, int) else size
    if (isinstance(size, list) and len(size) != 2) or not all(16 <= side <= 1024 for side in sides):
        raise ValueError("must be a number of pixels from 16 to 1024, or [height, width]")
    return size


ImageSize = Annotated[int | list[int], AfterValidator(_known_size)]  # of both sides, or [height, width]


def height_width(size: int | list[int]) -> tuple[int, int]:
    """Return (height, width) of a size in params.yaml."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def load_params(stage: str, schema: type[P], model: str, path: str | Path = "params.yaml") -> P:
    """Return section `models.<model>.<stage>` of params.yaml checked against `schema`.

    Raises:
        StageError: the file, the model, the section or a key is missing, unknown or out of range.
    """
    entry = _entry(model, stage, path)
    try:
        return schema.model_validate(entry)
    except ValidationError as error:
        faults = "; ".join(_fault(f"models.{model}.{stage}", e) for e in error.errors())
        raise StageError(f"{path}: {faults}") from error


def _fault(section: str, error: ErrorDetails) -> str:
    key = ".".join([section, *map(str, error["loc"])])
    if error["type"] == "missing":
        return f"{key} is missing"
    said = error["msg"].removeprefix("Value error, ")
    return f"{key} = {error['input']!r}: {said}" if error["loc"] else f"{key}: {said}"  # else of the whole section


def model_paths(name: str) -> ModelPaths:
    """Return the paths of a model.

    Raises:
        StageError: the name is not one that a model's card may have.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):  # as in service.models.card
        raise StageError(f"'{name}' cannot be a model's name: use up to 40 lower-case letters, digits and dashes")
    return ModelPaths(name)


def _models(path: str | Path) -> dict[str, Any]:
    try:
        models = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["models"]
    except FileNotFoundError as error:
        raise StageError(f"{path} not found: run from the repository's root") from error
    except (KeyError, TypeError) as error:
        raise StageError(f"{path} has no section 'models'") from error
    except yaml.YAMLError as error:
        raise StageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(models, dict):
        raise StageError(f"{path}: 'models' must have an entry for each model, and is {models!r}")
    return models


def _entry(model: str, key: str, path: str | Path = "params.yaml") -> Any:
    models = _models(path)
    try:
        return models[model][key]
    except (KeyError, TypeError) as error:
        known = [name for name, entries in models.items() if isinstance(entries, dict) and key in entries]
        raise StageError(f"{path} has no models.{model}.{key}; models that have one: {_listed(known)}") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` on success and vanishes on any failure.

    A full disk or a kill therefore leaves the earlier file as it was; what a kill leaves beside it is overwritten
    by the next try, and git and DVC ignore `.*.tmp`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:  # on the disk before the name points at it
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def only_one(path: str | Path, what: str) -> Iterator[None]:
    """Hold a lock file for the time of the block; the system lets go of it however the process ends.

    Raises:
        StageError: another process holds it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, blocking=False):
            yield
    except Timeout as error:
        raise StageError(f"{what} is running already: wait for it, or end it") from error


def keep_only(*files: Path) -> None:
    """Remove all other files from the folders of these: those of another data set, or of an earlier version."""
    for folder in {file.parent for file in files}:
        for other in set(folder.iterdir()).difference(files):
            other.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def sha256_file(path: str | Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_command(main: Callable[[], None]) -> None:
    """Run a command's main(); an error that a person can fix ends as one line and exit code 1."""
    try:
        main()
    except StageError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        # A full disk, a missing permission: the system's own words are the clear ones.
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(f"error: {error.strerror or error}{where}: fix this and run it again")


def run_stage(main: Callable[[ModelPaths], None]) -> None:
    """Run a stage on the files of the model that the command line names, as `run_command` does.

    Args:
        main: the stage as the recipe `network` has it. The stage download is the same for all recipes.
    """

    def named() -> None:
        stage = Path(sys.argv[0]).stem
        if len(sys.argv) != 2:
            usage = f"usage: python -m stages.{stage} MODEL"
            raise StageError(f"{usage}; models in params.yaml: {_listed(_models('params.yaml'))}")
        paths = model_paths(sys.argv[1])
        if stage != "download" and recipe_of(paths.name) == "frozen":
            import_module(f"stages.frozen.{stage}").main(paths)
        else:
            main(paths)

    run_command(named)


def recipe_of(model: str) -> str:
    """Return by which recipe a model is made, as params.yaml says.

    Raises:
        StageError: it says nothing, or something unknown.
    """
    recipe: str = _entry(model, "recipe")
    if recipe not in RECIPES:
        raise StageError(f"params.yaml: models.{model}.recipe = {recipe!r}: must be one of {_listed(RECIPES)}")
    return recipe
