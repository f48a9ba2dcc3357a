"""What fools a network: how much of its evidence lies on navigation boxes, cut-outs and borders, and what they do.

The paper's discovery (section VII) as a measurement. That evidence lies on an artifact is an observation; that the
prediction changes when the artifact is taken away, or planted where it was not, is a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from explainers.faithfulness import energy_in_mask
from monai_label_app.classifier.artifacts import Artifacts, Box, Frame, find_artifacts, masks
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.counterfactual import DRAWN_BOX, cover, cut, plant, without
from monai_label_app.classifier.data import Example, read_examples
from monai_label_app.classifier.evaluation import refuse_strange
from monai_label_app.console import Progress, silent
from monai_label_app.reading import read_frame
from monai_label_app.study import Problem

ELSEWHERE = "elsewhere"
"""Where a frame has no artifact."""

PLANTED = 40
"""Clean frames at most, drawn at random, on which a box is planted."""

Probabilities = NDArray[np.float64]
"""(classes,), 0 to 1."""


@dataclass(frozen=True)
class Look:
    """One frame.

    Attributes:
        example: the picture.
        predicted: the class.
        areas: every artifact that the frame carries, and elsewhere → share of the frame; they add up to 1.
        shares: the same → share of the evidence for the predicted class, its Grad-CAM; they add up to 1. Empty where
            nothing speaks for the class.
        before: probabilities of the frame as it is.
        removed: artifact → probabilities without it.
    """

    example: Example
    predicted: str
    areas: Mapping[str, float]
    shares: Mapping[str, float]
    before: Probabilities
    removed: Mapping[str, Probabilities]

    @property
    def right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.example.label

    @property
    def on_artifacts(self) -> float:
        """Share of the evidence that lies on artifacts; 0 where there is no evidence."""
        return 1 - self.shares.get(ELSEWHERE, 1)


@dataclass(frozen=True)
class Planting:
    """A frame without box and cut-out: probabilities as it is, with a box, and with paint in the box's place."""

    example: Example
    before: Probabilities
    box: Probabilities
    paint: Probabilities


@dataclass(frozen=True)
class Audit:
    """What was seen of a model on a dataset.

    Attributes:
        classes: the model's.
        looks: a frame each.
        plantings: a clean frame each.
        drawn: the dataset has no navigation box, so a drawn one was planted.
        problems: what was left out.
    """

    classes: tuple[str, ...]
    looks: tuple[Look, ...]
    plantings: tuple[Planting, ...]
    drawn: bool
    problems: tuple[Problem, ...]


def audit(examples: Sequence[Example], classifier: Classifier, seed: int = 0, progress: Progress = silent) -> Audit:
    """Look at every example, take its artifacts away, and plant boxes on frames without any.

    All goes the way of a served frame: what the model's card takes off is taken off, whoever put it on.

    Args:
        examples: labelled pictures of the model's classes.
        classifier: the model.
        seed: of which boxes are planted on which frames.
        progress: shows how far the work is.

    Raises:
        ValueError: the model does not know a class, or no picture can be read.
    """
    refuse_strange(examples, classifier.card)
    looks: list[Look] = []
    problems: list[Problem] = []
    boxes: list[tuple[Path, Box]] = []
    clean: list[Example] = []
    for example, frame in read_examples(progress(examples, len(examples), "Looking"), problems):
        found = find_artifacts(frame)
        looks.append(_look(example, frame, found, classifier))
        if found.navigation_box:
            boxes.append((example.path, found.navigation_box))
        elif not found.blacked_out:
            clean.append(example)
    if not looks:
        raise ValueError(f"none of the pictures can be read; the first: {problems[0].reason}")
    random = np.random.default_rng(seed)
    chosen = [clean[index] for index in sorted(random.permutation(len(clean))[:PLANTED])]
    plantings = []
    for example in progress(chosen, len(chosen), "Planting"):
        source = boxes[random.integers(len(boxes))] if boxes else None
        plantings.append(_planting(example, source, classifier))
    return Audit(classifier.card.classes, tuple(looks), tuple(plantings), not boxes, tuple(problems))


def evidence(frame: Frame, classifier: Classifier) -> tuple[Probabilities, NDArray[np.float32]]:
    """Probabilities of a frame (H, W, 3), and the Grad-CAM (H, W) of its most probable class, >= 0."""
    seen, (geometry,) = classifier.dissect([frame])
    probabilities = softmax(seen.scores[0].double().cpu().numpy())
    cam = seen.grad_cam(classifier.card.target_layer, int(probabilities.argmax()))[0]
    return probabilities, geometry.to_source(cam.cpu())


def _look(example: Example, frame: Frame, found: Artifacts, classifier: Classifier) -> Look:
    before, cam = evidence(frame, classifier)
    carried = masks(frame, found)
    removed = _probabilities([without(frame, found, name) for name in carried], classifier) if carried else []
    shares = {name: energy_in_mask(cam, mask) for name, mask in carried.items()}
    return Look(
        example,
        classifier.card.classes[int(before.argmax())],
        _with_rest({name: float(mask.mean()) for name, mask in carried.items()}),
        _with_rest(shares) if cam.any() else {},
        before,
        dict(zip(carried, removed, strict=True)),
    )


def _planting(example: Example, source: tuple[Path, Box] | None, classifier: Classifier) -> Planting:
    frame = example.read()
    patch = cut(read_frame(source[0]), source[1]) if source else DRAWN_BOX
    return Planting(example, *_probabilities([frame, plant(frame, patch), cover(frame, patch)], classifier))


def _probabilities(frames: Sequence[Frame], classifier: Classifier) -> list[Probabilities]:
    return list(softmax(classifier.scores(frames).double().numpy(), axis=1))


def _with_rest(shares: Mapping[str, float]) -> dict[str, float]:
    return {**shares, ELSEWHERE: max(0.0, 1 - sum(shares.values()))}
