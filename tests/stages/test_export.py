"""The one file: equal to torch, heat map exact, self-describing, the same bytes from the same inputs."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from service.models.card import Card
from service.models.detector import Detector
from stages.common import StageError, height_width, sha256_file
from stages.data.synthetic import synthetic_images
from stages.evaluation.scoring import open_detector
from stages.exporting.calibration import above, conformal_threshold
from stages.exporting.inference_graph import InferenceGraph, write_onnx
from stages.paths import ModelFolder
from stages.training.model import build, load_checkpoint

REPO = Path(__file__).resolve().parents[2]


def models(trained) -> dict[str, tuple[Path, Path]]:
    """The tiny model of these tests, and the released one."""
    return {
        name: (folder.model, folder.checkpoint)
        for name, folder in {
            "tiny": ModelFolder(trained.path / trained.files.candidate.path),
            "released": ModelFolder(REPO / "models/cifake"),
        }.items()
    }


@pytest.mark.parametrize("which", ["tiny", "released"])
def test_onnx_and_torch_agree(trained, which: str) -> None:
    file, checkpoint = models(trained)[which]
    detector = Detector(file)
    network, _ = load_checkpoint(checkpoint)
    twin = InferenceGraph(network, detector.card.params["export"]["flip_average"]).eval()
    twin.slope.fill_(detector.card.calibration.slope)
    twin.intercept.fill_(detector.card.calibration.intercept)
    images = synthetic_images(100, detector.height, seed=5).images
    with torch.no_grad():
        probability, embedding, heatmap, _ = twin(torch.from_numpy(images))
    scores = detector.score(images)
    assert np.abs(scores.probability - probability.numpy()).max() < 1e-4
    assert np.abs(scores.embedding - embedding.numpy()).max() < 1e-3
    assert np.abs(scores.heatmap - heatmap.numpy()).max() < 1e-2


@pytest.mark.parametrize("which", ["tiny", "released"])
def test_the_heat_map_is_exact(trained, which: str) -> None:
    """Its mean plus the bias is the logit of the probability."""
    detector = Detector(models(trained)[which][0])
    images = synthetic_images(100, detector.height, seed=6).images
    scores = detector.score(images)
    logit = scores.heatmap.astype(np.float64).mean((1, 2)) + detector.card.head_bias
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(scores.probability, abs=1e-5)


def test_a_mirrored_photo_scores_the_same_and_mirrors_its_map(trained) -> None:
    detector = Detector(models(trained)["tiny"][0])
    images = synthetic_images(100, 32, seed=7).images
    scores, mirrored = detector.score(images), detector.score(images[:, :, ::-1].copy())
    assert mirrored.probability == pytest.approx(scores.probability, abs=1e-4)
    assert np.abs(mirrored.heatmap[:, :, ::-1] - scores.heatmap).max() < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("resnet18", [64, 96]),
        ("convnext_atto", 64),
        ("mobilenetv3_small_050", 64),
        ("efficientnet_lite0", 64),
        ("ghostnet_100", [96, 64]),
        ("vit_tiny_patch16_224", [64, 96]),
    ],
)
def test_other_backbones_are_exported_and_keep_an_exact_heat_map(
    released_card: Card, tmp_path: Path, backbone: str, size: int | list[int]
) -> None:
    mean_std = {"mean": [0.5] * 3, "std": [0.25] * 3}
    network = build({"backbone": backbone, "backbone_args": {}, "stem": "stock", "pretrained": False,
                     "image_size": size} | mean_std)  # fmt: skip
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    graph = InferenceGraph(network, flip_average=False).eval()
    height, width = height_width(size)
    entry = released_card.input.model_copy(update={"height": height, "width": width})
    card = released_card.model_copy(update={"input": entry, "head_bias": graph.head_bias})
    write_onnx(tmp_path / "model.onnx", graph, card)
    detector = Detector(tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    with torch.no_grad():
        probability, embedding, heatmap, ood_score = graph(torch.from_numpy(images))
        photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        logit = network(photos)  # the way that training takes
    scores = detector.score(images)
    assert scores.probability == pytest.approx(torch.sigmoid(logit).numpy(), abs=1e-4)
    assert scores.probability == pytest.approx(probability.numpy(), abs=1e-4)
    assert scores.heatmap.shape == heatmap.shape
    assert scores.heatmap.mean((1, 2)) + card.head_bias == pytest.approx(logit.numpy(), abs=1e-3)
    assert np.abs(scores.heatmap - heatmap.numpy()).max() < 1e-2
    assert np.abs(scores.embedding - embedding.numpy()).max() < 1e-3
    assert scores.ood_score == pytest.approx(ood_score.numpy(), rel=1e-3)
    assert heatmap.shape[1] / heatmap.shape[2] == pytest.approx(height / width, abs=0.2)


@pytest.fixture
def released_card() -> Card:
    """The released model's card, as its file holds it."""
    return Detector(REPO / "models/cifake").card.of_file


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(trained, workspace) -> None:
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    before = sha256_file("build/cifake/candidate/model.onnx")
    assert (result := workspace.run("export")).returncode == 0, result.stderr
    assert sha256_file("build/cifake/candidate/model.onnx") == before


def test_the_file_says_what_it_is(trained) -> None:
    file, checkpoint = models(trained)["tiny"]
    printed = subprocess.run(
        [sys.executable, "-m", "service.models.card", str(file)], cwd=REPO, capture_output=True, text=True, check=True
    )
    card = Card.model_validate_json(printed.stdout)
    assert card.version == "1.0.0"
    assert card.labels == ("real", "ai_generated")
    assert card.checkpoint_sha256 == sha256_file(checkpoint)
    assert card.input.resize == "squash"  # with which preprocess made what it learned from
    assert card.data.digest == sha256_file(trained.path / "build/cifake/dataset/train.safetensors")
    assert card.domain.geometry.max_width == 32
    assert card.params["train"]["epochs"] == 2
    assert set(card.thresholds.flag) == {0.05, 0.01, 0.005, 0.001}


def test_no_path_of_the_building_machine_is_in_the_file(trained) -> None:
    for file, _ in models(trained).values():
        text = file.read_bytes()
        assert str(REPO).encode() not in text
        assert b"site-packages" not in text
        assert not onnx.load(file).doc_string


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing"])
def test_a_damaged_model_file_is_one_line(trained, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.onnx"
    if damage != "missing":
        whole = models(trained)["tiny"][0].read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"\x89PNG no model")
    with pytest.raises(StageError, match=r"model\.onnx") as error:
        open_detector(path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_export_without_a_sound_checkpoint_leaves_the_earlier_file(trained, workspace) -> None:
    for folder in ("build", "reports"):
        shutil.copytree(trained.path / folder, workspace.path / folder)
    before = sha256_file("build/cifake/candidate/model.onnx")
    checkpoint = Path("build/cifake/candidate/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    workspace.refuses("export", "checkpoint.safetensors", "restore it from git")
    assert sha256_file("build/cifake/candidate/model.onnx") == before


def test_the_conformal_threshold_keeps_its_promise() -> None:
    rng = np.random.default_rng(0)
    exceeded = [
        (rng.random(200) > conformal_threshold(rng.random(99), 0.1)).mean() for _ in range(300)
    ]  # fmt: skip
    assert np.mean(exceeded) == pytest.approx(0.1, abs=0.01)
    assert conformal_threshold(np.arange(1, 10) / 10, 0.1) == 0.9
    assert above(conformal_threshold(rng.random(9), 0.01)) > 1  # too few to promise anything: out of reach


def test_reaching_a_rounded_threshold_means_exceeding_the_exact_one() -> None:
    for exact in (0.0, 0.1234564, 0.1234565, 0.9999999, 1.0):
        assert exact < above(exact) <= exact + 1.1e-6
