"""From a map to a picture: resize, scale to 0..1, colour, lay over the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from explainers.layers import unknown

BLUE_TO_RED = "blue-red"

GRADIENT_PERCENTILE = 99.5
"""Share of a gradient's pixels, in percent, that are shown below full colour."""

_STRIP = 64
"""Rows that are blended at a time: a strip stays in the processor's cache, a whole frame does not."""


def finite(saliency: ArrayLike | Tensor, dimensions: int = 2) -> NDArray[np.float64]:
    """A map, or several, as an array.

    Raises:
        ValueError: it has not this many dimensions, or values that are not finite numbers.
    """
    values = _finite(saliency).astype(np.float64)
    if values.ndim != dimensions:
        raise ValueError(f"a map of {values.shape} does not have {dimensions} dimensions")
    return values


def _finite(saliency: ArrayLike | Tensor) -> NDArray[Any]:
    values = _array(saliency)
    if not np.isfinite(values).all():
        raise ValueError("the map has values that are not finite numbers")
    return values


def _array(saliency: ArrayLike | Tensor) -> NDArray[Any]:
    """As float32, or float64 where it is so given."""
    if isinstance(
        saliency, Tensor
    ):  # which may carry gradients, lie on a GPU, or be of a kind that NumPy does not know
        saliency = saliency.to(torch.promote_types(saliency.dtype, torch.float32)).numpy(force=True)
    values = np.asarray(saliency)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def resize(saliency: ArrayLike | Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map (h, w) to ``size`` (H, W) bilinearly, pixel areas aligned, values kept.

    Raises:
        ValueError: the map has other than two dimensions, or one of the sizes is 0.
    """
    values = _array(saliency)
    if values.ndim != 2 or min(*values.shape, *size) < 1:
        raise ValueError(f"a map of {values.shape} cannot be resized to {tuple(size)}")
    tensor = torch.as_tensor(values)[None, None]
    resized = functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0]
    return resized.float().numpy()


def strength(gradient: Tensor) -> Tensor:
    """How strongly each pixel acts, whichever way: the largest ``|gradient|`` of its colours, (N, C, H, W) → (N, H, W).

    Source: Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014 workshop, section 3.1.
    """
    return gradient.abs().amax(dim=1)


def peak(saliency: ArrayLike | Tensor, percentile: float = 100.0) -> float:
    """The value that is shown in full colour: the maximum of maps >= 0, of any shape, or a percentile above zero.

    Maps of layers are smooth and take their maximum. Gradients of pixels have a few that stand far out, and would show
    nothing else: :data:`GRADIENT_PERCENTILE` lets those saturate.

    Raises:
        ValueError: values that are not finite numbers.
    """
    values = _finite(saliency)
    if percentile == 100:
        return float(values.max(initial=0))
    positive = values[values > 0]
    return float(np.percentile(positive, percentile)) if positive.size else 0.0


def normalise(saliency: ArrayLike | Tensor, scale: float | None = None) -> NDArray[np.float32]:
    """Divide a map >= 0 by ``scale``, by default its own maximum: 0..1, float32, what lies above is 1.

    Maps that are compared share one scale. A map that is all zero stays all zero.

    Raises:
        ValueError: values or a scale that are not finite numbers.
    """
    values = _finite(saliency)
    full = peak(values) if scale is None else scale
    if not np.isfinite(full):
        raise ValueError(f"the scale must be a finite number, not {full}")
    scaled = np.minimum(values / values.dtype.type(full), 1) if full > 0 else np.zeros_like(values)
    return scaled.astype(np.float32, copy=False)


def colourise(saliency: ArrayLike | Tensor, colours: str = BLUE_TO_RED) -> NDArray[np.uint8]:
    """Colour a map 0..1: (H, W) → (H, W, 3) uint8.

    Args:
        saliency: the map.
        colours: ``blue-red``, from blue through green to red, the paper's; or the name of a matplotlib colour map,
            such as the perceptually uniform ``viridis``, which colour-blind readers and grey printers can tell apart.

    Raises:
        ValueError: values that are not finite numbers, or no such colours.
    """
    values = np.clip(_finite(saliency), 0, 1)
    coloured = np.empty((*values.shape, 3), np.uint8)
    for channel, level in enumerate(_levels(values, colours)):
        coloured[..., channel] = level
    return coloured


def _levels(values: NDArray[Any], colours: str) -> Iterator[NDArray[Any]]:
    """Red, green and blue of a map 0..1, each 0 to 255 in whole numbers of a floating kind, to be written over."""
    if colours == BLUE_TO_RED:
        scaled = 4 * 255 * values
        for centre in (3, 2, 1):
            level = scaled - values.dtype.type(255 * centre)
            np.subtract(255 * 1.5, np.abs(level, out=level), out=level)
            np.minimum(np.maximum(level, 0, out=level), 255, out=level)  # numpy's clip takes twice as long
            yield np.rint(level, out=level)
        return
    from matplotlib import colormaps  # a second to import, and few ask for it

    if colours not in colormaps:
        raise unknown("colour map", colours, [BLUE_TO_RED, *colormaps])
    mapped = colormaps[colours](values, bytes=True)
    yield from (mapped[..., channel].astype(np.float32) for channel in range(3))


def overlay(
    image: NDArray[np.uint8], saliency: ArrayLike | Tensor, opacity: float = 0.45, colours: str = BLUE_TO_RED
) -> NDArray[np.uint8]:
    """Lay a map 0..1 (H, W) over an image (H, W, 3), in the colours of :func:`colourise`.

    Where the map is zero the image shows unchanged, so a map that is all zero gives back the image itself; the
    opacity grows with the map and reaches ``opacity`` at half of the maximum.

    Raises:
        ValueError: map and image are of different sizes, the map has values that are not finite numbers, or there are
            no such colours.
    """
    given = _array(saliency)
    if given.shape != image.shape[:2] or image.shape[2:] != (3,):
        raise ValueError(f"a map of {given.shape} does not fit an image of {image.shape}")
    blended = np.empty_like(image)
    for top in range(0, len(image), _STRIP):
        strip = slice(top, top + _STRIP)
        values = np.clip(_finite(given[strip]), 0, 1, dtype=np.float32)
        alpha = opacity * np.minimum(1, 2 * values)
        for channel, level in enumerate(_levels(values, colours)):
            below = image[strip, :, channel].astype(np.float32)
            level -= below
            level *= alpha
            level += below
            blended[strip, :, channel] = np.rint(level, out=level)
    return blended
