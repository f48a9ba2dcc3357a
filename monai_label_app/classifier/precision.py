"""Numbers of half the bits, where a processor computes them faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 on a processor that has it; on a GPU the trainer sees to it, with scaled gradients."""
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
