"""Run a network once and keep what each of its convolutions put out, without changing the network."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

_RELU = (functional.relu, functional.relu6, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_)

_CLIP: dict[Callable[..., Any], str] = {
    **dict.fromkeys((functional.hardtanh, functional.hardtanh_), "min_val"),
    **dict.fromkeys((torch.clamp, torch.clamp_, torch.Tensor.clamp, torch.Tensor.clamp_), "min"),
    **dict.fromkeys((torch.clip, torch.clip_, torch.Tensor.clip, torch.Tensor.clip_), "min"),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_, torch.Tensor.clamp_min, torch.Tensor.clamp_min_), "min"),
}
"""What may cut off values, and the name of its second argument, the lower limit."""

_one_by_one = threading.RLock()


@dataclass
class _Run:
    """The modules of a network that are put back into training mode when the last thread has run it."""

    training: list[nn.Module]
    threads: int = 0


_lock = threading.Lock()
_running: dict[nn.Module, _Run] = {}


@dataclass
class Rectifiers:
    """The ReLUs of one forward pass, and what else cuts off what is below 0: ReLU6, hardtanh and clamp.

    Attributes:
        count: how many there were.
        guided: whether a backward pass through them also drops negative gradients.
    """

    count: int = 0
    guided: bool = False

    def guide(self, gradient: Tensor) -> Tensor | None:
        """What passes back through a ReLU beside its own rule: while ``guided``, no negative gradient.

        Source: Springenberg et al., Striving for Simplicity, ICLR 2015 workshop, figure 1.
        """
        return gradient.relu() if self.guided else None


@dataclass(frozen=True)
class Traced:
    """One forward pass, its autograd graph alive.

    Attributes:
        images: what the network was given, (N, C, H, W), the leaf of the graph.
        scores: what it returned, (N, classes).
        activations: name → output of the convolution, (N, C, H, W), in the order of the pass.
        sources: the activations that no other one feeds; a backward pass that reaches them has passed all.
        rectifiers: its ReLUs.
    """

    images: Tensor
    scores: Tensor
    activations: Mapping[str, Tensor]
    sources: tuple[Tensor, ...]
    rectifiers: Rectifiers


def run(network: nn.Module, images: Tensor) -> Tensor:
    """Class scores (N, classes) of images (N, C, H, W), in evaluation mode whatever mode the network is in.

    Raises:
        ValueError: it cannot take these images, or a score is not a finite number.
        TypeError: what it returns are not class scores (N, classes).
    """
    with evaluating(network):
        try:
            returned = network(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the network cannot take images of {tuple(images.shape)}: {reason}") from error
    scores = require_scores(returned, images)
    if not scores.isfinite().all():
        raise ValueError("the network's scores are not finite numbers; its weights are broken")
    return scores


def require_scores(returned: Any, images: Tensor) -> Tensor:
    """What a network returned for images (N, C, H, W), if these are class scores (N, classes).

    Raises:
        TypeError: they are not.
    """
    if not isinstance(returned, Tensor) or returned.shape[:1] != images.shape[:1] or returned.ndim != 2:
        found = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise TypeError(f"the network must return class scores (N, classes), not {found}")
    return returned


def trace(network: nn.Module, images: Tensor, layers: Mapping[str, nn.Conv2d]) -> Traced:
    """Run a network as :func:`run` does, and keep what its layers put out.

    Raises:
        ValueError: as there, none of the layers took part, or one put out values that are not finite numbers.
        TypeError: as there.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_()
        # Weights that are made anew at each use stay the same tensor while cached. The mode is switched first: a module
        # makes another one in training.
        cached = parametrize.cached() if _makes_weights(network) else nullcontext()
        with evaluating(network), cached, _Watch(layers) as watch:
            scores = run(network, leaf.clone())  # which it may change
    activations = {name: output for name, output in watch.activations.items() if output.requires_grad}
    if not (activations and scores.requires_grad):
        raise ValueError("none of the layers takes part in the scores")
    for name, output in activations.items():
        if not output.isfinite().all():
            raise ValueError(f"{name} puts out values that are not finite numbers; the network's weights are broken")
    return Traced(leaf, scores, activations, _sources(activations.values()), watch.rectifiers)


def _sources(activations: Collection[Tensor]) -> tuple[Tensor, ...]:
    nodes = {activation.grad_fn for activation in activations}

    def is_fed(activation: Tensor) -> bool:
        seen: set[Any] = set()
        waiting: list[Any] = [activation.grad_fn]
        while waiting:
            for node, _ in waiting.pop().next_functions:
                if node in nodes:
                    return True
                if node is not None and node not in seen:
                    seen.add(node)
                    waiting.append(node)
        return False

    return tuple(activation for activation in activations if not is_fed(activation))


def class_index(target: Any, classes: int) -> int:
    """A class given by its index, as a plain int.

    Raises:
        TypeError: it is no integer.
        ValueError: there is no such class.
    """
    if isinstance(target, bool | np.bool_) or not hasattr(target, "__index__"):
        raise TypeError(f"a class is given by its index, an integer, and not by {target!r}")
    index = operator.index(target)
    if not 0 <= index < classes:
        raise ValueError(f"there is no class {index}; the network has classes 0 to {classes - 1}")
    return index


class _Watch(TorchFunctionMode):
    """Sees the torch calls of a forward pass, in this thread only.

    A convolution is known by its weight, so modules need no hook and nothing is left to remove. The network goes on
    with a copy of what is kept: an activation that works in place, as torchvision's do, would overwrite it. The
    gradient of every ReLU can be guided. The scores are bit for bit those of the plain network.
    """

    def __init__(self, layers: Mapping[str, nn.Conv2d]) -> None:
        super().__init__()
        self.activations: dict[str, Tensor] = {}
        self.rectifiers = Rectifiers()
        self._layers = layers

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let every call through; keep convolutions, watch ReLUs."""
        kwargs = kwargs or {}
        if _rectifies(func, args, kwargs):
            return self._rectify(func, *args, **kwargs)
        result = func(*args, **kwargs)
        if func is torch.conv2d:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            # Asked at the call itself: pruning and weight_norm put another tensor there before each pass.
            name = next((name for name, layer in self._layers.items() if layer.weight is weight), None)
            if name is not None:
                self.activations[name] = result
                return result.clone()
        return result

    def _rectify(self, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.rectifiers.count += 1
        # Work in place on a part of a tensor gives that part a new history, past any hook; a copy keeps its own.
        own = input.clone() if input._is_view() else input
        result: Tensor = func(own, *args, **kwargs)
        if result.requires_grad:
            result.register_hook(self.rectifiers.guide)
        return input.copy_(result) if result is own is not input else result


def _rectifies(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func in _RELU:
        return True
    if func not in _CLIP:
        return False
    lower = args[1] if len(args) > 1 else kwargs.get(_CLIP[func])
    return isinstance(lower, int | float) and lower == 0


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Switch a network to evaluation mode for all threads, and each module back to where it was after the last of them.

    For its backward pass too: one that checkpoints activations runs parts of itself again there. Networks that make
    their weights anew at each use run one after the other: what torch caches of them is the process's.
    """
    with _one_by_one if _makes_weights(network) else nullcontext():
        with _lock:
            if network not in _running:
                _running[network] = _Run([module for module in network.modules() if module.training])
            run = _running[network]
            run.threads += 1
            for module in run.training:
                module.training = False
        try:
            yield
        finally:
            with _lock:
                run.threads -= 1
                if not run.threads:
                    del _running[network]
                    for module in run.training:
                        module.training = True


def _makes_weights(network: nn.Module) -> bool:
    """Whether it has weights that are made at each use out of others, as spectral_norm's are."""
    return any(map(parametrize.is_parametrized, network.modules()))
