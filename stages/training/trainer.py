"""Trains a detector on one image set, and measures it on another after each epoch."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from stages.common import Params, StageError, sha256_file
from stages.data.image_sets import ImageSet
from stages.training.augment import Augment, augment
from stages.training.model import Detector, build, timm
from stages.training.prefetch import prefetch
from stages.training.resume import Row, TrainingState, identity_of


class TrainParams(Params):
    """Section `train` of params.yaml."""

    backbone: str
    backbone_args: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    stem: Literal["stock", "small"]
    pretrained: bool | str
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    optimizer: str
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup: Annotated[float, Field(gt=0, lt=1)]  # share of all steps
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    precision: Literal["fp32", "bf16"]
    seed: Annotated[int, Field(ge=0)]
    augment: Augment


def train(
    params: TrainParams,
    train_set: ImageSet,
    validation_set: ImageSet,
    state_path: Path,
    on_epoch: Callable[[Row], None] = lambda _: None,
) -> tuple[Detector, dict[str, Any], list[Row]]:
    """Train for `params.epochs`; continue from `state_path` if an equal run was killed.

    Returns:
        The trained model, its full configuration, and a row of curves for every epoch.

    Raises:
        StageError: backbone, optimizer or augmentation do not fit, one class is missing, or the loss diverged.
    """
    _check(params, train_set, validation_set)
    torch.manual_seed(params.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = _configuration(params, *train_set.images.shape[1:3])
    model = build(config).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    torch.manual_seed(params.seed)  # what is drawn from here on does not depend on the network
    optimizer = _optimizer(params, model)
    steps = max(1, len(train_set) // params.batch_size)
    total = params.epochs * steps + 1
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.learning_rate, total_steps=total, cycle_momentum=False,
        pct_start=max(params.warmup, 1.5 / total),  # a warm-up of exactly one step would be a division by zero
    )  # fmt: skip
    generator = torch.Generator().manual_seed(params.seed)
    identity = identity_of(config, train_set, validation_set)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state = TrainingState(state_path, identity, parts, generator)
    history = state.restore()
    for row in history:  # the caller sees the whole run
        on_epoch(row)
    if history:
        print(f"going on after epoch {len(history)} of a run that was stopped")

    for epoch in range(len(history) + 1, params.epochs + 1):
        batches = prefetch(augmented_batches(params, train_set, generator))
        bar = tqdm(batches, f"epoch {epoch}/{params.epochs}", steps, mininterval=2)
        loss = _epoch(params, model, optimizer, scheduler, bar)
        if not math.isfinite(loss):
            raise StageError(f"training diverged in epoch {epoch}: lower train.learning_rate")
        history.append({"epoch": epoch, "train_loss": loss} | _validate(model, validation_set, device))
        print({k: round(v, 4) for k, v in history[-1].items()}, flush=True)
        state.save(history)
        on_epoch(history[-1])
    return model, config, history


def _configuration(params: TrainParams, height: int, width: int) -> dict[str, Any]:
    """Return everything that defines the model. A file of weights is named by its content's digest."""
    weights = params.pretrained
    known = {"pretrained_sha256": sha256_file(weights)} if isinstance(weights, str) and Path(weights).is_file() else {}
    return params.model_dump(mode="json") | known | {"image_size": height if height == width else [height, width]}


def augmented_batches(
    params: TrainParams, data: ImageSet, generator: torch.Generator
) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Return one epoch's batches in a random order: float32 [M, 3, H, W] in 0..1, uint8 [M] labels.

    The order and all changes are drawn from `generator` by this process, batch after batch. DataLoader's own workers
    would each need a generator; and as forked copies they would hold the lock of a training that was killed. So the
    loader has none: `prefetch` makes the next batch while the network learns from this one.
    """
    labels = torch.from_numpy(data.labels)

    def collate(rows: list[int]) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(data.images[np.array(rows)]).permute(0, 3, 1, 2)
        return augment(images, params.augment, generator), labels[rows]

    return DataLoader(
        range(len(data)),  # type: ignore[arg-type]  # rows, of which `collate` reads a whole batch
        params.batch_size,
        sampler=torch.randperm(len(data), generator=generator).tolist(),
        drop_last=len(data) >= params.batch_size,
        collate_fn=collate,
        generator=torch.Generator(),  # a seed for its workers is drawn from it: not from the run's own
    )


def _epoch(
    params: TrainParams,
    model: Detector,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    bar: "tqdm[tuple[Tensor, Tensor]]",
) -> float:
    """Take one step with each batch of `bar`; return the mean loss."""
    model.train()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss_sum, steps = 0.0, 0
    for images, labels in bar:
        batch = images.to(device, memory_format=torch.channels_last)
        target = labels.to(device).float() * (1 - 2 * params.label_smoothing) + params.label_smoothing
        with torch.autocast(device, torch.bfloat16, enabled=params.precision == "bf16"):
            logits = model(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        loss_sum += loss.item()
        steps += 1
        bar.set_postfix(loss=f"{loss_sum / steps:.4f}", refresh=False)
    return loss_sum / steps


def _check(params: TrainParams, train_set: ImageSet, validation_set: ImageSet) -> None:
    for name, part in (("train", train_set), ("validation", validation_set)):
        if len(set(part.labels.tolist())) < 2:
            raise StageError(f"the {name} split holds one class only: both real and ai_generated photos are needed")
    if params.augment.shift >= (size := min(train_set.images.shape[1:3])):
        raise StageError(f"train.augment.shift = {params.augment.shift} must be smaller than the photos' {size} pixels")


def _optimizer(params: TrainParams, model: Detector) -> torch.optim.Optimizer:
    name = params.optimizer
    known = [n for n in timm.optim.list_optimizers() if not timm.optim.get_optimizer_info(n).second_order]
    if name not in known:
        raise StageError(f"train.optimizer '{name}' is unknown to timm or needs second gradients; known: {known}")
    try:
        optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
            model, opt=name, lr=params.learning_rate, weight_decay=params.weight_decay, momentum=0.9
        )
    except Exception as error:  # such as an optimizer of a package that is not installed
        raise StageError(f"train.optimizer '{name}' cannot be made here: {' '.join(repr(error).split())}") from error
    return optimizer


@torch.no_grad()
def _validate(model: Detector, data: ImageSet, device: str) -> Row:
    model.eval()
    logits: list[Tensor] = []
    for batch in data.batches(512):
        images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
        logits.append(model(images.to(device, memory_format=torch.channels_last)).float().cpu())
    scores, labels = torch.cat(logits), torch.from_numpy(data.labels).float()
    return {
        "validation_loss": float(nn.functional.binary_cross_entropy_with_logits(scores, labels)),
        "validation_accuracy": float(((scores > 0) == (labels > 0.5)).float().mean()),
    }
