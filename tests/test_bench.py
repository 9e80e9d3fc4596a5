"""The benches that the model card rests on."""

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides

from service.models.card import read_card
from stages.data.raw import IMAGES
from stages.training.model import build
from stages.training.trainer import TrainParams

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Import a script of bench/ as Python does that runs it."""
    monkeypatch.syspath_prepend(REPO / "bench")

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_no_script_hides_a_package() -> None:
    scripts = {path.stem for path in (REPO / "bench").glob("*.py")}  # first on the path of each of them
    assert scripts.isdisjoint(sys.stdlib_module_names | {"bench", "ops", "service", "stages", "tests", "ui"})


@pytest.mark.slow
def test_rescoring_from_the_raw_archive_finds_the_released_accuracy(shared_dir: Path) -> None:
    command = [sys.executable, "bench/rescore.py", shared_dir / "data/cifake.tar.xz"]
    printed = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    card = read_card(REPO / "models/cifake")
    found = re.fullmatch(r"20,000 test images, accuracy (\S+)\n", printed)
    assert found, printed
    assert float(found[1]) == pytest.approx(card.released.metrics["test"]["accuracy"], abs=1e-4)  # two images


def test_seeds_are_compared_by_figures_that_evaluate_writes(bench) -> None:
    seeds = bench("seeds")
    metrics = seeds.reported(REPO)
    picked = seeds.figures(metrics)
    assert picked["accuracy"] == metrics["validation"]["accuracy"]
    other = {name: value + 0.02 for name, value in picked.items()}
    for name, found in seeds.summary({"0": picked, "1": other}).items():
        assert found["mean"] == pytest.approx(picked[name] + 0.01, abs=1e-6)
        assert found["spread"] == pytest.approx(0.02 / 2**0.5, abs=1e-6)


def test_a_workspace_changes_params_and_copies_nothing(bench, tmp_path: Path) -> None:
    workspace = bench("workspace").Workspace(tmp_path / "space", train={"seed": 7})
    assert workspace.params["train"]["seed"] == 7
    assert "seed: 7" in (tmp_path / "space/params.yaml").read_text(encoding="utf-8")
    workspace.take("reports/cifake/dataset.json")
    workspace.take("reports/cifake/dataset.json")
    assert workspace.json("reports/cifake/dataset.json")["dataset"] == "cifake"
    assert (tmp_path / "space/reports/cifake/dataset.json").is_symlink()
    with pytest.raises(SystemExit, match="other params"):
        bench("workspace").Workspace(tmp_path / "space", train={"seed": 8})
    synthetic = {"dataset": "synthetic", "synthetic_images": 100}
    other = bench("workspace").Workspace(tmp_path / "other", download=synthetic)
    other.run("download")
    assert (other.folder / "build/cifake/raw" / IMAGES).is_file()


def test_photos_are_unpacked_by_label(bench, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for name in ("real/a.jpg", "shop/ai_generated/b.jpg", "README"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    bench("own_photos").unpack(tmp_path / "photos.tar", tmp_path / "data")
    found = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.jpg"))
    assert found == ["ai_generated/b.jpg", "real/a.jpg"]


def test_a_killed_catalogue_was_measured_whole() -> None:
    kill = json.loads((REPO / "reports/bench_bulk.json").read_text(encoding="utf-8"))["kill"]
    assert kill["rows"] == kill["undisturbed_rows"] == 100_000
    assert kill["checksum"] == kill["undisturbed_checksum"]


@pytest.mark.slow
def test_the_floor_and_the_rival_are_real(tmp_path: Path) -> None:
    """One short round of bench/serving.py: all sides answer, and the report has what is asked for."""
    command = [sys.executable, "bench/serving.py", "--rounds", "1", "--seconds", "0.5", "--sides", "32"]
    subprocess.run([*command, "--report", tmp_path / "report.json"], cwd=REPO, check=True, capture_output=True)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {row["who"] for row in report["rows"]} == {"floor", "ours", "plain", "tuned"}
    assert all(row["images_per_second"] > 0 for row in report["rows"])
    assert all(row["answers"] > 0 and not row["refused"] for row in report["rows"] if row["who"] != "floor")
    assert set(report["targets"]) < set(report["ratios"])


def test_backbones_are_other_networks_of_the_same_recipe(bench, tmp_path: Path) -> None:
    backbones = bench("backbones")
    recipe = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))["models"]["cifake"]["train"]
    sizes = set()
    for network in backbones.NETWORKS:
        params = tmp_path / f"{network.name}.yaml"
        shutil.copy(REPO / "params.yaml", params)
        apply_overrides(str(params), backbones.of_model([*network.settings, *backbones.QUICK]))
        train = yaml.safe_load(params.read_text(encoding="utf-8"))["models"]["cifake"]["train"]
        changed = {name for name in recipe if train[name] != recipe[name]}
        assert changed <= {"backbone", "backbone_args", "stem"}
        model = build(TrainParams.model_validate(train).model_dump() | {"image_size": 32})
        sizes.add(sum(each.numel() for each in model.parameters()))
        assert model.features(torch.zeros(2, 3, 32, 32)).shape[-1] > 1  # the stem keeps resolution
    assert len(sizes) == len(backbones.NETWORKS)


def test_the_front_holds_those_that_no_other_network_beats(bench) -> None:
    points = {"slow": (9, 0.9), "best": (5, 0.95), "worse": (6, 0.95), "fast": (1, 0.8), "poor": (2, 0.7)}
    rows = [{"name": n, "milliseconds": ms, "accuracy": accuracy} for n, (ms, accuracy) in points.items()]
    assert bench("backbones").front(rows) == ["fast", "best"]


def test_listings_are_judged_by_what_other_sources_teach(bench) -> None:
    listings = bench("listings")
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(60), 22)
    ratios = rng.normal(0, 1.8, 60)[source] + rng.normal(0, 2.2, len(source)) + np.where(source < 40, -4, 4)
    arrays = {
        "label": (source >= 40).astype(np.uint8), "probability": 1 / (1 + np.exp(-ratios)), "source": source,
        "distance": np.zeros(len(source)),
    }  # fmt: skip
    card = read_card(REPO / "models/photos")
    figures = listings.Bench(arrays, card, listings.Plan(0.05, 1, 4)).figures()
    for size in ("1", "5", "20"):
        assert figures["real"][size]["sources"] == 40
        assert figures["real"][size]["low"] <= 0.05
    assert figures["five_against_one"]["sources_of_20_and_more"]["ratio"] > 1
    assert figures["one_generated"]["5"]["named_first"] > 0.8
    assert listings.calibration_error([(0.95, 1, 1), (0.05, 1, 0)]) == pytest.approx(0.05)
    shares = listings.Shares()
    for each, value in ((1, 1), (1, 0), (2, 0), (3, 0)):
        shares.add(each, value)
    assert shares.share() == pytest.approx(1 / 6)
    low, high = shares.limits()
    assert 0 < low < 1 / 6 < high < 1
