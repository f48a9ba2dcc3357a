"""A network opened on images: any layer, any class, from one forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from explainers import heatmap
from explainers.cams import CAMS, Cam, grad_cam
from explainers.layers import convolutions, unknown
from explainers.trace import Traced, class_index, evaluating, trace
from explainers.views import ManyViews, shown

Target = int | Sequence[int] | Tensor | NDArray[np.integer]
"""Class indices: one for all images, or one for each."""

KEPT = 64
"""Looks that a dissection remembers: maps of all layers for a class, and as many gradients."""


class Dissection:
    """What a network saw in a batch of images; made by :func:`dissect`.

    Lazy: the first look runs the network forward once. A class costs one backward pass, in which the maps of all layers
    are made; a layer's saliency costs one from that layer. All of it is remembered, so a second look costs nothing.

    Memory, beside the network: while it lives, what a plain forward pass with gradients keeps, and the outputs of the
    chosen layers; a map a layer and class looked at, 0.6 MB a class for all of VGG-19 at 224 × 224; a gradient of the
    images' size a saliency or class. Gradients of layers are never kept. All of it times the number of images,
    and of the views of a network in several. Of maps and of gradients the last :data:`KEPT` looks are remembered; what
    was looked at before is made anew.

    A layer that is used more than once in a pass is seen at its last use; a layer without influence on a class has an
    all-zero map. Several threads may ask one dissection, and dissect one network.

    Attributes:
        images: (N, C, H, W), what the network is given.
    """

    def __init__(self, network: nn.Module, images: Tensor, layers: Mapping[str, nn.Conv2d]) -> None:
        self._network = network
        self._views = network.count if isinstance(network, ManyViews) else 1
        self.images = images
        self._chosen = layers
        self._seen: Traced | None = None
        self._maps: dict[Any, dict[str, Tensor]] = {}  # the latest look last, as in the next
        self._gradients: dict[Any, Tensor] = {}
        self._lock = threading.RLock()

    @property
    def scores(self) -> Tensor:
        """Class scores before softmax, (N, classes), detached."""
        return self._traced.scores.detach().clone()

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the scores, (N, classes), 0 to 1."""
        return self.scores.softmax(dim=1)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be looked at, in the order in which the forward pass met them."""
        return tuple(self._traced.activations)

    @property
    def has_rectifiers(self) -> bool:
        """Whether the network has a ReLU, ReLU6 or clamp at 0; if not, guided backpropagation is the plain gradient.

        Through other activations (hard swish, SiLU, GELU) the plain gradient passes, guided or not; so it does through
        what does the work of a ReLU by other means (``torch.where``, ``maximum``, ``threshold``, scripted modules).
        """
        return self._traced.rectifiers.count > 0

    def activation(self, layer: str) -> Tensor:
        """What a layer put out, (N, K, h, w), detached.

        Raises:
            ValueError: no such layer.
        """
        return self._laid_back(self._activation(layer).detach().clone())

    def grad_cam(self, layer: str, target: Target) -> Tensor:
        """Where in a layer the evidence for a class lies: :meth:`cam` by :func:`explainers.cams.grad_cam`."""
        return self.cam(layer, target, grad_cam)

    def cam(self, layer: str, target: Target, method: Cam) -> Tensor:
        """The class activation map of a layer, by any function of its output and its gradient.

        Args:
            layer: one of :attr:`layers`.
            target: a class index for the whole batch, or one for each image (sequence, tensor or array).
            method: one of :data:`explainers.cams.CAMS`, or a function of your own. It is called once a layer, and
                must not change what it is given.

        Returns:
            (N, h, w) float32 at the layer's size, >= 0, on the method's own scale. All zero where nothing speaks for
            the class.

        Raises:
            ValueError: no such layer or class, the method returned another shape or no finite numbers or worked in
                place, or the weights have changed since the network was run.
        """
        targets = self._targets(target)
        self._activation(layer)
        with self._lock:
            maps = _remembered(self._maps, (targets, method), lambda: self._all_layers(targets, method))
            return maps[layer].clone()

    def saliency(self, layer: str) -> Tensor:
        """Which pixels excite a layer, whatever the class: the paper's saliency.

        With the layer's output A, the guided gradient of ``sum over space of max over k of A_k`` in the image.

        Returns:
            (N, C, H, W) float32 at the images' size, signed; :func:`explainers.heatmap.strength` makes it a map.

        Raises:
            ValueError: no such layer.

        Source: Springenberg et al., Striving for Simplicity, ICLR 2015 workshop; the paper, section V.
        """
        activation = self._activation(layer)
        return self._guided(layer, lambda: activation.amax(dim=1).sum() / self._views)

    def guided_backprop(self, target: Target) -> Tensor:
        """Which pixels raise a class: the guided gradient of its score in the image.

        Returns:
            As :meth:`saliency`.

        Raises:
            ValueError: no such class.

        Source: Springenberg et al., Striving for Simplicity, ICLR 2015 workshop.
        """
        targets = self._targets(target)
        return self._guided(targets, lambda: self._score(targets))

    def guided_grad_cam(self, layer: str, target: Target, *, of_class: bool = False) -> Tensor:
        """Which of the pixels that excite a layer lie where the evidence for a class is.

        The product of :meth:`grad_cam`, resized bilinearly to the images, and :meth:`saliency`.

        Args:
            layer: one of :attr:`layers`.
            target: a class index for the whole batch, or one for each image (sequence, tensor or array).
            of_class: take :meth:`guided_backprop` of the class in the place of the layer's saliency, as the authors of
                Grad-CAM do.

        Returns:
            (N, C, H, W) float32 at the images' size, signed.

        Raises:
            ValueError: no such layer or class.

        Source: Selvaraju et al., Grad-CAM, ICCV 2017, section 3.2; the paper, section V.
        """
        cam = self.grad_cam(layer, target)
        gradient = self.guided_backprop(target) if of_class else self.saliency(layer)
        cam = functional.interpolate(cam[:, None], gradient.shape[2:], mode="bilinear", align_corners=False)
        return gradient.mul_(cam)

    def maps(
        self,
        method: str = "grad-cam",
        layers: str | Collection[str] | None = None,
        targets: int | Collection[int] | None = None,
    ) -> Iterator[tuple[str | None, int | None, Tensor]]:
        """Every layer for every class, or the chosen ones, in one call.

        One after the other, a class at a time, so that the caller decides what to keep.

        Args:
            method: one of :data:`METHODS`.
            layers: one or several, by default all.
            targets: class indices, one or several, by default all.

        Yields:
            Layer, class and map (N, h, w) float32, >= 0. Layer or class is None where the method knows none.

        Raises:
            ValueError: no such method, layer or class.
        """
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        chosen = METHODS[method]
        names = [layers] if isinstance(layers, str) else self.layers if layers is None else layers
        for name in names:
            self._activation(name)
        count = self.scores.shape[1]
        given = range(count) if targets is None else targets if isinstance(targets, Collection) else [targets]
        classes = [class_index(target, count) for target in given]
        for target in classes if chosen.of_class else (None,):
            for layer in names if chosen.of_layer else (None,):
                yield layer, target, chosen.look(self, layer, target)

    @property
    def _traced(self) -> Traced:
        with self._lock:
            if self._seen is None:
                self._seen = trace(self._network, self.images, self._chosen)
            return self._seen

    def _activation(self, layer: str) -> Tensor:
        if layer not in self._traced.activations:
            raise unknown("layer", layer, self.layers)
        return self._traced.activations[layer]

    def _targets(self, target: Target) -> tuple[int, ...]:
        images, classes = self.scores.shape
        if isinstance(target, Tensor | np.ndarray):
            target = target.tolist()
        given = target if isinstance(target, Sequence) and not isinstance(target, str | bytes) else (target,) * images
        if len(given) != images:
            raise ValueError(f"{len(given)} targets for {images} images")
        return tuple(class_index(index, classes) for index in given)

    def _score(self, targets: tuple[int, ...]) -> Tensor:
        # In evaluation mode no image touches another, so the sum's gradient is each image's own.
        return self._traced.scores[range(len(targets)), targets].sum()

    def _all_layers(self, targets: tuple[int, ...], method: Cam) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        handles = []
        for name, activation in self._traced.activations.items():
            kept = activation.detach()
            maps[name] = kept.new_zeros(len(kept) // self._views, *kept.shape[2:], dtype=torch.float32)

            # Made as the gradient passes, so that no more than one layer's is ever held.
            def watch(gradient: Tensor, name: str = name, kept: Tensor = kept) -> None:
                versions = kept._version, gradient._version
                cam = method(kept, gradient)
                if (kept._version, gradient._version) != versions:
                    raise ValueError("a method must not change the layer's output or gradient that it is given")
                shape = (len(kept), *kept.shape[2:])
                if not isinstance(cam, Tensor) or cam.shape != shape:
                    returned = tuple(cam.shape) if isinstance(cam, Tensor) else type(cam).__name__
                    raise ValueError(f"a map must be a tensor of {shape}, not {returned}")
                # A copy: a view would keep the gradient.
                maps[name] = self._laid_back(_finite(cam.detach().to(torch.float32, copy=True)))

            handles.append(activation.register_hook(watch))
        try:
            with torch.inference_mode(False), torch.enable_grad():
                # The sum over the views, so that a method is given each one's own gradient.
                self._backward(self._views * self._score(targets), self._traced.sources)
        finally:
            for handle in handles:
                handle.remove()
        return maps

    def _guided(self, key: str | tuple[int, ...], objective: Callable[[], Tensor]) -> Tensor:
        def make() -> Tensor:
            rectifiers, images = self._traced.rectifiers, self._traced.images
            rectifiers.guided = True
            try:
                with torch.inference_mode(False), torch.enable_grad():
                    (gradient,) = self._backward(objective(), (images,))
            finally:
                rectifiers.guided = False
            return torch.zeros_like(images) if gradient is None else _finite(gradient.float())

        with self._lock:
            return _remembered(self._gradients, key, make).clone()

    def _laid_back(self, values: Tensor) -> Tensor:
        return self._network.lay_back(values) if isinstance(self._network, ManyViews) else values

    def _backward(self, score: Tensor, sources: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        try:
            with evaluating(self._network):
                return torch.autograd.grad(score, sources, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            weight = next(self._network.parameters())
            moved = (weight.dtype, weight.device) != (self.images.dtype, self.images.device)
            if not moved and "modified by an inplace operation" not in str(error):
                raise
            raise ValueError("weights or layers have changed since the network was run; dissect it anew") from error


def _finite(saliency: Tensor) -> Tensor:
    if not saliency.isfinite().all():
        raise ValueError(
            "the map has values that are not finite numbers; the network's weights or the method are broken"
        )
    return saliency


def _remembered(kept: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """What is kept under a key, or else is made; of all others, only the latest stay."""
    kept[key] = kept.pop(key) if key in kept else make()
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
    return kept[key]


@dataclass(frozen=True)
class Method:
    """A way to look.

    Attributes:
        look: (dissection, layer, class) → map (N, h, w), >= 0.
        of_layer, of_class: whether the map depends on them.
        percentile: of the map's positive values, what is shown in full colour; see :func:`explainers.heatmap.peak`.
    """

    look: Callable[[Dissection, Any, Any], Tensor]
    of_layer: bool = True
    of_class: bool = True
    percentile: float = 100.0


def _cam(method: Cam) -> Method:
    return Method(lambda seen, layer, target: seen.cam(layer, target, method))


def _gradient(
    look: Callable[[Dissection, Any, Any], Tensor], *, of_layer: bool = True, of_class: bool = True
) -> Method:
    return Method(
        lambda seen, layer, target: heatmap.strength(look(seen, layer, target)),
        of_layer,
        of_class,
        heatmap.GRADIENT_PERCENTILE,
    )


METHODS: Mapping[str, Method] = {
    **{name: _cam(method) for name, method in CAMS.items()},
    "saliency": _gradient(lambda seen, layer, _: seen.saliency(layer), of_class=False),
    "guided-backprop": _gradient(lambda seen, _, target: seen.guided_backprop(target), of_layer=False),
    "guided-grad-cam": _gradient(Dissection.guided_grad_cam),
}
"""Every method by the name that the command line knows it by."""


def dissect(network: nn.Module, images: Tensor, layers: Collection[str] | None = None) -> Dissection:
    """Open a network on images. Nothing is run until something is asked.

    The network is not changed: no hook, no flag, no gradient is left on it. One in training mode is in evaluation
    mode for as long as it runs, and put back; another thread that uses the same network meanwhile, but not by
    this package, finds it in evaluation mode.

    Args:
        network: maps images to class scores (N, classes) before softmax.
        images: (N, C, H, W), or (C, H, W) for one, prepared as the network expects them, on any device.
        layers: the convolutions that may be asked for, by their names in :func:`explainers.layers.convolutions`, one
            name or several; by default all. Fewer take less memory, and less time where they lie near the output.

    Raises:
        ValueError: the network has no convolution or not such a one; the images are of 1 × 1 pixels or not finite.
        TypeError: the network is no module, or the images are no floating-point tensor of three or four dimensions.
            The first look raises, too, if the network does not take such images or returns no finite class scores.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"the network must be a torch.nn.Module, not {type(network).__name__}")
    if not (isinstance(images, Tensor) and images.is_floating_point() and images.ndim in (3, 4)):
        what = f"{tuple(images.shape)} of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating-point tensor (N, C, H, W), not {what}")
    if images.layout is not torch.strided or images.is_meta:
        raise TypeError("images must be a dense tensor with values, neither sparse nor on the meta device")
    if images.numel() == 0 or images.shape[-2] * images.shape[-1] < 2:
        raise ValueError(f"images of {tuple(images.shape)} have nothing to look at")
    if not images.isfinite().all():
        raise ValueError("the images have values that are not finite numbers")
    if any(is_lazy(parameter) for parameter in network.parameters()):
        raise ValueError("the network has layers without weights yet; run it once on an image")
    if any(parameter.is_inference() for parameter in network.parameters()):
        raise ValueError("the network was made under torch.inference_mode, which keeps no gradients; make it outside")
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else list(layers)
    if any(isinstance(module, ManyViews) for module in shown(network).modules()):
        raise ValueError("a network in several views cannot be looked at inside another; wrap the whole in its views")
    known = convolutions(network)
    if not known:
        raise ValueError(f"{type(network).__name__} has no convolution to look at")
    for name in known if layers is None else layers:
        if name not in known:
            raise unknown("layer", name, known)
    chosen = known if layers is None else {name: known[name] for name in layers}
    if not chosen:
        raise ValueError("no layer was chosen")
    images = images if images.ndim == 4 else images[None]
    # A copy: the first look may come after the caller has used the tensor for something else.
    return Dissection(network, images.detach().to(next(network.parameters()), copy=True), chosen)
