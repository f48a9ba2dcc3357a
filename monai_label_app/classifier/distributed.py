"""Several processes that train one network, as torchrun starts them: each on a GPU of its own, or on the CPU.

The first one leads: it alone writes, and says how far the work is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def leads() -> bool:
    """Whether this is the first of them, or alone."""
    return rank() == 0


def device() -> torch.device:
    """What this process computes on."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


@contextmanager
def group() -> Iterator[None]:
    """Hold the processes together for as long as they train."""
    if ranks() == 1:
        yield
        return
    # The others wait while the first runs frozen layers on every picture.
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(days=7))
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def leader_first() -> Iterator[None]:
    """The first process does the work before the others do, which then find it done."""
    if ranks() > 1 and not leads():
        distributed.barrier()
    yield
    if ranks() > 1 and leads():
        distributed.barrier()


def of_the_leader(values: Tensor) -> Tensor:
    """The same values in every process: they are overwritten by those of the first."""
    if ranks() > 1:
        distributed.broadcast(values, 0)
    return values


def as_the_leader(module: nn.Module) -> None:
    """Give a module in every process the values that it has in the first."""
    for values in module.state_dict().values():
        of_the_leader(values)


def together(values: Tensor) -> Tensor:
    """All rows, of which every process has a share of the same size, (N, …) → (ranks × N, …); the same in each."""
    if ranks() == 1:
        return values
    shares = [torch.empty_like(values) for _ in range(ranks())]
    distributed.all_gather(shares, values)
    return torch.cat(shares)
