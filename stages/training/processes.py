"""What the processes of one training tell each other where torchrun started several; alone, nothing is changed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Join the others that torchrun started, for the time of the block."""
    if not distributed.is_torchelastic_launched():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return this process's number; 0 writes, prints and tracks."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Return how many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def from_first(value: T) -> T:
    """Return process 0's value."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def of_all(value: T) -> list[T]:
    """Return the values of all, by number."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values
