"""What fools a network: how much of its evidence lies on navigation boxes, cut-outs and borders, and what they do.

The paper's discovery (section VII) as a measurement. That evidence lies on an artifact is an observation; that the
prediction changes when the artifact is taken away, or planted where it was not, is a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.special import softmax
from skimage.transform import resize

from explainers.faithfulness import energy_in_mask
from monai_label_app.classifier.artifacts import Artifacts, Box, find_artifacts
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Example
from monai_label_app.console import Progress, silent
from monai_label_app.study import Problem, read_frame

BOX, CUT_OUT, BORDER = ARTIFACTS = ("navigation box", "cut-out", "border")

PLANTED = 40
"""Clean frames at most, drawn at random, on which a box is planted."""

_DARK = 24
"""Largest grey of what the endoscope does not show."""

_TEAL = (18, 163, 134)
"""Of the box that is planted where the dataset has none."""

_PLACE = (0.05, 0.66, 0.34, 0.96)
"""Where that box lies: (x0, y0, x1, y1) as shares of the frame, the lower left corner."""

SHARE, EXCESS, MOVE, FRAMES = 0.1, 2.0, 0.1, 3
"""A shortcut is named where, on this many frames at least, an artifact holds this share of the evidence and this many
times its area, or where planting a box raises a probability by this much more than the control does.
"""

_BATCH = 16


@dataclass(frozen=True)
class Look:
    """One frame.

    Attributes:
        example: the picture.
        predicted: index of the class.
        right: whether it is the true one.
        areas: artifact → share of the frame that it covers, of those that the frame carries.
        shares: artifact → share of the evidence for the predicted class that lies on it.
        before: (classes,) probabilities of the frame as it is.
        removed: artifact → (classes,) probabilities without it.
    """

    example: Example
    predicted: int
    right: bool
    areas: Mapping[str, float]
    shares: Mapping[str, float]
    before: NDArray[np.float64]
    removed: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Planting:
    """One clean frame: (classes,) probabilities as it is, with a box, and with other tissue in its place."""

    example: Example
    before: NDArray[np.float64]
    box: NDArray[np.float64]
    control: NDArray[np.float64]


@dataclass
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
    looks: list[Look] = field(default_factory=list)
    plantings: list[Planting] = field(default_factory=list)
    drawn: bool = False
    problems: list[Problem] = field(default_factory=list)


def masks(frame: NDArray[np.uint8], found: Artifacts) -> dict[str, NDArray[np.bool_]]:
    """Where the artifacts of a frame (H, W, 3) lie: artifact → (H, W), of those that it carries.

    The border is what is black up to the edge of the frame, but for the other two.
    """
    boxes = {BOX: found.navigation_box, CUT_OUT: found.blacked_out}
    made = {name: _inside(frame.shape, box) for name, box in boxes.items() if box}
    regions, _ = label(frame.max(axis=2) <= _DARK)
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    border = np.isin(regions, np.unique(edges[edges > 0]))
    for mask in made.values():
        border &= ~mask
    return {**made, BORDER: border} if border.any() else made


def without(frame: NDArray[np.uint8], found: Artifacts, artifact: str) -> NDArray[np.uint8]:
    """A frame with one artifact taken away: a border is cropped, another painted in the median colour of the rest."""
    if artifact == BORDER:
        x0, y0, x1, y1 = found.content
        return frame[y0:y1, x0:x1]
    box = found.navigation_box if artifact == BOX else found.blacked_out
    inside = _inside(frame.shape, box)
    lit = ~inside & (frame.max(axis=2) > _DARK)
    cleaned = frame.copy()
    cleaned[inside] = np.median(frame[lit], axis=0) if lit.any() else 0
    return cleaned


def plant(frame: NDArray[np.uint8], patch: NDArray[np.uint8], place: tuple[float, ...]) -> NDArray[np.uint8]:
    """A frame with a patch (h, w, 3) at a place (x0, y0, x1, y1), shares of the frame's sides."""
    height, width = frame.shape[:2]
    x0, x1 = (round(share * width) for share in place[::2])
    y0, y1 = (round(share * height) for share in place[1::2])
    planted = frame.copy()
    fitted = resize(patch, (max(1, y1 - y0), max(1, x1 - x0)), order=1, preserve_range=True, anti_aliasing=True)
    planted[y0:y1, x0:x1] = np.rint(fitted[: y1 - y0, : x1 - x0]).astype(np.uint8)
    return planted


def audit(examples: Sequence[Example], classifier: Classifier, seed: int = 0, progress: Progress = silent) -> Audit:
    """Look at every example, take its artifacts away, and plant boxes on frames without any.

    All goes the way of a served frame: what the model's card takes off is taken off, whoever put it on.

    Args:
        examples: labelled pictures of the model's classes.
        classifier: the model.
        seed: of which frames are planted on.
        progress: shows how far the work is.

    Raises:
        ValueError: the model does not know a class, or no picture can be read.
    """
    classes = classifier.card.classes
    strange = sorted({example.label for example in examples} - set(classes))
    if strange:
        raise ValueError(f"{classifier.card.name} does not know {', '.join(strange)}; it knows {', '.join(classes)}")
    result = Audit(classes)
    donors: list[tuple[NDArray[np.uint8], tuple[float, ...]]] = []
    clean: list[Example] = []
    for example in progress(examples, len(examples), "Looking"):
        try:
            frame = read_frame(example.path)
        except ValueError as error:
            result.problems.append(Problem(str(example.path), str(error)))
            continue
        found = find_artifacts(frame)
        result.looks.append(_look(example, frame, found, classifier))
        if found.navigation_box:
            donors.append(_donor(frame, found.navigation_box))
        elif not found.blacked_out:
            clean.append(example)
    if not result.looks:
        raise ValueError(f"none of the pictures can be read; the first: {result.problems[0].reason}")
    random = np.random.default_rng(seed)
    result.drawn = not donors
    donors = donors or [(np.full((8, 8, 3), _TEAL, np.uint8), _PLACE)]
    chosen = [clean[index] for index in sorted(random.permutation(len(clean))[:PLANTED])]
    for number, example in enumerate(progress(chosen, len(chosen), "Planting")):
        patch, place = donors[random.integers(len(donors))]
        other = read_frame(chosen[number - 1].path)
        frame = read_frame(example.path)
        control = plant(frame, _donor(other, _absolute(other, place))[0], place)
        before, box, instead = _probabilities([frame, plant(frame, patch, place), control], classifier)
        result.plantings.append(Planting(example, before, box, instead))
    return result


def _look(example: Example, frame: NDArray[np.uint8], found: Artifacts, classifier: Classifier) -> Look:
    seen, (geometry,) = classifier.dissect([frame])
    before = softmax(seen.scores[0].double().cpu().numpy())
    predicted = int(before.argmax())
    cam = geometry.to_source(seen.grad_cam(classifier.card.target_layer, predicted)[0].cpu())
    carried = masks(frame, found)
    removed = _probabilities([without(frame, found, name) for name in carried], classifier) if carried else []
    return Look(
        example,
        predicted,
        classifier.card.classes[predicted] == example.label,
        {name: float(mask.mean()) for name, mask in carried.items()},
        {name: energy_in_mask(cam, mask) for name, mask in carried.items()} if cam.any() else {},
        before,
        dict(zip(carried, removed, strict=True)),
    )


def _probabilities(frames: Sequence[NDArray[np.uint8]], classifier: Classifier) -> list[NDArray[np.float64]]:
    return list(softmax(classifier.scores(frames).double().numpy(), axis=1))


def _donor(frame: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    (x0, y0, x1, y1), (height, width) = box, frame.shape[:2]
    return frame[y0:y1, x0:x1], (x0 / width, y0 / height, x1 / width, y1 / height)


def _absolute(frame: NDArray[np.uint8], place: tuple[float, ...]) -> Box:
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(place, (width, height) * 2, strict=True))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _inside(shape: tuple[int, ...], box: Box | None) -> NDArray[np.bool_]:
    mask = np.zeros(shape[:2], dtype=bool)
    if box:
        x0, y0, x1, y1 = box
        mask[y0:y1, x0:x1] = True
    return mask


def summary(result: Audit) -> dict[str, Any]:
    """The audit as plain numbers, by class; None where there is nothing to take a mean of.

    ``carries`` counts frames by their true class. ``evidence`` is of the frames that are predicted as the class, apart
    for right and wrong ones, with the share of the frame that the artifact covers (what a map that knows nothing would
    have there). ``removed`` is the probability of the predicted class. ``planted`` is that of the class on clean frames
    of other classes.
    """
    content: dict[str, Any] = {"images": len(result.looks), "box_planted": "drawn" if result.drawn else "real"}
    by_class: dict[str, Any] = {}
    for index, name in enumerate(result.classes):
        said = [look for look in result.looks if look.predicted == index]
        true = [look for look in result.looks if look.example.label == name]
        others = [planting for planting in result.plantings if planting.example.label != name]
        by_class[name] = {
            "images": len(true),
            "carries": {kind: sum(kind in look.areas for look in true) for kind in ARTIFACTS},
            "evidence": {kind: _evidence([look for look in said if kind in look.shares], kind) for kind in ARTIFACTS},
            "removed": {kind: _removed([look for look in said if kind in look.removed], kind) for kind in ARTIFACTS},
            "planted": {
                "frames": len(others),
                **{
                    when: _mean([getattr(planting, when)[index] for planting in others])
                    for when in ("before", "box", "control")
                },
            },
        }
    content["classes"] = by_class
    content["shortcuts"] = _sentences(by_class)
    return content


def _evidence(looks: Sequence[Look], kind: str) -> dict[str, Any]:
    right, wrong = ([look for look in looks if look.right == hit] for hit in (True, False))
    return {
        "frames": len(looks),
        "share": _mean([look.shares[kind] for look in looks]),
        "area": _mean([look.areas[kind] for look in looks]),
        "right": _mean([look.shares[kind] for look in right]),
        "wrong": _mean([look.shares[kind] for look in wrong]),
    }


def _removed(looks: Sequence[Look], kind: str) -> dict[str, Any]:
    return {
        "frames": len(looks),
        "before": _mean([look.before[look.predicted] for look in looks]),
        "after": _mean([look.removed[kind][look.predicted] for look in looks]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _sentences(by_class: Mapping[str, Any]) -> list[str]:
    """The shortcuts in words, the strongest first."""
    found: list[tuple[float, str]] = []
    for name, row in by_class.items():
        for kind in ARTIFACTS:
            seen, removed = row["evidence"][kind], row["removed"][kind]
            if seen["frames"] >= FRAMES and seen["share"] >= max(SHARE, EXCESS * seen["area"]):
                sentence = (
                    f"{name}: {seen['share']:.0%} of the evidence on the {kind}, {seen['area']:.0%} of the frame; "
                    f"without it p goes from {removed['before']:.2f} to {removed['after']:.2f} "
                    f"({seen['frames']} frames)"
                )
                found.append((seen["share"], sentence))
        planted = row["planted"]
        if planted["frames"] >= FRAMES:
            move = planted["box"] - max(planted["before"], planted["control"])
            if move >= MOVE:
                sentence = (
                    f"{name}: planting a {BOX} moves p from {planted['before']:.2f} to {planted['box']:.2f}, other "
                    f"tissue in its place to {planted['control']:.2f} ({planted['frames']} frames of other classes)"
                )
                found.append((move, sentence))
    return [sentence for _, sentence in sorted(found, reverse=True)]
