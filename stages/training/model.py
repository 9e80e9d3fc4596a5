"""The network: a timm backbone's feature map, average pooling and one linear layer."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stages.common import StageError, height_width, whole_file
from stages.with_timm import import_timm

timm = import_timm()


class Detector(nn.Module):
    """Photo -> logit of P(AI-generated).

    The head is linear on the average-pooled map, so the class activation map (Zhou et al. 2016,
    arXiv 1512.04150) is exact here: its mean plus the bias is the logit.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        maps: list[tuple[int, int, int]],
        mean: list[float],
        std: list[float],
    ) -> None:
        """Put an untrained head on a backbone.

        Args:
            backbone: one of timm's.
            channels: of its last map.
            maps: (channels, rows, columns) of the maps that its `forward_intermediates` gives of a photo.
            mean: of each colour, in 0..1.
            std: likewise.
        """
        super().__init__()
        self.backbone, self.maps = backbone, maps
        self.head = nn.Linear(channels, 1)
        nn.init.zeros_(self.head.weight)  # starts at p = 0.5, whatever the backbone's scale
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Return the feature map float [N, C, h, w] of RGB photos float [N, 3, H, W] in 0..1."""
        # nn.Module's types know nothing of what timm's models add.
        return self.as_map(self.backbone.forward_features(self.normalised(images)))  # type: ignore[operator]

    def normalised(self, images: Tensor) -> Tensor:
        """Return what the backbone takes, of RGB photos float [N, 3, H, W] in 0..1."""
        normalised: Tensor = (images - self.mean) / self.std  # type: ignore[operator]
        return normalised

    def as_map(self, features: Tensor) -> Tensor:
        """Return what the backbone gives as a map [N, C, h, w]: of a ViT's tokens [N, T, C] those of its patches."""
        if features.ndim != 3:
            return features
        _, rows, columns = self.maps[-1]
        patches = features[:, features.shape[1] - rows * columns :]  # class and register tokens come before them
        grid: Tensor = patches.transpose(1, 2).unflatten(2, (rows, columns))
        return grid

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float [N] of RGB photos float [N, 3, H, W] in 0..1."""
        logits: Tensor = self.head(self.features(images).mean((2, 3))).squeeze(1)
        return logits


def _small_stem(backbone: nn.Module) -> None:
    """Let the stem keep resolution: first convolution at stride 1 (7x7 cut to its 3x3 centre), no max-pool.

    A stock stem leaves a 1x1 map of a 32-pixel photo.
    """
    name, conv = next((n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
    if conv.kernel_size[0] > 3:
        cut = (conv.kernel_size[0] - 3) // 2
        small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        small.weight.data = conv.weight.data[:, :, cut : cut + 3, cut : cut + 3].clone()
        if conv.bias is not None and small.bias is not None:
            small.bias.data = conv.bias.data
        parent, _, attribute = name.rpartition(".")
        setattr(backbone.get_submodule(parent), attribute, small)
    else:
        conv.stride = (1, 1)
    if isinstance(getattr(backbone, "maxpool", None), nn.Module):
        backbone.maxpool = nn.Identity()


def build(config: dict[str, Any]) -> Detector:
    """Build an untrained detector (or one with pretrained weights) from its configuration.

    Args:
        config: `backbone` (timm name), `backbone_args` (timm keyword arguments), `stem` ("stock" | "small"),
            `pretrained` (false, true or the path of a safetensors file), `image_size` (pixels, or [height, width]),
            `mean`, `std`.

    Raises:
        StageError: unknown backbone or arguments, or one whose feature maps cannot be had as N x C x H x W.
    """
    name, size, pretrained = config["backbone"], height_width(config["image_size"]), config["pretrained"]
    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), n=5)) or "none: see timm.list_models()"
        raise StageError(f"train.backbone '{name}' is not a timm model; near names: {near}")
    if isinstance(pretrained, str) and not Path(pretrained).is_file():
        raise StageError(f"train.pretrained: {pretrained} does not exist: name a safetensors file, true or false")
    arguments: dict[str, Any] = {}
    if (
        known := timm.get_pretrained_cfg(name)
    ) is not None and known.fixed_input_size:  # a ViT has a token for each place
        arguments["img_size"] = size
    if isinstance(pretrained, str):
        arguments["pretrained_cfg_overlay"] = {"file": pretrained}
    try:
        backbone = timm.create_model(
            name, pretrained=bool(pretrained), num_classes=0, **arguments | config["backbone_args"]
        )
        if config["stem"] == "small":
            _small_stem(backbone)
        if isinstance(pretrained, str):
            _check_weights(Path(pretrained), backbone)
        photo = torch.zeros(1, 3, *size)
        with torch.no_grad():
            maps = backbone.eval().forward_intermediates(photo, intermediates_only=True)
            channels, shapes = backbone.num_features, [tuple(each.shape[1:]) for each in maps]
            detector = Detector(backbone, channels, shapes, config["mean"], config["std"])
            shape = tuple(detector.features(photo).shape)
    except StageError:
        raise
    except Exception as error:  # timm raises anything from TypeError to AssertionError here
        others = f" with train.backbone_args {', '.join(config['backbone_args'])}" if config["backbone_args"] else ""
        raise StageError(
            f"train.backbone '{name}' cannot be built{others} for {size[1]} x {size[0]} px:"
            f" {' '.join(repr(error).split())[:300]}."
            " Arguments of another network? -S '~models.NAME.train.backbone_args' leaves them out"
        ) from error
    if len(shape) != 4 or shape[1] != channels:
        raise StageError(f"train.backbone '{name}' gives features {shape}, not N x {channels} x h x w: choose another")
    return detector


def _check_weights(path: Path, backbone: nn.Module) -> None:
    """Refuse a weights file of another network: timm takes what fits and says nothing of the rest."""
    with safe_open(path, framework="pt") as file:
        known = set(file.keys())
    names = set(backbone.state_dict())
    if len(names & known) < 0.9 * len(names):
        raise StageError(f"train.pretrained: {path} holds {len(names & known)} of the backbone's {len(names)} tensors")


def save_checkpoint(path: str | Path, model: nn.Module, config: dict[str, Any]) -> None:
    """Write weights and full configuration, whole or not at all; the same model gives the same bytes."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with whole_file(path) as temporary:
        try:
            save_file(state, temporary, {"config": json.dumps(config, sort_keys=True)})
        except SafetensorError as error:
            raise StageError(f"cannot write {path} ({error}): free some space and run the stage again") from error


def load_checkpoint(path: str | Path) -> tuple[Detector, dict[str, Any]]:
    """Return the trained detector in eval mode on the CPU, and its configuration.

    Raises:
        StageError: the file is missing, truncated or not a checkpoint of this project.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config: dict[str, Any] = json.loads(file.metadata()["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model = build(config | {"pretrained": False})
        model.load_state_dict(state)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise StageError(
            f"{path} is missing, truncated or no checkpoint: restore it from git or run 'dvc repro train'"
        ) from error
    return model.eval(), config
