"""What a training works on: a network that shows its target layer, and the loss of its classes and its maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from monai_label_app.classifier.guidance import astray
from monai_label_app.classifier.precision import mixed_precision
from monai_label_app.classifier.teacher import disagreement

_SMOOTHING = 0.05
"""Of the labels, some of which are wrong."""

_LABELS = 0.2
"""Weight of the labels beside a teacher that was told them."""


class Learner(nn.Module):
    """A network that returns its scores and what its target layer put out."""

    def __init__(self, network: nn.Module, layer: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self._kept: Tensor | None = None
        if layer is not None:
            layer.register_forward_hook(self._keep)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (N, classes), and the layer's output (N, K, h, w)."""
        self._kept = None
        with mixed_precision(images.device):
            scores = self.network(images)
        if not isinstance(scores, Tensor):
            raise ValueError(f"{type(self.network).__name__} has outputs beside its class scores and cannot be trained")
        kept, self._kept = self._kept, None
        return scores.float(), kept

    def _keep(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self._kept = output
        return output.clone()  # the ReLU that follows writes into what it is given


class Loss(nn.Module):
    """Cross-entropy of the classes and, weighted, how far the maps go astray; remembers both."""

    def __init__(self, weights: Tensor, guidance: float) -> None:
        super().__init__()
        self._weights, self._guidance = weights, guidance
        self.parts: list[tuple[float, float]] = []

    def forward(self, made: tuple[Tensor, Tensor | None], wanted: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
        """The sum, of what :class:`Learner` made and (targets, allowed, a teacher's scores).

        Where there is a teacher, mixtures follow the images that have targets. It has scored the mixtures or, if it was
        told the targets, all.
        """
        (scores, activation), (targets, allowed, taught) = made, wanted
        own, weights = scores[: len(targets)], self._weights.to(scores)[targets]
        each = functional.cross_entropy(own, targets, reduction="none", label_smoothing=_SMOOTHING)
        wrong = (each * weights).mean()
        lost = scores.new_zeros(())
        if activation is not None:
            lost = astray(own, activation, targets, allowed).mean()
        self.parts.append((wrong.detach().item(), lost.detach().item()))
        if taught is not None:
            apart, others = disagreement(scores[-len(taught) :], taught), len(scores) - len(own)
            told, mixed = apart[:-others], apart[-others:]
            if len(told):
                wrong = _LABELS * wrong + (told * weights).mean()
            wrong = wrong + mixed.mean()
        return wrong + self._guidance * lost
