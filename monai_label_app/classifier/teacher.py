"""Learn from another network: not from its answers to known pictures alone, but from those to mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_label_app.classifier import checkpoint
from monai_label_app.classifier.network import split
from monai_label_app.classifier.precision import mixed_precision

_SOFTNESS = 2.0
"""What scores are divided by before they are compared, so that the unlikely classes count too."""

TRUNK = "trunk"
"""In the place of a teacher's checkpoint: the pretrained trunk itself; see :mod:`.probe`."""


def open_teacher(
    path: Path,
    classes: Sequence[str],
    size: int,
    preprocess: str,
    device: torch.device,
    first: str = "",
    frozen: nn.Module | None = None,
) -> nn.Module:
    """Open a checkpoint that is to teach; it is asked for one view, whatever its card says.

    Args:
        path: of the checkpoint.
        classes, size, preprocess: of the network that learns; the teacher's must be the same.
        device: where it is asked.
        first: the first layer that learns, where not all do: the teacher is shown what it is.
        frozen: the layers before, which must be the teacher's own.

    Raises:
        ValueError: it cannot be read, or differs in one of these.
    """
    network: nn.Module
    network, card, _ = checkpoint.load(path)
    mine, its = (tuple(classes), size, preprocess), (card.classes, card.input_size, card.preprocess)
    if mine != its:
        raise ValueError(f"{path} cannot teach: its classes, input size and pre-processing are {its}, not {mine}")
    if frozen is not None:
        before, network = split(network, first)
        shared = [values.state_dict().values() for values in (before, frozen)]
        if not all(torch.equal(one, other.cpu()) for one, other in zip(*shared, strict=True)):
            raise ValueError(f"what lies before {first} is not {path}'s own: start from its weights, as wide")
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def mix(images: Tensor) -> Tensor:
    """Mix every image (N, …) with another one at random.

    A mixture has no label, and needs none: what is learned is the teacher's function, also between the few pictures.

    Source: Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR 2022.
    """
    shares = torch.rand(len(images), *[1] * (images.ndim - 1)).to(images)
    return torch.lerp(images, images.roll(1, dims=0), shares)


def ask(teacher: nn.Module, images: Tensor) -> Tensor:
    """A teacher's scores (N, classes) of images (N, …)."""
    with torch.no_grad(), mixed_precision(images.device):
        return teacher(images).float()


def disagreement(scores: Tensor, taught: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of softened scores (N, classes) from a teacher's, in the size of a gradient."""
    said, wanted = (functional.log_softmax(values / _SOFTNESS, dim=1) for values in (scores, taught))
    return functional.kl_div(said, wanted, reduction="none", log_target=True).sum(1) * _SOFTNESS**2
