"""Is a map true? Does it lie on the object, does the network need what it shows, does it depend on the weights?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import trapezoid
from scipy.stats import spearmanr
from skimage.filters import gaussian
from torch import Tensor, nn

from explainers.heatmap import finite
from explainers.layers import convolutions
from explainers.trace import class_index, run
from explainers.views import shown

BLUR = 1 / 20
"""Standard deviation of the blur that insertion starts from, as a share of the image's shorter side."""

_BATCH = 8


def pointing_game(saliency: ArrayLike, mask: ArrayLike) -> float:
    """Whether a map's peak lies on the object: 1 or 0; between, the share of the peaks where several are equal.

    A map without a peak, all zero or all equal, so gets what a random point would get: the mask's share of the image.

    Args:
        saliency: (H, W).
        mask: (H, W), the object is where it is not zero.

    Raises:
        ValueError: they are of different shapes, the mask is empty, or either has values that are no finite numbers.

    Source: Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, section 4.1, without tolerance.
    """
    values, inside = _pair(saliency, mask)
    return float(inside[values == values.max()].mean())


def energy_in_mask(saliency: ArrayLike, mask: ArrayLike) -> float:
    """Share of a map's positive values that lies inside a mask, 0 to 1; 0 for a map without any.

    Of a class's Grad-CAM this is the share of the evidence for the class: with the mask of a navigation box it tells
    how far the class is read from the box.

    Args, Raises: as :func:`pointing_game`.

    Source: Wang et al., Score-CAM, CVPR workshops 2020, section 4.3.
    """
    values, inside = _pair(saliency, mask)
    positive = np.maximum(values, 0)
    if not positive.any():
        return 0.0
    positive /= positive.max()  # so that no sum overflows
    return float(positive[inside].sum() / positive.sum())


def _pair(saliency: ArrayLike, mask: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if not np.isfinite(mask).all():
        raise ValueError("the mask has values that are not finite numbers")
    values, inside = finite(saliency), np.asarray(mask) != 0
    if values.shape != inside.shape:
        raise ValueError(f"a map of {values.shape} and a mask of {inside.shape} do not fit")
    if not inside.any():
        raise ValueError("the mask is empty")
    return values, inside


@dataclass(frozen=True)
class Curve:
    """The probability of a class while pixels change, the most salient first.

    Attributes:
        share: (steps + 1,), of the pixels that are changed, 0 to 1.
        probability: (steps + 1,), of the class at each share.
    """

    share: NDArray[np.float64]
    probability: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve, 0 to 1."""
        return float(trapezoid(self.probability, self.share))


def deletion(network: nn.Module, image: Tensor, saliency: ArrayLike, target: int, steps: int = 16) -> Curve:
    """Take the most salient pixels away: where a map is true, the probability falls early and the area is small.

    Pixels are set to 0, the mean colour of the training data for an image that is normalised by it.

    Args:
        network: maps (N, C, H, W) to class scores (N, classes); run in evaluation mode whatever mode it is in.
        image: (C, H, W), prepared as the network expects it.
        saliency: (H, W), at the size of the image. Equal values go in patches, at random but the same every
            time: single pixels would destroy the image faster than any map.
        target: class index.
        steps: how many times pixels are changed, an equal number each time; at least 1.

    Raises:
        ValueError: the map is of another size than the image, there is no such class or no step, the network cannot
            take the image, or image, map or scores are not finite numbers.

    Source: Petsiuk et al., RISE, BMVC 2018, section 4.1.
    """
    return _curve(network, image, lambda image: (image, torch.zeros_like(image)), saliency, target, steps)


def insertion(network: nn.Module, image: Tensor, saliency: ArrayLike, target: int, steps: int = 16) -> Curve:
    """Put the most salient pixels back into a blurred image: where a map is true, the area is large.

    The blur is Gaussian, its standard deviation :data:`BLUR` of the shorter side.

    Args, Raises, Source: as :func:`deletion`.
    """
    return _curve(network, image, lambda image: (_blurred(image), image), saliency, target, steps)


def _blurred(image: Tensor) -> Tensor:
    pixels = image.double().numpy(force=True)
    return torch.from_numpy(gaussian(pixels, BLUR * min(pixels.shape[1:]), channel_axis=0, mode="nearest")).to(image)


def _curve(
    network: nn.Module,
    image: Tensor,
    change: Callable[[Tensor], tuple[Tensor, Tensor]],
    saliency: ArrayLike,
    target: int,
    steps: int,
) -> Curve:
    values = finite(saliency)
    if not isinstance(image, Tensor):
        raise TypeError(f"the image must be a tensor (C, H, W), not {type(image).__name__}")
    if image.ndim != 3 or values.shape != tuple(image.shape[1:]):
        raise ValueError(f"a map of {values.shape} does not fit an image of {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError("the image has values that are not finite numbers")
    if steps < 1:
        raise ValueError(f"a curve needs a step at least, not {steps}")
    image = image.detach().to(next(network.parameters(), image))
    before, after = change(image)
    patches = gaussian(np.random.default_rng(0).random(values.shape), BLUR * min(values.shape), mode="wrap")
    order = np.lexsort((patches.ravel(), -values.ravel()))
    rank = torch.empty(values.size, dtype=torch.long, device=before.device)
    rank[torch.from_numpy(order).to(before.device)] = torch.arange(values.size, device=before.device)
    counts = np.rint(np.linspace(0, values.size, steps + 1)).astype(int)
    probabilities: list[float] = []
    for start in range(0, len(counts), _BATCH):
        changed = [rank.view(values.shape) < int(count) for count in counts[start : start + _BATCH]]
        with torch.no_grad():
            scores = run(network, torch.where(torch.stack(changed)[:, None], after, before))
        probabilities += scores.softmax(dim=1)[:, class_index(target, scores.shape[1])].tolist()
    return Curve(counts / values.size, np.array(probabilities))


@dataclass(frozen=True)
class Randomised:
    """What became of the maps when the weights of a layer and of all layers after it were drawn anew.

    Attributes:
        layer: name of the convolution, or path of another module.
        similarity: rank correlation with the map of the real network, -1 to 1, the mean of the images whose map is not
            blank; None where all are. A blank map says nothing, so it is no proof that the map depends on the weights.
        blank: how many of the images have a map without contrast, before or after.
    """

    layer: str
    similarity: float | None
    blank: int


def randomisation(network: nn.Module, look: Callable[[nn.Module], ArrayLike]) -> Iterator[Randomised]:
    """Draw the weights anew from the last layer to the first: a map that stays as it was does not show the network.

    Weights, all that has two or more dimensions, become normal noise of mean 0 and their own mean square; the biases
    beside them become 0, and norms stay. So the network stays alive. With its own weights in another order a trained
    network often falls silent, and every map goes blank.

    The network itself is not touched; a copy of it is.

    Args:
        network: any that can be copied.
        look: makes the maps (N, H, W) of a network, of the same images and classes each time.

    Yields:
        One entry a module with weights, the last module first.

    Raises:
        ValueError: the maps have another shape or values that are not finite numbers, or the network's weights are
            made at each pass, by pruning or an old weight_norm, which cannot be copied.

    Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 3 (cascading randomization).
    """
    original = finite(look(network), 3)
    try:
        redrawn = copy.deepcopy(network)
    except RuntimeError as error:
        raise ValueError("the network cannot be copied; make its pruning or weight_norm permanent first") from error
    names = {module: name for name, module in convolutions(redrawn).items()}
    generator = torch.Generator().manual_seed(0)
    for path, module in reversed(list(shown(redrawn).named_modules())):
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            _redraw(module, generator)
            changed = finite(look(redrawn), 3)
            if changed.shape != original.shape:
                raise ValueError(f"the maps were of {original.shape} and are now of {changed.shape}")
            pairs = [pair for pair in zip(original, changed, strict=True) if all(np.ptp(one) > 0 for one in pair)]
            similar = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in pairs]
            blank = len(original) - len(pairs)
            yield Randomised(names.get(module, path), float(np.mean(similar)) if similar else None, blank)


@torch.no_grad()
def _redraw(module: nn.Module, generator: torch.Generator) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.ndim > 1:
            scale = parameter.float().norm().item() / parameter.numel() ** 0.5
            parameter.copy_(torch.normal(0.0, scale, parameter.shape, generator=generator))
        else:
            parameter.zero_()
