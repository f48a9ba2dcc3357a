"""Grad-CAM of any layer and any class, from one traced forward pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from explainers.trace import Trace


class Dissection:
    """One forward pass, opened up.

    A class costs one backward pass, which reaches all layers at once; the gradients are remembered, so another layer
    of the same class costs nothing but the map.

    Attributes:
        scores: class scores before softmax, (N, classes), detached.
        probabilities: their softmax, (N, classes).
    """

    def __init__(self, logits: Tensor, activations: Mapping[str, Tensor]) -> None:
        self.scores = logits.detach()
        self.probabilities = self.scores.softmax(dim=1)
        self._logits = logits
        self._activations = dict(activations)
        self._gradients: dict[tuple[int, ...], dict[str, Tensor]] = {}
        self._lock = threading.Lock()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, in the order in which the forward pass met them."""
        return tuple(self._activations)

    def grad_cam(self, layer: str, target: int | Sequence[int]) -> Tensor:
        """Where in a layer the evidence for a class lies.

        With the layer's output A (channels k) and the class score y before softmax::

            w_k = mean over space of dy/dA_k          map = ReLU(sum over k of w_k A_k)

        Args:
            layer: one of :attr:`layers`.
            target: a class index for the whole batch, or one for each image.

        Returns:
            (N, H, W) float32 at the layer's size, >= 0 and on the scale of the score: maps of one image and layer
            compare across classes. All zero where nothing speaks for the class.

        Raises:
            ValueError: no such layer or class.

        Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
        """
        if layer not in self._activations:
            raise ValueError(f"there is no layer {layer!r}; the last is {self.layers[-1]!r}")
        activation = self._activations[layer].detach()
        weights = self._gradient(target)[layer].mean(dim=(2, 3), keepdim=True)
        return (weights * activation).sum(dim=1).relu().float()

    def _gradient(self, target: int | Sequence[int]) -> dict[str, Tensor]:
        images, classes = self._logits.shape
        targets = (target,) * images if isinstance(target, int) else tuple(target)
        if len(targets) != images:
            raise ValueError(f"{len(targets)} targets for {images} images")
        wrong = [index for index in targets if not 0 <= index < classes]
        if wrong:
            raise ValueError(f"there is no class {wrong[0]}; the network has classes 0 to {classes - 1}")
        with self._lock:
            if targets not in self._gradients:
                # In evaluation mode no image touches another, so the sum's gradient is each image's own.
                with torch.enable_grad():
                    score = self._logits[torch.arange(images), list(targets)].sum()
                gradients = torch.autograd.grad(score, list(self._activations.values()), retain_graph=True)
                self._gradients[targets] = dict(zip(self._activations, gradients, strict=True))
            return self._gradients[targets]


def dissect(network: nn.Module, images: Tensor, layers: Mapping[str, nn.Conv2d]) -> Dissection:
    """Run a network once, ready to be asked where it looked.

    The network is not changed: no hook, no flag, no gradient is left on it.

    Args:
        network: in evaluation mode; maps (N, 3, H, W) to class scores (N, classes).
        images: (N, 3, H, W), prepared as the network expects them.
        layers: name → convolution, the layers that may be asked for later.

    Raises:
        ValueError: the network is in training mode, none of the layers took part in the forward pass, or a score is
            not a finite number.
    """
    if network.training:
        raise ValueError("the network is in training mode; call network.eval() first")
    with torch.enable_grad(), Trace(layers) as trace:
        # The input asks for gradients so that the graph exists even where all parameters are frozen.
        logits = network(images.detach().clone().requires_grad_())
    if not trace.activations:
        raise ValueError("none of the given layers took part in the forward pass")
    if not logits.isfinite().all():
        raise ValueError("the network's scores are not finite numbers; its weights or the images are broken")
    return Dissection(logits, trace.activations)
