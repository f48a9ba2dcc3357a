"""A network with its card, ready to look at frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from numpy.typing import NDArray
from safetensors.torch import save as serialise
from torch import Tensor, nn

from explainers import Dissection, Geometry, dissect
from explainers.layers import convolutions
from explainers.trace import run
from monai_label_app.classifier import checkpoint
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.network import build, in_views, load_pretrained, target_layer
from monai_label_app.classifier.precision import mixed_precision
from monai_label_app.classifier.prepare import prepare
from monai_label_app.classifier.registry import Registry
from monai_label_app.sample import MODEL


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode, its card, and the fingerprint (SHA-256, hexadecimal) of its weights."""

    network: nn.Module
    card: Card
    fingerprint: str
    device: torch.device

    @property
    def version(self) -> str:
        """The card's version and the first eight digits of the fingerprint, as in ``1.0.0+0a1b2c3d``."""
        return f"{self.card.version}+{self.fingerprint[:8]}"

    @property
    def layers(self) -> list[str]:
        """Every layer that takes part in the scores, in the order of the forward pass."""
        return list(self._sizes)

    @property
    def stages(self) -> list[str]:
        """The last layer of each size, from the first to the last: five in a VGG."""
        return list({size: layer for layer, size in self._sizes.items()}.values())

    @cached_property
    def _sizes(self) -> dict[str, torch.Size]:
        seen = dissect(self.network, torch.zeros(1, 3, self.card.input_size, self.card.input_size))
        return {layer: seen.activation(layer).shape[2:] for layer in seen.layers}

    def dissect(
        self, frames: Sequence[NDArray], layers: Sequence[str] | None = None
    ) -> tuple[Dissection, list[Geometry]]:
        """Look at frames (H, W, 3) uint8 of any size, as one batch.

        Args:
            frames: the pictures, RGB.
            layers: which layers may be asked for; by default the card's target layer alone.

        Raises:
            ValueError: no such layer.
        """
        images, geometries = self._prepare(frames)
        return dissect(self.network, images, layers or [self.card.target_layer]), geometries

    def scores(self, frames: Sequence[NDArray], half: bool = False) -> Tensor:
        """Class scores before softmax of frames (H, W, 3) uint8 of any size: (N, classes), on the CPU.

        Where no map is wanted: quicker than :meth:`dissect`, and in a fraction of its memory.

        Args:
            frames: the pictures, RGB.
            half: compute in half the bits where the processor has them: several times as fast, and of the
                demonstration model's probabilities none was off by more than 0.02.

        Raises:
            ValueError: the network cannot take its card's input size, or its weights are broken.
        """
        images = self._prepare(frames)[0]
        if not half:
            with torch.inference_mode():
                return run(self.network, images).cpu()
        with torch.inference_mode(), mixed_precision(self.device):
            return run(self.network, images.contiguous(memory_format=torch.channels_last)).float().cpu()

    def _prepare(self, frames: Sequence[NDArray]) -> tuple[Tensor, list[Geometry]]:
        card = self.card
        prepared = [prepare(frame, card.input_size, card.mean, card.std, card.preprocess) for frame in frames]
        images = torch.stack([image for image, _ in prepared]).to(self.device)
        return images, [geometry for _, geometry in prepared]


def open_classifier(model: str | None = None, weights: str | None = None) -> Classifier:
    """Open a classifier as the command line names it; the last one stays loaded.

    Args:
        model: a checkpoint (``.safetensors`` with a card), a folder of checkpoints of which one is active, the name of
            a torchvision network, or nothing for the demonstration model.
        weights: for a network by name: ``imagenet``, a safetensors file, or nothing for random weights.

    Raises:
        ValueError: the model or the weights do not exist, cannot be read or do not fit.
    """
    # Asked each time, so that a server uses what is active now.
    path = checkpoint_of(model)
    return _open(str(path or model), weights)


def checkpoint_of(model: str | None) -> Path | None:
    """The file of a classifier as :func:`open_classifier` takes it; None for a network by name.

    Raises:
        ValueError: it is a folder without an active model.
    """
    if model and Path(model).is_dir():
        return Registry(Path(model)).path()
    path = Path(model) if model else MODEL
    return path if path.suffix == ".safetensors" else None


@lru_cache(maxsize=1)
def _open(model: str, weights: str | None = None) -> Classifier:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if model.endswith(".safetensors"):
        if weights:
            raise ValueError("--weights goes with a network's name; a checkpoint brings its own weights")
        network, card, fingerprint = checkpoint.load(Path(model))
        network = in_views(network, card.test_views)
    else:
        network, card = _by_name(model, weights)
        fingerprint = hashlib.sha256(serialise(network.state_dict())).hexdigest()
    return Classifier(network.to(device), card, fingerprint, device)


def _by_name(architecture: str, weights: str | None) -> tuple[nn.Module, Card]:
    # Seeded, so that a network without weights gives the same results twice.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(architecture)
    untrained = load_pretrained(network, architecture, weights) if weights else list(network.state_dict())
    if not convolutions(network):
        raise ValueError(f"{architecture} has no convolution to explain")
    card = Card(
        name=architecture,
        version=Path(weights).stem if weights else "untrained",
        architecture=architecture,
        target_layer=target_layer(network),
        training_data=weights or "",
        notice="untrained network, its output means nothing" if untrained else "",
    )
    return network, card
