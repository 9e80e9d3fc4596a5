"""Training learns, goes on after a kill, and refuses what cannot work before it starts."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stages.common import StageError, only_one
from stages.data.image_sets import ImageSet, load_images, save_images
from stages.data.synthetic import synthetic_images
from stages.training.augment import Augment, augment
from stages.training.model import build, load_checkpoint, save_checkpoint
from stages.training.prefetch import prefetch
from stages.training.trainer import TrainParams, augmented_batches, train


@pytest.fixture
def params(tiny_params):
    """Make tiny train params with the given changes."""
    return lambda **changes: TrainParams.model_validate(tiny_params(train=changes)["train"])


def sets(count: int = 100) -> tuple[ImageSet, ImageSet]:
    data = synthetic_images(count, 32, seed=0)
    return data, data


def test_one_step_moves_the_head(tmp_path: Path, params) -> None:
    model, config, history = train(params(epochs=1, batch_size=100), *sets(), tmp_path / "state.pt")
    assert len(history) == 1
    assert config["image_size"] == 32
    assert np.isfinite(history[0]["train_loss"])
    assert model.state_dict()["head.weight"].any()  # at the first step it is zero


def test_batches_are_drawn_as_they_were_for_the_released_model(params, tmp_path: Path) -> None:
    """The order of a whole epoch first, then each batch's changes, all from one generator; photos in a file or not."""
    chosen = params(batch_size=30)
    data, _ = sets()
    save_images(tmp_path / "set.safetensors", data)
    generator = torch.Generator().manual_seed(chosen.seed)
    expected = []
    images, labels = torch.from_numpy(data.images).permute(0, 3, 1, 2), torch.from_numpy(data.labels)
    for _ in range(2):
        order = torch.randperm(100, generator=generator)
        for step in range(3):  # the last 10 photos are left out
            rows = order[step * 30 : (step + 1) * 30]
            expected.append((augment(images[rows], chosen.augment, generator), labels[rows]))
    for source in (data, load_images(tmp_path / "set.safetensors")):
        generator, state = torch.Generator().manual_seed(chosen.seed), torch.get_rng_state()
        found = [batch for _ in range(2) for batch in prefetch(augmented_batches(chosen, source, generator))]
        for (photos, targets), (photos_before, targets_before) in zip(found, expected, strict=True):
            assert torch.equal(photos, photos_before)
            assert torch.equal(targets, targets_before)
        assert torch.equal(torch.get_rng_state(), state)


def test_a_warm_up_of_one_step_is_no_fault(tmp_path: Path, params) -> None:
    _, _, history = train(params(epochs=1, batch_size=25, warmup=0.2), *sets(), tmp_path / "state.pt")
    assert np.isfinite(history[0]["train_loss"])


def test_photos_that_are_not_square_train_too(tmp_path: Path, params) -> None:
    data, _ = sets()
    wide = ImageSet(data.images[:, :24], data.labels, data.flags)
    _, config, history = train(params(epochs=1, batch_size=50), wide, wide, tmp_path / "state.pt")
    assert config["image_size"] == [24, 32]
    assert np.isfinite(history[0]["validation_loss"])


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
    state = Path("build/cifake/train_state.pt")
    process = subprocess.Popen(
        workspace.command("train"), env=workspace.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not Path("build/cifake/candidate/checkpoint.safetensors").exists()
    result = workspace.run("train")
    assert result.returncode == 0, result.stderr
    assert "going on after epoch" in result.stdout
    epochs = [
        line.split(",")[0] for line in Path("reports/cifake/training.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert epochs == [str(n) for n in range(1, 9)]
    assert not state.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "resnet81"}, "resnet81.*not a timm model.*near names: resnet"),
        (
            {"backbone": "swin_tiny_patch4_window7_224", "backbone_args": {}, "stem": "stock"},
            "swin_tiny_patch4_window7_224.*not N x 768 x h x w",
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
    chosen = params(
        optimizer="sgd", learning_rate=10, weight_decay=1, epochs=60
    )  # weights ten times as large each step
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
    with only_one("build/cifake/train_state.lock", "a test"):
        workspace.refuses("train", "another training is running already")
    Path("build/cifake/train_state.pt").write_bytes(b"no state")
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
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    earlier = Path("build/cifake/candidate/checkpoint.safetensors").read_bytes()
    workspace.params(train={"backbone": "resnet81"})
    workspace.refuses("train", "resnet81")
    workspace.params(train={"epochs": 0})
    workspace.refuses("train", "train.epochs = 0")
    assert Path("build/cifake/candidate/checkpoint.safetensors").read_bytes() == earlier


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
    whole = (trained.path / "build/cifake/candidate/checkpoint.safetensors").read_bytes()
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
