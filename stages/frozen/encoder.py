"""The frozen encoder: the first blocks of a pretrained vision transformer of timm, as one file.

The file holds the matrices of the linear layers in eight bits, with one scale for each output, and everything else in
32. Arithmetic is never in eight bits: a matrix is made float again before it is used, so the scores do not depend on
the processor's way with eight bits.
"""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional

from stages.common import Params, StageError, sha256_file, whole_file
from stages.paths import ModelPaths
from stages.with_timm import import_timm

ENCODER = "encoder.safetensors"  # in a model's folder, and where its stages make it
SCALE = "_scale"  # suffix of the tensor that holds a matrix' scales
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)

Int8 = npt.NDArray[np.int8]
Float32 = npt.NDArray[np.float32]


class EncoderParams(Params):
    """Which encoder, and which of its tokens are kept.

    Attributes:
        timm: name of a vision transformer of timm, with the tag of its weights where they come from the hub.
        blocks: how many of its blocks are kept, from the first.
        image_size: side of the square that it takes, in pixels.
        smaller_sizes: sides of smaller squares, to which the same picture is shrunk and seen again.
        class_tokens: numbers of the blocks after which the class token is taken, from 1.
        patch_means: numbers of the blocks after which the mean of the patch tokens is taken.
        sha256: of the encoder's file; empty: any.
    """

    timm: str
    blocks: Annotated[int, Field(ge=1)]
    image_size: Annotated[int, Field(ge=16, le=1024)]
    smaller_sizes: tuple[Annotated[int, Field(ge=16, le=1024)], ...] = ()
    class_tokens: tuple[int, ...]
    patch_means: tuple[int, ...]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64}|)$")] = ""


class Int8Linear(nn.Module):
    """A linear layer whose matrix lies in eight bits, and is made float32 before it is used."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """Take the shape of a linear layer, not its weights."""
        super().__init__()
        self.register_buffer("weight", torch.zeros(linear.weight.shape, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(linear.out_features))
        self.register_buffer("bias", None if linear.bias is None else torch.zeros(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """float [..., in] -> float [..., out]."""
        return functional.linear(x, self.weight.to(x.dtype) * self.weight_scale.to(x.dtype)[:, None], self.bias)

    def as_float(self) -> nn.Linear:
        """Return the same layer with its matrix as float32."""
        linear = nn.Linear(self.weight.shape[1], self.weight.shape[0], bias=self.bias is not None)
        state = {"weight": self.weight.float() * self.weight_scale[:, None]}
        linear.load_state_dict(state if self.bias is None else state | {"bias": self.bias})
        return linear.requires_grad_(False)


class Encoder(nn.Module):
    """uint8 photos -> features of several depths, at one size or several."""

    mean: Tensor
    std: Tensor

    def __init__(self, vit: nn.Module, params: EncoderParams, smaller: Sequence[nn.Module] = ()) -> None:
        """Wrap a transformer that has the blocks wanted and no more.

        Args:
            vit: takes photos of `params.image_size`.
            params: of the encoder.
            smaller: the same transformer with positions for each of `params.smaller_sizes`; the weights are shared.
        """
        super().__init__()
        self.vit = vit
        self.smaller = nn.ModuleList(smaller)
        for number, side in enumerate(params.smaller_sizes):
            self.register_buffer(f"shrink_{number}", _shrinking(params.image_size, side), persistent=False)
        self.image_size = params.image_size
        self.class_tokens, self.patch_means = params.class_tokens, params.patch_means
        known: dict[str, Any] = vit.pretrained_cfg  # type: ignore[assignment]
        self.mean_std = (list(known["mean"]), list(known["std"]))
        for name, values in zip(("mean", "std"), self.mean_std, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> float32 [N, D].

        Class tokens, then patch means, each in the order of its blocks; then the same of each smaller size.
        """
        photos = images.permute(0, 3, 1, 2).float() / 255
        found = [self._features(self.vit, photos)]
        for number, vit in enumerate(self.smaller):
            shrink: Tensor = getattr(self, f"shrink_{number}")
            found.append(self._features(vit, (shrink @ photos @ shrink.T).clamp(0, 1)))
        return torch.cat(found, 1)

    def _features(self, vit: Any, photos: Tensor) -> Tensor:
        """float [N, 3, H, W] from 0 to 1 -> float32 [N, D]."""
        x = (photos - self.mean) / self.std
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x.to(vit.cls_token.dtype)))))
        tokens, means = [], []
        for number, block in enumerate(vit.blocks, 1):
            x = block(x)
            if number in self.class_tokens:
                tokens.append(x[:, 0].float())
            if number in self.patch_means:
                means.append(x[:, vit.num_prefix_tokens :].float().mean(1))
        return torch.cat([*tokens, *means], 1)

    def ready(self, precision: str) -> "Encoder":
        """Make the matrices float once, for many photos, and the arithmetic bf16 or fp32; return itself."""
        keep_memory()
        for name, layer in [(n, m) for n, m in self.vit.named_modules() if isinstance(m, Int8Linear)]:
            _replace(self.vit, name, layer.as_float())
        if precision == "bf16":
            for vit in (self.vit, *self.smaller):
                vit.bfloat16()
        return self


def keep_memory() -> None:
    """Let the C library keep memory that was freed, where it is glibc.

    A transformer takes and frees some 40 MB in each layer. By default each of these blocks comes from the system as
    pages that must be filled with zeros first, which takes as long as much of the arithmetic (bench/features.py).
    """
    with suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(option, 2**30)


def _shrinking(side: int, smaller: int) -> Tensor:
    """Return what shrinks one side of a square: float32 [smaller, side], a bicubic filter as Pillow's."""
    eye = torch.eye(side)[None, None]
    return functional.interpolate(eye, size=(smaller, side), mode="bicubic", antialias=True)[0, 0]


def _at(size: int, vit: Any, params: EncoderParams) -> nn.Module:
    """Return a transformer that shares all weights of `vit` but takes photos of another size."""
    other: Any = _cut(params)
    other.load_state_dict({"pos_embed": vit.pos_embed}, strict=False)
    other.set_input_size(img_size=size)
    for name, module in vit.named_children():
        if name != "patch_embed":  # which knows its size
            setattr(other, name, module)
    other.patch_embed.proj = vit.patch_embed.proj
    for name, parameter in vit.named_parameters(recurse=False):
        if name != "pos_embed":
            setattr(other, name, parameter)
    return other.requires_grad_(False).eval()  # type: ignore[no-any-return]


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, layer)


def _cut(params: EncoderParams, *, resized: bool = True) -> nn.Module:
    """Return timm's transformer, untrained, cut after the block that is wanted, for the size that is wanted.

    Without `resized` it takes photos of the pretraining's size.

    Raises:
        StageError: timm has none of this name, or it is of another kind.
    """
    timm = import_timm()
    name = params.timm.partition(".")[0]
    if not timm.is_model(name):
        raise StageError(f"preprocess.encoder.timm '{params.timm}' is not a timm model")
    vit = timm.create_model(name, num_classes=0)
    deepest = max([*params.class_tokens, *params.patch_means], default=0)
    if not isinstance(getattr(vit, "blocks", None), nn.Sequential) or getattr(vit, "cls_token", None) is None:
        raise StageError(f"preprocess.encoder.timm '{params.timm}' is no vision transformer with a class token")
    if not 1 <= deepest <= params.blocks <= len(vit.blocks):
        raise StageError(
            f"preprocess.encoder: blocks is {params.blocks}; it must be at least {max(deepest, 1)}, the deepest that is"
            f" read, and at most {len(vit.blocks)}, those of {name}"
        )
    vit.blocks = vit.blocks[: params.blocks]
    vit.norm = nn.Identity()  # of all blocks together
    if resized:
        vit.set_input_size(img_size=params.image_size)
    return vit  # type: ignore[no-any-return]


def _linear_layers(vit: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers of the blocks, by name."""
    return [
        (name, module)
        for name, module in vit.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.")
    ]


def load_encoder(path: Path, params: EncoderParams) -> Encoder:
    """Load an encoder's file.

    Raises:
        StageError: it is missing, truncated, of another digest, or of another architecture than `params`.
    """
    said = _verified(path, params)
    vit = _cut(params)
    for name, linear in _linear_layers(vit):
        _replace(vit, name, Int8Linear(linear))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    try:
        vit.load_state_dict(state)
    except RuntimeError as error:
        raise StageError(
            f"{path} is of another architecture ({said}) than preprocess.encoder in params.yaml says: {_REMEDY}"
        ) from error
    vit.requires_grad_(False).eval()
    return Encoder(vit, params, [_at(size, vit, params) for size in params.smaller_sizes])


_REMEDY = "'git checkout models/' restores the released one, 'python -m tools.encoder' makes another"


def _verified(path: Path, params: EncoderParams) -> str:
    """Return what an encoder's file says of itself."""
    try:
        digest = sha256_file(path)
        with safe_open(path, framework="np") as file:
            said: str = file.metadata()["encoder"]
    except FileNotFoundError as error:
        raise StageError(f"the encoder {path} is missing: {_REMEDY}") from error
    except (SafetensorError, KeyError, TypeError) as error:
        raise StageError(f"the encoder {path} is truncated or no encoder ({error}): {_REMEDY}") from error
    if params.sha256 and digest != params.sha256:
        raise StageError(
            f"the encoder {path} has sha256 {digest[:12]}..., and preprocess.encoder.sha256 in params.yaml is"
            f" {params.sha256[:12]}...: {_REMEDY}"
        )
    wanted = _identity(params)
    if said != wanted:
        raise StageError(f"the encoder {path} is {said}, and preprocess.encoder in params.yaml is {wanted}: {_REMEDY}")
    return said


def _identity(params: EncoderParams) -> str:
    return f"{params.timm}, {params.blocks} blocks, {params.image_size} px"


def encoder_file(paths: ModelPaths, params: EncoderParams) -> Path:
    """Return where the encoder lies: where it was made on this machine, else in the released model.

    Raises:
        StageError: there is none.
    """
    here = [paths.build / ENCODER, paths.released.path / ENCODER]
    found = [path for path in here if path.exists()]
    fits = [path for path in found if params.sha256 and sha256_file(path) == params.sha256]
    if not found:
        raise StageError(f"the encoder {here[0]} is missing: {_REMEDY}")
    return (fits or found)[0]


def write_encoder(path: Path, params: EncoderParams, weights: Mapping[str, Float32 | tuple[Int8, Float32]]) -> None:
    """Write an encoder's file; the same weights give the same bytes.

    Args:
        path: the file.
        params: which encoder they are of.
        weights: by timm's names; more than are needed may be there. A matrix may be in eight bits already: int8
            [out, in] and float32 [out], one scale for each output. Positions are those of the pretraining's size.

    Raises:
        StageError: weights are missing, or of another shape.
    """
    vit = _cut(params, resized=False)
    linear = {f"{name}.weight" for name, _ in _linear_layers(vit)}
    state: dict[str, npt.NDArray[Any]] = {}
    for name, there in vit.state_dict().items():
        if name not in weights:
            raise StageError(f"the weights of {params.timm} lack {name}: they are another network's")
        given = weights[name]
        if name not in linear:
            if isinstance(given, tuple):
                given = given[0] * given[1][:, None]
            state[name] = given.astype(np.float32)
        else:
            matrix, scale = given if isinstance(given, tuple) else rounded_to_8_bits(given)
            state[name], state[name + SCALE] = matrix, scale.astype(np.float32)
        if state[name].shape != tuple(there.shape):
            raise StageError(f"{name} is {list(state[name].shape)}, and {params.timm} has {list(there.shape)}")
    # Positions are brought to the wanted size once, here: then training and serving cannot differ in it.
    vit.load_state_dict({"pos_embed": torch.from_numpy(state["pos_embed"])}, strict=False)
    vit.set_input_size(img_size=params.image_size)  # type: ignore[operator]
    state["pos_embed"] = vit.state_dict()["pos_embed"].numpy().copy()
    with whole_file(path) as temporary:
        save_file(dict(sorted(state.items())), temporary, {"encoder": _identity(params)})


def rounded_to_8_bits(matrix: Float32) -> tuple[Int8, Float32]:
    """Return a matrix float32 [out, in] as int8 and one scale for each output: float32 [out]."""
    scale = np.maximum(np.abs(matrix).max(1), 1e-12) / 127
    return np.rint(matrix / scale[:, None]).astype(np.int8), scale.astype(np.float32)
