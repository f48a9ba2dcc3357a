"""``endolens faithfulness``: measure on a folder of pictures whether a model's maps are true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from explainers import METHODS, Geometry, dissect, heatmap
from explainers.faithfulness import (
    Curve,
    Randomised,
    deletion,
    energy_in_mask,
    insertion,
    pointing_game,
    randomisation,
)
from explainers.layers import unknown
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import find_dataset
from monai_label_app.console import Progress, silent
from monai_label_app.explain import TOP
from monai_label_app.files import find_files
from monai_label_app.folder import whole
from monai_label_app.masks import find_masks, read_mask
from monai_label_app.pictures import write_plot
from monai_label_app.reading import read_frame
from monai_label_app.study import Problem

CENTRE, RANDOM = "centre", "random"
"""Baselines: a bell at the middle of the image, where a lesion often is, and noise of the map's own resolution."""

RANDOMISED_IMAGES = 4
"""Pictures whose maps are made again for every layer whose weights are drawn anew."""


@dataclass(frozen=True)
class Sample:
    """A picture, and the mask of the object that its class is about, or None."""

    picture: Path
    mask: Path | None


@dataclass
class Score:
    """How one kind of map did, an entry an image.

    Where there are no masks the first two stay empty. An image whose map is blank has no curves, of the baselines
    either: no pixel of it comes before another.
    """

    pointing_game: list[float] = field(default_factory=list)
    energy_in_mask: list[float] = field(default_factory=list)
    deletion: list[Curve] = field(default_factory=list)
    insertion: list[Curve] = field(default_factory=list)

    def means(self) -> dict[str, float | None]:
        """The mean of each measure; None where it was not measured."""
        return {
            "pointing_game": _mean(self.pointing_game),
            "energy_in_mask": _mean(self.energy_in_mask),
            "deletion_auc": _mean([curve.area for curve in self.deletion]),
            "insertion_auc": _mean([curve.area for curve in self.insertion]),
        }


@dataclass
class Evaluation:
    """What came of a folder.

    Attributes:
        scores: method, ``centre`` and ``random`` → how they did.
        images: how many were measured.
        blank: how many of them had an all-zero map.
        randomised: of the first :data:`RANDOMISED_IMAGES` with a map, the last layer first; empty if there is none.
        problems: what was left out.
    """

    scores: dict[str, Score]
    images: int = 0
    blank: int = 0
    randomised: list[Randomised] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_pictures(path: Path, label: str) -> list[Path]:
    """The pictures of a folder, or those of a class, ``top`` for all, that a CSV file lists.

    Raises:
        ValueError: there is no such folder or file, or it is no list of pictures.
    """
    if path.suffix.lower() != ".csv":
        return list(find_files([path]))
    return [example.path for example in find_dataset(path).examples if label in (TOP, example.label)]


def find_samples(pictures: Iterable[Path], masks: Path | None) -> tuple[list[Sample], list[Problem]]:
    """Pair pictures with the masks of the same name, whatever their suffix; those without just one are left out.

    Masks that lie among the pictures are no pictures.
    """
    if masks is None:
        return [Sample(picture, None) for picture in pictures], []
    named = find_masks(masks)
    samples, problems = [], []
    for picture in pictures:
        if masks.resolve() in picture.resolve().parents:
            continue
        found = named.get(picture.stem, [])
        if len(found) == 1:
            samples.append(Sample(picture, found[0]))
        else:
            count = "two masks" if found else "no mask"
            problems.append(Problem(str(picture), f"{picture} has {count} in {masks}"))
    return samples, problems


def evaluate(
    samples: Sequence[Sample],
    classifier: Classifier,
    method: str,
    layer: str,
    label: str = TOP,
    steps: int = 16,
    progress: Progress = silent,
) -> Evaluation:
    """Measure one kind of map on pictures.

    A picture that cannot be used is left out and named in the result.

    Args:
        samples: the pictures.
        classifier: the network.
        method: one of :data:`explainers.METHODS`.
        layer: that is explained.
        label: the class whose map is measured; ``top`` takes the predicted one of each picture.
        steps: of deletion and insertion.
        progress: shows how far the work is.

    Raises:
        ValueError: no such method, layer or class.
    """
    labels = classifier.card.classes
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if label not in (*labels, TOP):
        raise unknown("class", label, labels)
    result = Evaluation({kind: Score() for kind in (method, CENTRE, RANDOM)})
    first: list[tuple[Tensor, int]] = []
    for sample in progress(samples, len(samples), "Measuring"):
        try:
            pixels = read_frame(sample.picture)
            mask = None if sample.mask is None else read_mask(sample.mask, pixels.shape[:2])
        except ValueError as error:
            result.problems.append(Problem(str(sample.picture), str(error)))
            continue
        dissection, (geometry,) = classifier.dissect([pixels], [layer])
        target = int(dissection.probabilities[0].argmax()) if label == TOP else labels.index(label)
        made = METHODS[method].look(dissection, layer, target)[0].numpy(force=True)
        _measure(result, classifier.network, dissection.images[0], target, made, geometry, mask, steps)
        if made.any() and len(first) < RANDOMISED_IMAGES:
            first.append((dissection.images[0], target))
    if first:
        images, targets = torch.stack([image for image, _ in first]), [target for _, target in first]

        def look(network: nn.Module) -> Tensor:
            return METHODS[method].look(dissect(network, images, [layer]), layer, targets).cpu()

        result.randomised = list(progress(randomisation(classifier.network, look), None, "Drawing weights anew"))
    return result


def _measure(
    result: Evaluation,
    network: nn.Module,
    image: Tensor,
    target: int,
    made: NDArray[np.float32],
    geometry: Geometry,
    mask: NDArray[np.bool_] | None,
    steps: int,
) -> None:
    size = (image.shape[1], image.shape[2])
    # As coarse as the map: noise of single pixels destroys a picture faster than any map.
    noise = np.random.default_rng(result.images).random(made.shape, dtype=np.float32)
    for kind, saliency in zip(result.scores, (made, _bell(size), noise), strict=True):
        score = result.scores[kind]
        fitted = heatmap.resize(saliency, size)
        if made.any():
            score.deletion.append(deletion(network, image, fitted, target, steps))
            score.insertion.append(insertion(network, image, fitted, target, steps))
        if mask is None:
            continue
        if kind == RANDOM:  # what a random point reaches on average
            score.pointing_game.append(float(mask.mean()))
            score.energy_in_mask.append(float(mask.mean()))
        else:
            source = geometry.to_source(saliency)
            score.pointing_game.append(pointing_game(source, mask))
            score.energy_in_mask.append(energy_in_mask(source, mask))
    result.images += 1
    result.blank += not made.any()


def _bell(size: tuple[int, int]) -> NDArray[np.float32]:
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in size)
    return np.exp(-2 * (rows[:, None] ** 2 + columns[None] ** 2))


def summary(result: Evaluation, method: str) -> dict[str, Any]:
    """The measures as plain numbers, means over the pictures; None where there were no masks.

    ``centre`` is the pointing game of the image's middle, ``mask_area`` that of a random point. In ``randomisation``
    ``blank`` of ``randomisation_images`` maps are left out; ``similarity`` is None where all of them are blank.
    """
    centre, random = result.scores[CENTRE].means(), result.scores[RANDOM].means()
    return {
        "images": result.images,
        "blank_maps": result.blank,
        **result.scores[method].means(),
        "mask_area": random["pointing_game"],
        "centre": centre["pointing_game"],
        **{f"centre_{name}": value for name, value in centre.items() if name != "pointing_game"},
        **{f"random_{name}": random[name] for name in ("deletion_auc", "insertion_auc")},
        "randomisation": [vars(step) for step in result.randomised],
        "randomisation_images": min(result.images - result.blank, RANDOMISED_IMAGES),
    }


def table(result: Evaluation) -> str:
    """The means as lines of text: a row a kind of map, a column a measure."""
    heads = ("pointing game", "energy in mask", "deletion area", "insertion area")
    lines = ["".join([" " * 16, *(f"{head:>16}" for head in heads)])]
    for kind, score in result.scores.items():
        cells = ("-" if value is None else f"{value:.3f}" for value in score.means().values())
        lines.append("".join([f"{kind:16}", *(f"{cell:>16}" for cell in cells)]))
    if not result.randomised:
        return "\n".join([*lines, "", f"All {result.blank} maps are blank."])
    first, last = result.randomised[0], result.randomised[-1]
    images = min(result.images - result.blank, RANDOMISED_IMAGES)
    return "\n".join(
        [
            *lines,
            "",
            "A true map beats both baselines: deletion area lower, all others higher.",
            "Rank correlation with the map after drawing weights anew, which falls to about 0 where a map is true:",
            f"of {first.layer}: {_similarity(first, images)}; of all layers: {_similarity(last, images)}.",
            f"Blank maps: {result.blank}.",
        ]
    )


def _similarity(step: Randomised, images: int) -> str:
    if step.similarity is None:
        return "not known, for every map is blank"
    return f"{step.similarity:.2f}" + (f" ({step.blank} of {images} maps blank, left out)" if step.blank else "")


def plot(result: Evaluation, title: str, path: Path) -> None:
    """Draw deletion, insertion and randomisation side by side, as PNG."""
    from matplotlib.figure import Figure  # a second to import, and most of the work is before it

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    figure.suptitle(title)
    for panel, name, hint in zip(
        panels, ("deletion", "insertion"), ("lower is better", "higher is better"), strict=False
    ):
        for kind, score in result.scores.items():
            curves: list[Curve] = getattr(score, name)
            if not curves:
                continue
            mean = np.mean([curve.probability for curve in curves], axis=0)
            panel.plot(curves[0].share, mean, label=f"{kind} {np.mean([curve.area for curve in curves]):.3f}")
        panel.set(title=f"{name}: {hint}", xlabel="share of pixels", ylabel="probability of the class", ylim=(0, 1))
        if result.randomised:
            panel.legend(title="area under the curve")
    steps = result.randomised
    # Where every map is blank there is a gap.
    similar = [np.nan if step.similarity is None else step.similarity for step in steps]
    panels[2].plot(range(1, len(steps) + 1), similar, marker="o", markersize=3)
    panels[2].axhline(0, color="grey", linewidth=0.8)
    panels[2].set(
        title="randomisation: falls to about 0 where a map is true",
        xlabel=f"layers drawn anew, from {steps[0].layer} back to {steps[-1].layer}" if steps else "every map is blank",
        ylabel="rank correlation with the map",
        ylim=(-1, 1),
    )
    panels[2].xaxis.get_major_locator().set_params(integer=True)
    with whole(path) as partial:
        write_plot(figure, partial)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
