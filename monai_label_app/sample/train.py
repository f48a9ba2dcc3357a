"""Train and measure the demonstration model, on synthetic frames only: ``python -m monai_label_app.sample.train``.

Trained on labels alone, this network gets 98 % of the frames right and yet looks beside three of four polyps: it knows
a polyp by the absence of all else, the shortcut that EndoLens is there to show. Two things mend it: frames without any
finding, for which no class is the answer, and a loss on Grad-CAM maps that lie beside the finding (Ross et al., Right
for the Right Reasons, IJCAI 2017). The pointing game is measured on frames that neither has seen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import VGG

from explainers.layers import convolutions
from monai_label_app.classifier.checkpoint import Card, load, save
from monai_label_app.classifier.guidance import astray
from monai_label_app.classifier.network import KVASIR_CLASSES, build
from monai_label_app.classifier.prepare import square
from monai_label_app.sample import MODEL
from monai_label_app.sample.frames import render, render_bare

LESIONS = ("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "polyps", "ulcerative-colitis")
"""The classes that a lesion makes, which an explanation must therefore point to."""

_CARD = Card(
    name="endolens-demo",
    version="1.0.0",
    width=1 / 12,
    training_data="synthetic frames rendered by monai_label_app.sample, no real image; "
    "Grad-CAM maps supervised by the masks of the findings",
    notice="demonstration model, not for clinical use",
)
_TRAINING_FRAMES = 280
_BARE_FRAMES = 320
_HELD_OUT_FRAMES = 60
_HELD_OUT_SEED = 500_000
_TOLERANCE = 0.08
_BATCH = 32
_SMOOTHING = 0.05
_GUIDANCE = 0.4
_DROPOUT = 0.1


@dataclass(frozen=True)
class _Stage:
    """A part of the training: the side of the input in pixels, passes over the frames, highest learning rate."""

    side: int
    epochs: int
    rate: float


# Most is learnt from small frames, at a fraction of the cost; only the last passes see the size that is served.
_STAGES = (_Stage(128, 12, 1.5e-3), _Stage(224, 8, 1e-3))


def train(out: Path, seed: int = 0, progress: Callable[[str], None] = print) -> Card:
    """Train the demonstration model and write its checkpoint.

    Args:
        out: the checkpoint to write.
        seed: of weights, order and augmentation; the frames are the same for any seed.
        progress: is told, in a line, how far it is.

    Returns:
        The card that was written, with the metrics on held-out frames.
    """
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    started = time.monotonic()
    images, targets = _training_set()
    progress(f"{len(images)} frames rendered in {time.monotonic() - started:.0f} s")
    network = cast(VGG, build(f"{_CARD.architecture}_bn", KVASIR_CLASSES, _CARD.width))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = _DROPOUT
    # This layout halves the time on a CPU: its channels are few.
    network.to(memory_format=torch.channels_last)
    for stage in _STAGES:
        for epoch, (wrong, lost) in enumerate(_fit(network, images, targets, stage), 1):
            passed = f"{time.monotonic() - started:.0f} s"
            progress(f"{stage.side} px, epoch {epoch}/{stage.epochs}: losses {wrong:.3f}, {lost:.3f} ({passed})")
    folded = _fold(network)
    card = replace(_CARD, metrics=evaluate(folded, _CARD))
    save(out, folded, card)
    progress(f"{out.name} written after {time.monotonic() - started:.0f} s: {card.metrics}")
    return card


def evaluate(network: nn.Module, card: Card) -> dict[str, float]:
    """Measure a network on held-out frames of (480, 576) pixels, which no training sees.

    Args:
        network: in evaluation mode, of the classes of the card.
        card: says the input of the network and the layer of its Grad-CAM.

    Returns:
        Accuracy; macro recall; and the pointing game: the share of the frames of :data:`LESIONS` (and of polyps alone)
        in which the peak of the Grad-CAM of the predicted class lies on the lesion or within 8 % of the frame's width
        of it. Its chance level is the share for a point anywhere in the frame.
    """
    right: list[tuple[str, bool]] = []
    hits: list[tuple[str, bool, float]] = []
    for label, frame, mask in _render(_HELD_OUT_SEED, _HELD_OUT_FRAMES, 480, 576):
        predicted, peak = point(network, card, frame)
        right.append((label, predicted == label))
        if label in LESIONS:
            near = ndimage.distance_transform_edt(~mask) <= _TOLERANCE * mask.shape[1]
            hits.append((label, peak is not None and bool(near[peak]), float(near.mean())))
    recalls = [float(np.mean([hit for label, hit in right if label == name])) for name in KVASIR_CLASSES]
    metrics: dict[str, np.floating | float] = {
        "accuracy": np.mean([hit for _, hit in right]),
        "macro_recall": np.mean(recalls),
        "pointing_game": np.mean([hit for _, hit, _ in hits]),
        "pointing_game_polyps": np.mean([hit for label, hit, _ in hits if label == "polyps"]),
        "pointing_game_chance": np.mean([share for _, _, share in hits]),
        "held_out_frames": len(right),
    }
    return {name: round(float(value), 4) for name, value in metrics.items()}


def point(network: nn.Module, card: Card, frame: NDArray[np.uint8]) -> tuple[str, tuple[int, int] | None]:
    """Classify a frame and find the peak of the Grad-CAM of the predicted class.

    Args:
        network: in evaluation mode.
        card: says the input of the network and the layer of the Grad-CAM.
        frame: RGB (H, W, 3).

    Returns:
        The class, and the row and column of the peak in the frame; none where the map is empty.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        # The ReLU that follows writes into what it is given.
        return output.clone()

    hook = convolutions(network)[card.target_layer].register_forward_hook(keep)
    try:
        logits = network(_normalised(square(frame, card.input_size)[None], card))[0]
    finally:
        hook.remove()
    predicted = int(logits.argmax())
    (gradient,) = torch.autograd.grad(logits[predicted], kept[0])
    coarse = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True))
    heat = F.interpolate(coarse, size=frame.shape[:2], mode="bilinear", align_corners=False)[0, 0].detach().numpy()
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return card.classes[predicted], (row, column) if heat.max() > 0 else None


def _render(
    first: int, count: int, height: int, width: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Render as many frames of every class, from a first seed on, in processes."""
    names = [name for _ in range(count) for name in KVASIR_CLASSES]
    seeds = [first + number for number in range(count) for _ in KVASIR_CLASSES]
    # Forking a process that runs torch's threads may hang it.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        drawn = pool.map(render, names, seeds, repeat(height), repeat(width), chunksize=16)
        for name, (frame, mask) in zip(names, drawn, strict=True):
            yield name, frame, mask


def _normalised(pixels: Tensor, card: Card) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    return (pixels - mean) / std


def _training_set() -> tuple[Tensor, Tensor]:
    """The training frames, each with its mask as fourth channel, and their class probabilities (N, classes).

    The frames are bytes, (N, 4, 224, 224), for they fit into memory so.
    """
    images, targets = [], []
    for name, frame, mask in _render(0, _TRAINING_FRAMES, 240, 288):
        images.append(np.dstack([frame, np.where(mask, np.uint8(255), np.uint8(0))]))
        sure = F.one_hot(torch.tensor(KVASIR_CLASSES.index(name)), len(KVASIR_CLASSES))
        targets.append(sure * (1 - _SMOOTHING) + _SMOOTHING / len(KVASIR_CLASSES))
    for seed in range(_BARE_FRAMES):
        images.append(np.pad(render_bare(seed, 240, 288), ((0, 0), (0, 0), (0, 1))))
        targets.append(torch.full((len(KVASIR_CLASSES),), 1 / len(KVASIR_CLASSES)))
    squares = [(square(image, _CARD.input_size) * 255).round().byte() for image in images]
    return torch.stack(squares), torch.stack(targets)


def _fit(network: VGG, images: Tensor, targets: Tensor, stage: _Stage) -> Iterator[tuple[float, float]]:
    """Run one stage of the training; yield the mean losses of every epoch: of the classes, of the maps."""
    network.train()
    steps = len(targets) // _BATCH
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.rate, total_steps=stage.epochs * steps)
    for _ in range(stage.epochs):
        losses = []
        for chosen in torch.randperm(len(targets))[: steps * _BATCH].split(_BATCH):
            pixels, masks = _augmented(F.interpolate(images[chosen].float() / 255, (stage.side,) * 2, mode="area"))
            inputs = _normalised(pixels, _CARD).contiguous(memory_format=torch.channels_last)
            # Up to the batch norm of the last convolution, with which it will be folded.
            activation = network.features[:-2](inputs)
            logits = network.classifier(network.avgpool(network.features[-2:](activation.clone())).flatten(1))
            wrong = F.cross_entropy(logits, targets[chosen])
            lost = astray(logits, activation, targets[chosen].argmax(1), masks)
            lost = lost[lost > 0].mean()
            optimiser.zero_grad()
            (wrong + _GUIDANCE * lost).backward()
            optimiser.step()
            schedule.step()
            losses.append((wrong.item(), lost.item()))
        yield float(np.mean([pair[0] for pair in losses])), float(np.mean([pair[1] for pair in losses]))


def _augmented(images: Tensor) -> tuple[Tensor, Tensor]:
    """Flip and turn a batch, and vary brightness and hue of each frame: the frames (N, 3, …), the masks (N, 1, …)."""
    for dimension in (2, 3):
        flipped = (torch.rand(len(images)) < 0.5).view(-1, 1, 1, 1)
        images = torch.where(flipped, images.flip(dimension), images)
    if torch.rand(()) < 0.5:
        images = images.transpose(2, 3)
    pixels, masks = images.split((3, 1), dim=1)
    brightness = 1 + 0.15 * (2 * torch.rand(len(pixels), 1, 1, 1) - 1)
    hue = 1 + 0.06 * (2 * torch.rand(len(pixels), 3, 1, 1) - 1)
    return (pixels * brightness * hue).clamp(0, 1), masks


def _fold(network: nn.Module) -> nn.Module:
    """Fold the batch norms of a VGG network into its convolutions: a plain VGG network of the same outputs."""
    network.eval()
    plain = build(_CARD.architecture, KVASIR_CLASSES, _CARD.width)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    pairs = zip(convolutions(plain).values(), convolutions(network).values(), norms, strict=True)
    for target, convolution, norm in pairs:
        target.load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())
    plain.get_submodule("classifier").load_state_dict(network.get_submodule("classifier").state_dict())
    probe = torch.rand(4, 3, _CARD.input_size, _CARD.input_size)
    with torch.no_grad():
        torch.testing.assert_close(plain(probe), network(probe), rtol=1e-3, atol=1e-3)
    return plain


def main() -> None:
    """Train the model, or measure the one that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="the checkpoint to write (or to measure)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true", help="train nothing, measure the checkpoint")
    arguments = parser.parse_args()
    if arguments.evaluate:
        network, card, _ = load(arguments.out)
        print(evaluate(network, card))
    else:
        train(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
