"""Every step of a model's release, in order: python -m tools.make_release [--model NAME] (make release MODEL=NAME)

Not a stage: it runs the pipeline. It may be run again at any point, until what it made is committed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.models.card import Card, read_card
from stages.common import StageError, run_command
from stages.paths import ModelPaths
from tools.registry import pick
from tools.report import __main__ as report

PARAMS = Path("params.yaml")
# What the steps write, by the beginnings of the paths: it may differ from the commit, everything else may not.
WRITTEN = (
    "dvc.lock", "data.dvc", "models/", "reports/", "README.md", "docs/ACCURACY.md", "docs/API.md", "docs/DATA.md",
    "docs/DRIFT.md", "docs/MODEL_CARD", "docs/drift_power.png",
)  # fmt: skip
WINDOWS = 10_000  # photos that bench/drift.py draws its largest windows from


def check_committed() -> None:
    """Refuse a release whose commit would not say what code and params made it.

    Raises:
        StageError: this is not a git repository, or it has uncommitted changes beside those the steps write.
    """
    # With -z names come unquoted, and without renames each entry is a status of two letters, a space and one name.
    entries = git("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z").split("\0")
    changed = [entry[3:] for entry in entries if entry and not entry[3:].startswith(WRITTEN)]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise StageError(
            f"not committed: {', '.join(changed[:5])}{more}. Commit or remove them: a release names a commit"
        )


def check_version(name: str, version: str, released: str | None) -> None:
    """Refuse a version that was released before.

    Args:
        name: of the model.
        version: its `export.version` in params.yaml.
        released: the version of its last release that was committed, if there was one.

    Raises:
        StageError: it is the same, or its numbers are lower.
    """
    if released is not None and (version == released or numbers(version) < numbers(released)):
        raise StageError(
            f"models.{name}.export.version in params.yaml is {version}, and {ModelPaths(name).released.card} has "
            f"released {released}: raise it, and commit that"
        )


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as 1.4.0 or 1.4.0-mine."""
    return tuple(map(int, re.findall(r"\d+", version.partition("-")[0])))


def committed_version(card: Path) -> str | None:
    """Return the version of the release in the last commit; that in models/ may be this one, uncommitted."""
    if not git("ls-tree", "HEAD", str(card)):
        return None
    return Card.model_validate_json(git("show", f"HEAD:{card}")).version


def git(*arguments: str) -> str:
    """Return what git prints.

    Raises:
        StageError: git is not installed, or refuses.
    """
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StageError("git is not installed, and a release names a commit") from error
    if done.returncode:
        raise StageError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def repro(name: str) -> None:
    """Run a model's stages by this environment's `dvc repro` and Python.

    Raises:
        StageError: a stage failed; its message is above.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", f"release@{name}"]
    if subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode:
        raise StageError("dvc repro failed, and nothing is released: its last lines say why")


def check_released(name: str, decision: dict[str, Any], version: str) -> None:
    """Go on only where the stage release released this version.

    Args:
        name: of the model.
        decision: its reports/<name>/release.json.
        version: its `export.version` in params.yaml.

    Raises:
        StageError: it did not; the message has every reason.
    """
    if decision["decision"] != "released":
        reasons = "".join(f"\n  {reason}" for reason in decision["reasons"])
        raise StageError(
            f"{name} {version} is not released ({decision['decision']}), and models/{name} is as it was:{reasons}"
        )
    if decision["version"] != version:
        said = f"{ModelPaths(name).release_report} is of version {decision['version']}, not {version}"
        raise StageError(f"{said}: 'dvc repro --force release@{name}'")


def measure_service(photos: int) -> None:
    """Measure what the docs say of the service with this model: the alarms, and the answers in docs/API.md.

    Args:
        photos: of validation and calibration, which the alarms are measured on.

    Raises:
        StageError: one of the two failed; what it said stands above.
    """
    commands = {}
    if photos < WINDOWS:
        print(f"bench/drift.py is left out: {photos:,} photos are too few for its windows", flush=True)
    else:
        commands["bench/drift.py"] = [sys.executable, "bench/drift.py"]
    tests = ["tests/service/test_api_docs.py", "-k", "every_command"]
    commands["the examples of docs/API.md"] = [sys.executable, "-m", "pytest", "-q", *tests]
    for what, command in commands.items():
        print(f"measuring: {what}", flush=True)
        if subprocess.run(command, env=os.environ | {"UPDATE_DOCS": "1"}, check=False).returncode:
            raise StageError(f"{what}: that failed, as its lines above say. The release stands; run this again")


def main() -> None:
    """Check, run the pipeline, write the figures where people read them, and say what to commit."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_release", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", help="its name, a key of models in params.yaml; without it: the only one")
    arguments = parser.parse_args()
    try:
        models = dict(yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["models"])
        name = pick(arguments.model, models, f"models in {PARAMS}")
        version = str(models[name]["export"]["version"])
    except (FileNotFoundError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise StageError(f"{PARAMS} has no models with export.version: run from the repository's root") from error
    paths = ModelPaths(name)
    check_committed()
    check_version(name, version, committed_version(paths.released.card))
    repro(name)
    check_released(name, json.loads(paths.release_report.read_text(encoding="utf-8")), version)
    figures = json.loads(paths.metrics.read_text(encoding="utf-8"))["validation"]
    card = read_card(paths.released.path)
    measure_service(figures["images"] + (card.calibration.images or 0))
    report.write()
    print(f"\n{name} {version} is released. What changed:\n{git('status', '--short').rstrip()}\n")
    print(f'Commit it:              git add -A && git commit -m "Release {name} {version}: …"')
    print(f"Put it into service:    make promote MODEL={name}")


if __name__ == "__main__":
    run_command(main)
