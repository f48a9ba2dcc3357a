"""Class activation maps: what a layer put out, weighted by what it did for a class.

A variant is one function of the layer's output ``activation`` A and the gradient ``gradient`` dy/dA of the class score
before softmax, both (N, K, h, w), that returns a map (N, h, w) >= 0. Listed in :data:`CAMS`, it has a name everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Cam = Callable[[Tensor, Tensor], Tensor]


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM: ``w_k = mean over space of dy/dA_k``, ``map = ReLU(sum over k of w_k A_k)``.

    On the scale of the score: maps of one image and layer compare across classes.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2.
    """
    weights = gradient.mean(dim=(2, 3))
    # A product of matrices never holds the weighted activation, which is as large as the layer.
    return (weights[:, None] @ activation.flatten(2)).view(len(activation), *activation.shape[2:]).relu()


def hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """HiRes-CAM: ``map = ReLU(sum over k of dy/dA_k · A_k)``, the gradient not averaged over space.

    Source: Draelos and Carin, Use HiResCAM instead of Grad-CAM, 2020, equation 4.
    """
    return (gradient * activation).sum(dim=1).relu()


CAMS: Mapping[str, Cam] = {"grad-cam": grad_cam, "hires-cam": hires_cam}
"""Every variant by the name that the command line knows it by."""
