"""Run a network once and keep what each of its convolutions put out, without changing the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Trace(TorchFunctionMode):
    """Watches the torch calls of one forward pass, in this thread only.

    A convolution is recognised by the identity of its weight, so modules need no hook and nothing is left to remove.
    The network goes on with a copy of what is kept: an activation that works in place, as torchvision's ReLUs do,
    would overwrite the convolution's output before anyone reads it. The result is bit for bit the same.

    Args:
        layers: name → convolution, the layers whose outputs are kept.

    Attributes:
        activations: name → output of the layer, (N, C, H, W), part of the autograd graph.
    """

    def __init__(self, layers: Mapping[str, nn.Conv2d]) -> None:
        super().__init__()
        self.activations: dict[str, Tensor] = {}
        self._names = {id(layer.weight): name for name, layer in layers.items()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let every call through; remember convolutions."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.conv2d:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            name = self._names.get(id(weight))
            if name is not None:
                self.activations[name] = result
                return result.clone()
        return result
