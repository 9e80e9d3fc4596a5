"""The files that machines elsewhere read: versions are pinned, and what they name is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage
from pathspec import PathSpec

from service.models.card import read_card

REPO = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPO / ".github/workflows").glob("*.yml"))
MAKEFILE = (REPO / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_pin_their_actions_and_call_targets_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", step.get("uses", "some/action@v1.0.0")), step
            for target in re.findall(r"^make ([\w-]+)|\bmake ([\w-]+)", step.get("run", "")):
                assert re.search(rf"^{''.join(target)}:", MAKEFILE, re.MULTILINE), target
            assert "${{ inputs" not in step.get("run", ""), "a run step takes inputs from its environment only"


def test_compose_pins_its_images_and_mounts_what_is_there() -> None:
    services = yaml.safe_load((REPO / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert set(services) == {"api", "ui", "mlflow", "prometheus", "grafana", "postgres"}
    pins = dict(
        line.split("==") for line in (REPO / "constraints.txt").read_text().splitlines() if re.match(r"\w[^#]*==", line)
    )
    assert services["mlflow"]["image"].endswith(f":v{pins['mlflow']}")
    for name, service in services.items():
        assert re.search(r":(v?\d+(\.\d+)*|full|ui)$", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or source == "./deploy" or (REPO / source).is_dir(), volume
    for name in ("api", "ui"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("file", ["bentofile.yaml", "ops/bentofile.api.yaml"])
def test_images_hold_of_each_model_what_serving_needs_and_nothing_else(file: str) -> None:
    include = yaml.safe_load((REPO / file).read_text(encoding="utf-8"))["include"]
    spec = PathSpec.from_lines("gitwildmatch", include)  # as BentoML reads it
    folders = [card.parent for card in (REPO / "models").glob("*/card.json")]
    assert folders
    for folder in folders:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if spec.match_file(path.relative_to(REPO))}
        plots = {name for name in found if name.startswith("plots/")}
        encoder = read_card(folder).encoder
        assert found - plots == {"card.json", "model.onnx", "reference.npz"} | ({encoder.file} if encoder else set())
        assert plots


def test_dvc_lock_is_of_this_code_and_these_params() -> None:
    """Otherwise a fresh clone's `dvc repro` would train for an hour."""
    derived = ("build/", "data", "reports/")
    with Repo(str(REPO)) as repo:
        stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
        named = {stage.name for stage in stages}
        changed = {
            f"{stage.name}: {dep}"
            for stage in stages
            for dep in stage.deps
            if not str(dep).startswith(derived) and dep.status()
        } | {f"{stage.name}: its command" for stage in stages if stage.cmd_changed}
    assert set(yaml.safe_load((REPO / "dvc.lock").read_text(encoding="utf-8"))["stages"]) == named
    assert not changed, "'dvc repro', or 'dvc commit STAGE' where that changes nothing"


def test_the_newest_section_of_the_changelog_is_the_projects_version() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sections = re.findall(r"^## \[(.+?)\]", (REPO / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[:2] == ["Unreleased", project["version"]]
