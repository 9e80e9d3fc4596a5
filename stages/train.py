"""Stage train: fit the detector on the split train, watched on validation."""

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from stages.common import Params, StageError, load_params, only_one, run_stage, sha256_file, whole_file
from stages.data.image_sets import ImageSet, load_images
from stages.data.inbox import check_import
from stages.paths import ModelPaths
from stages.training import processes
from stages.training.augment import Augment, augment
from stages.training.model import Detector, build, save_checkpoint, timm
from stages.training.prefetch import ahead
from stages.training.released import take_released
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
    """Train for `params.epochs`, going on from `state_path` if an equal run was killed there.

    Where torchrun started several processes, each takes its part of every batch; all return the same.

    Returns:
        The trained model, its full configuration, and a row of curves for every epoch.

    Raises:
        StageError: backbone, optimizer or augmentation do not fit, one class is missing, or the loss diverged.
    """
    _check(params, train_set, validation_set)
    torch.manual_seed(params.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rank, count = processes.rank(), processes.count()
    config = _configuration(params, train_set.images.shape[1])
    model = build(config).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
    network: nn.Module = nn.parallel.DistributedDataParallel(model) if count > 1 else model
    torch.manual_seed(params.seed + rank)  # the weights are the same everywhere, what is drawn from here on is not
    optimizer = _optimizer(params, model)
    steps = max(1, len(train_set) // params.batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.learning_rate, total_steps=params.epochs * steps + 1, pct_start=params.warmup,
        cycle_momentum=False,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(params.seed + rank)
    identity = identity_of(config | {"processes": count}, train_set, validation_set)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state = TrainingState(state_path, identity, parts, generator)
    history = state.restore()
    for row in history:  # the caller sees the whole run
        on_epoch(row)
    if history and not rank:
        print(f"going on after epoch {len(history)} of a run that was stopped")

    for epoch in range(len(history) + 1, params.epochs + 1):
        order = processes.from_first(torch.randperm(len(train_set), generator=generator))
        batches = ahead(_batches(params, train_set, order, generator))
        bar = tqdm(batches, f"epoch {epoch}/{params.epochs}", steps, mininterval=2, disable=rank > 0)
        loss = sum(processes.of_all(_epoch(params, network, optimizer, scheduler, bar))) / count
        if not math.isfinite(loss):
            raise StageError(f"training diverged in epoch {epoch}: lower train.learning_rate")
        history.append({"epoch": epoch, "train_loss": loss} | _validate(model, validation_set, device))
        if not rank:
            print({k: round(v, 4) for k, v in history[-1].items()}, flush=True)
        state.save(history)
        on_epoch(history[-1])
    return model, config, history


def _configuration(params: TrainParams, image_size: int) -> dict[str, Any]:
    """Return all that makes the model what it is; of a file with weights its content, not its name."""
    weights = params.pretrained
    known = {"pretrained_sha256": sha256_file(weights)} if isinstance(weights, str) and Path(weights).is_file() else {}
    return params.model_dump(mode="json") | known | {"image_size": image_size}


def _batches(
    params: TrainParams, data: ImageSet, order: Tensor, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's batches, augmented; of each the part that is this process's."""
    images, labels = torch.from_numpy(data.images).permute(0, 3, 1, 2), torch.from_numpy(data.labels)
    for step in range(max(1, len(labels) // params.batch_size)):
        batch = order[step * params.batch_size : (step + 1) * params.batch_size]
        rows = batch[processes.rank() :: processes.count()]
        yield augment(images[rows], params.augment, generator), labels[rows]


def _epoch(
    params: TrainParams,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    bar: "tqdm[tuple[Tensor, Tensor]]",
) -> float:
    """Take one step with each batch of `bar`; return the mean loss."""
    network.train()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss_sum, steps = 0.0, 0
    for images, labels in bar:
        batch = images.to(device, memory_format=torch.channels_last)
        target = labels.to(device).float() * (1 - 2 * params.label_smoothing) + params.label_smoothing
        with torch.autocast(device, torch.bfloat16, enabled=params.precision == "bf16"):
            logits = network(batch)
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
    if params.batch_size % processes.count():
        raise StageError(
            f"train.batch_size = {params.batch_size} cannot be shared by {processes.count()} processes evenly"
        )
    if params.augment.shift >= (size := train_set.images.shape[1]):
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
    for start in range(0, len(data), 512):
        images = torch.from_numpy(data.images[start : start + 512]).permute(0, 3, 1, 2).float() / 255
        logits.append(model(images.to(device, memory_format=torch.channels_last)).float().cpu())
    scores, labels = torch.cat(logits), torch.from_numpy(np.asarray(data.labels)).float()
    return {
        "validation_loss": float(nn.functional.binary_cross_entropy_with_logits(scores, labels)),
        "validation_accuracy": float(((scores > 0) == (labels > 0.5)).float().mean()),
    }


def main(paths: ModelPaths) -> None:
    """Train as params.yaml says; MLflow keeps the run."""
    from stages.tracking import tracked_run  # here: the core above runs where MLflow is not installed

    params = load_params("train", TrainParams, paths.name)
    check_import()  # where photos joined the inbox alone, preprocess does not run
    if processes.count() == 1 and take_released(paths):
        return
    state, checkpoint = paths.training_state, paths.candidate.checkpoint
    train_set, validation_set = (load_images(paths.dataset / f"{name}.safetensors") for name in ("train", "validation"))
    if processes.rank():  # the first one keeps, tracks and tells
        train(params, train_set, validation_set, state)
        return
    # Killing dvc leaves its child alive: a second training beside it would fight for the cores and the state.
    with only_one(state.with_suffix(".lock"), "another training"), tracked_run("train", paths.name) as run:
        run.log_params(params.model_dump())
        model, config, history = train(params, train_set, validation_set, state, run.log_epoch)
        config["data_sha256"] = sha256_file(paths.dataset / "train.safetensors")
        save_checkpoint(checkpoint, model, config)
        with whole_file(paths.curves) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, history[0])
            writer.writeheader()
            writer.writerows(history)
        run.log_artifact(checkpoint)
        run.set_tag("checkpoint_sha256", sha256_file(checkpoint))
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    with processes.joined():
        run_stage(main)
