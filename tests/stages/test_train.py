"""Training learns, goes on after a kill, and refuses what cannot work before it starts."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from stages.common import StageError, only_one
from stages.data.image_sets import ImageSet
from stages.data.synthetic import synthetic_images
from stages.train import TrainParams, train
from stages.training.augment import Augment, augment
from stages.training.model import build, load_checkpoint, save_checkpoint
from tests.support.server import free_port


@pytest.fixture
def params(tiny_params):
    """Make tiny train params with the given changes."""
    return lambda **changes: TrainParams.model_validate(tiny_params(train=changes)["train"])


def sets(count: int = 100) -> tuple[ImageSet, ImageSet]:
    data = synthetic_images(count, 32, seed=0)
    return data, data


def test_a_few_epochs_learn(tmp_path: Path, params) -> None:
    data, validation = sets(400)
    _, _, history = train(params(epochs=4, batch_size=32), data, validation, tmp_path / "state.pt")
    assert history[-1]["validation_accuracy"] > 0.8


def test_the_same_seed_gives_the_same_model_and_a_stopped_run_goes_on_as_it_would_have(tmp_path: Path, params) -> None:
    chosen = params(epochs=3, batch_size=50)
    data, validation = sets()
    whole, _, history = train(chosen, data, validation, tmp_path / "a.pt")

    class StopError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        train(chosen, data, validation, tmp_path / "b.pt", stop)
    resumed, _, resumed_history = train(chosen, data, validation, tmp_path / "b.pt")
    assert resumed_history == history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_another_run_does_not_take_over_a_saved_state(tmp_path: Path, params) -> None:
    data, validation = sets()
    train(params(epochs=1), data, validation, tmp_path / "state.pt")
    _, _, history = train(params(epochs=2, seed=1), data, validation, tmp_path / "state.pt")
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[0] != train(params(epochs=1), data, validation, tmp_path / "c.pt")[2][0]


@pytest.mark.slow
def test_kill_9_in_the_middle_then_the_same_number_of_epochs(prepared, workspace) -> None:
    shutil.copytree(prepared.path / "build", workspace.path / "build")
    workspace.params(train={"epochs": 8})
    state = Path("build/train_state.pt")
    process = subprocess.Popen(
        workspace.command("train"), env=workspace.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not Path("models/cifake/checkpoint.safetensors").exists()
    result = workspace.run("train")
    assert result.returncode == 0, result.stderr
    assert "going on after epoch" in result.stdout
    epochs = [
        line.split(",")[0] for line in Path("reports/cifake/training.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert epochs == [str(n) for n in range(1, 9)]
    assert not state.exists()


@pytest.mark.slow
def test_two_processes_train_one_model_alike_and_go_on_after_a_kill(trained, workspace) -> None:
    shutil.copytree(trained.path / "build", workspace.path / "build")
    params = {"epochs": 4, "batch_size": 32}
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    environment = workspace.environment(OMP_NUM_THREADS="1")

    def start() -> "subprocess.Popen[str]":
        command = [*torchrun, str(free_port()), "-m", "stages.train"]
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def curves() -> list[str]:
        return Path("reports/cifake/training.csv").read_text(encoding="utf-8").splitlines()

    workspace.params(train=params | {"batch_size": 33})
    process = start()
    assert "batch_size = 33 cannot be shared by 2 processes" in process.communicate(timeout=300)[1]
    assert process.returncode == 1
    workspace.params(train=params)
    process = start()
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert printed.count("'epoch': 4") == 1  # one of the two tells
    whole = curves()
    process, state = start(), Path("build/train_state.pt")
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    for each in (*psutil.Process(process.pid).children(recursive=True), process):  # torchrun's outlive it
        each.kill()
    process.communicate()
    process = start()
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "going on after epoch" in printed
    assert curves() == whole
    workspace.run("train")
    alone = curves()
    # Another order of sums and other augmentations, and the same result within noise.
    one, two = (float(lines[-1].split(",")[-1]) for lines in (alone, whole))
    assert one == pytest.approx(two, abs=0.1)
    assert min(one, two) > 0.8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "resnet81"}, "resnet81.*no timm model.*near names: resnet"),
        (
            {"backbone": "vit_tiny_patch16_224", "backbone_args": {"img_size": 32}, "stem": "stock"},
            "vit_tiny_patch16_224.*convolutional",
        ),
        ({"backbone_args": {"no_such_argument": 1}}, "cannot be built"),
        ({"optimizer": "sdg"}, "optimizer 'sdg' is unknown"),
        ({"pretrained": "no/such/file.safetensors"}, "pretrained: no/such/file.safetensors does not exist"),
    ],
)
def test_an_unknown_or_unfit_choice_is_refused_by_name(tmp_path: Path, change, words, params) -> None:
    with pytest.raises(StageError, match=words):
        train(params(**change), *sets(), tmp_path / "state.pt")


def test_augmentation_that_does_not_fit_the_photos_is_refused(params, tiny_params, tmp_path: Path) -> None:
    settings = tiny_params()["train"]["augment"] | {"shift": 32}
    with pytest.raises(StageError, match="shift = 32 must be smaller"):
        train(params(augment=settings), *sets(), tmp_path / "state.pt")


def test_a_diverged_training_is_refused(params, tmp_path: Path) -> None:
    chosen = params(learning_rate=10, weight_decay=1, epochs=60)
    with pytest.raises(StageError, match="diverged in epoch"):
        train(chosen, *sets(), tmp_path / "state.pt")


def test_a_weights_file_of_another_network_is_refused(params, tmp_path: Path) -> None:
    save_file({"foo": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(StageError, match="holds 0 of the backbone"):
        train(params(pretrained=str(tmp_path / "foreign.safetensors")), *sets(), tmp_path / "state.pt")


@pytest.mark.slow
def test_a_second_training_is_refused_and_a_damaged_state_means_a_new_start(prepared, workspace) -> None:
    shutil.copytree(prepared.path / "build", workspace.path / "build")
    workspace.params(train={"epochs": 1})
    with only_one("build/train_state.lock", "a test"):
        workspace.refuses("train", "another training is running already")
    Path("build/train_state.pt").write_bytes(b"no state")
    result = workspace.run("train")
    assert result.returncode == 0, result.stderr
    assert "starting anew" in result.stdout


def test_one_class_only_is_refused(tmp_path: Path, params) -> None:
    data, _ = sets()
    one = data.take(np.flatnonzero(data.labels == 0))
    with pytest.raises(StageError, match="validation split holds one class"):
        train(params(), data, one, tmp_path / "state.pt")


@pytest.mark.slow
def test_a_refused_run_leaves_the_earlier_checkpoint(trained, workspace) -> None:
    for folder in ("build", "models", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    earlier = Path("models/cifake/checkpoint.safetensors").read_bytes()
    workspace.params(train={"backbone": "resnet81"})
    workspace.refuses("train", "resnet81")
    workspace.params(train={"epochs": 0})
    workspace.refuses("train", "train.epochs = 0")
    assert Path("models/cifake/checkpoint.safetensors").read_bytes() == earlier


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "convnext_atto", "mobilenetv4_conv_small", "resnet18"])
def test_other_backbones_and_sizes_need_no_code(tmp_path: Path, backbone: str) -> None:
    config = {"backbone": backbone, "backbone_args": {}, "stem": "stock", "pretrained": False, "image_size": 96}
    model = build(config | {"mean": [0.5] * 3, "std": [0.5] * 3}).eval()
    save_checkpoint(tmp_path / "a", model, config | {"mean": [0.5] * 3, "std": [0.5] * 3})
    loaded, _ = load_checkpoint(tmp_path / "a")
    photos = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(photos), loaded(photos))


def test_a_truncated_or_foreign_checkpoint_is_one_line(tmp_path: Path, trained) -> None:
    whole = (trained.path / "models/cifake/checkpoint.safetensors").read_bytes()
    for name, data in {"truncated": whole[:-100], "foreign": b"PK\x03\x04 a zip", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StageError, match="restore it from git"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(StageError, match="restore it from git"):
        load_checkpoint(tmp_path / "missing")


ALL = {"shift_share": 1.0, "jpeg_share": 0.4, "blur_share": 0.3, "noise_share": 0.3, "light_share": 1.0}
NONE = {"flip": False} | dict.fromkeys(ALL, 0.0)


@pytest.fixture
def settings(tiny_params):
    """Make augmentation settings with the given changes."""
    return lambda **changes: Augment.model_validate(tiny_params()["train"]["augment"] | changes)


def test_augmentation_off_changes_nothing_and_on_stays_in_range(settings) -> None:
    images = torch.from_numpy(synthetic_images(100, 32, seed=0).images).permute(0, 3, 1, 2)
    kept = images.clone()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(images, settings(**NONE), generator), images.float() / 255)
    changed = augment(images, settings(**ALL), generator)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(images, kept)


def test_a_photo_gets_at_most_one_of_jpeg_blur_and_noise(settings) -> None:
    images = torch.full((400, 3, 16, 16), 120, dtype=torch.uint8)  # grey: neither JPEG nor blur changes it
    shares = NONE | {"jpeg_share": 0.3, "blur_share": 0.3, "noise_share": 0.3}
    changed = augment(images, settings(**shares), torch.Generator().manual_seed(0))
    noisy = (changed.std((1, 2, 3)) > 0.005).float().mean()
    assert 0.2 < noisy < 0.4
    with pytest.raises(ValueError, match="more than the whole batch"):
        settings(**shares | {"jpeg_share": 0.5})


def test_blur_smooths_and_shift_moves_whole_photos(settings) -> None:
    images = torch.from_numpy(synthetic_images(100, 32, seed=0).images).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    blurred = augment(images, settings(**NONE | {"blur_share": 1.0, "blur_sigma": [0.8, 0.8]}), generator)
    plain = images.float() / 255
    assert blurred.diff(dim=3).abs().mean() < plain.diff(dim=3).abs().mean() / 2
    assert blurred.mean((1, 2, 3)).sub(plain.mean((1, 2, 3))).abs().max() < 0.02
    moved = augment(images, settings(**NONE | {"shift_share": 1.0, "shift": 1}), generator)
    centre = moved[0, :, 1:-1, 1:-1]
    found = [
        torch.equal(centre, plain[0, :, 1 + dy : 31 + dy, 1 + dx : 31 + dx]) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]
    assert any(found)
