"""params.yaml is checked by name, and files appear whole or not at all."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stages import download
from stages.common import StageError, keep_only, load_params, run_stage, write_json
from stages.data.prepare import PreprocessParams
from stages.exporting.exporter import ExportParams
from stages.training.trainer import TrainParams

SCHEMAS = {"train": TrainParams, "preprocess": PreprocessParams, "export": ExportParams}


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("train", {"epochs": 0}, "train.epochs = 0"),
        ("train", {"learning_rate": -1}, "train.learning_rate = -1"),
        ("train", {"epoch": 3}, "train.epoch = 3"),
        ("train", {"precision": "int4"}, "train.precision = 'int4'"),
        ("train", {"augment": {}}, "train.augment.flip"),
        ("preprocess", {"validation_share": 0.45, "calibration_share": 0.45}, "less than a tenth"),
        ("export", {"flag_alphas": [0.05]}, "0.01 must be among them"),
    ],
)
def test_a_param_out_of_range_is_named(workspace, section, change, words) -> None:
    workspace.params(**{section: change})
    with pytest.raises(StageError, match=words):
        load_params(section, SCHEMAS[section], "cifake")


@pytest.mark.parametrize(
    "text", ["", "other: {}", "models: [", "models: 3", "models: {cifake: 3}", "models: {cifake: {train: 3}}"]
)
def test_a_broken_params_file_is_one_line(workspace, text: str) -> None:
    Path("params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=r"params\.yaml") as error:
        load_params("train", TrainParams, "cifake")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("workspace")
def test_an_unknown_model_is_one_line_that_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def line(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["stages/download.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_stage(download.main)
        assert "\n" not in str(ended.value)
        return str(ended.value)

    unknown = "error: params.yaml has no models.nosuch.download; models that have one: cifake"
    assert line("nosuch") == unknown
    for arguments in ((), ("cifake", "nosuch")):
        assert line(*arguments) == "error: usage: python -m stages.download MODEL; models in params.yaml: cifake"
    for name in ("../cifake", "Photos", "shop_photos", ""):
        assert "cannot be a model's name: use up to 40 lower-case letters" in line(name)
    # What `dvc exp run -S +models.nosuch.train.epochs=2` makes of it.
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["models"]["nosuch"] = {"train": {"epochs": 2}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert line("nosuch") == unknown


def test_a_stage_runs_the_steps_of_the_models_recipe(workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage download alone is the same for all recipes."""
    ran: list[str] = []
    frozen = SimpleNamespace(main=lambda paths: ran.append(f"frozen {paths.name}"))
    for stage in ("download", "train"):
        monkeypatch.setitem(sys.modules, f"stages.frozen.{stage}", frozen)

    def run(stage: str, recipe: object) -> str:
        models = {"shop": {"recipe": recipe} if recipe else {}, "cifake": {"recipe": "network"}}
        Path("params.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", "shop"])
        run_stage(lambda paths: ran.append(f"script {paths.name}"))
        return ran.pop()

    assert run("train", "network") == run("download", "network") == run("download", "frozen") == "script shop"
    assert run("train", "frozen") == "frozen shop"
    for recipe in ("forest", ["frozen"], 3):
        with pytest.raises(SystemExit, match=r"^error: .*models\.shop\.recipe = .*: must be one of frozen, network$"):
            run("train", recipe)
    with pytest.raises(SystemExit, match=r"^error: .*has no models\.shop\.recipe; models that have one: cifake$"):
        run("train", None)


def test_a_folder_keeps_the_files_that_are_named_and_no_other(tmp_path: Path) -> None:
    paths = [tmp_path / folder / name for folder in ("a", "b") for name in ("new", "old")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("text")
    keep_only(tmp_path / "a/new", tmp_path / "b/new")
    assert [path.is_file() for path in paths] == [True, False, True, False]


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    earlier = path.read_bytes()
    with pytest.raises(TypeError), path.open("rb"):
        write_json(path, {"a": object()})
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "room_kb"), [("download", 500), ("preprocess", 100), ("train", 10), ("export", 10), ("evaluate", 2)]
)
def test_a_full_disk_is_one_line_and_leaves_earlier_outputs(trained, workspace, stage: str, room_kb: int) -> None:
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    earlier = {path: path.read_bytes() for path in workspace.path.rglob("*") if path.is_file()}
    workspace.refuses(stage, "space" if stage == "download" else "", room_kb=room_kb, MLFLOW_TRACKING_URI="sqlite://")
    left = {path: path.read_bytes() for path in workspace.path.rglob("*") if path.is_file()}
    assert left == earlier
