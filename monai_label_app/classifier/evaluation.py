"""What a classifier says of labelled pictures, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from monai_label_app.classifier.checkpoint import Card, learned_from
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Example, read_examples
from monai_label_app.classifier.metrics import (
    RATES,
    RESAMPLES,
    confusion_matrix,
    interval,
    rates,
    reliability,
    resample,
    summary,
)
from monai_label_app.console import Progress, silent
from monai_label_app.study import Problem

_BATCH = 16


@dataclass(frozen=True)
class Evaluation:
    """What was asked and what was said, a row an example.

    Attributes:
        classes: the classifier's, in its order.
        examples: those that could be read.
        scores: (N, classes) before softmax.
        problems: what was left out.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    scores: NDArray[np.float64]
    problems: tuple[Problem, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true classes, (N,), as indices."""
        return np.array([self.classes.index(example.label) for example in self.examples], dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the scores, (N, classes), 0 to 1."""
        return softmax(self.scores, axis=1)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable classes, (N,), as indices."""
        return self.scores.argmax(axis=1)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """What was taken for what, (classes, classes): a row a true class, a column a predicted one."""
        return confusion_matrix(self.labels, self.predicted, len(self.classes))


def evaluate(examples: Sequence[Example], classifier: Classifier, progress: Progress = silent) -> Evaluation:
    """Show every example to a classifier; those that cannot be read are left out.

    Raises:
        ValueError: the classifier does not know a class of theirs, or none of them can be read.
    """
    refuse_strange(examples, classifier.card)
    problems: list[Problem] = []
    seen: list[Example] = []
    scores: list[torch.Tensor] = []
    readable = read_examples(progress(examples, len(examples), "Evaluating"), problems)
    while batch := list(islice(readable, _BATCH)):
        seen += [example for example, _ in batch]
        scores.append(classifier.scores([frame for _, frame in batch]))
    if not seen:
        raise ValueError(f"none of the pictures can be read; the first: {problems[0].reason}")
    return Evaluation(classifier.card.classes, tuple(seen), torch.cat(scores).double().numpy(), tuple(problems))


def learned(examples: Sequence[Example], *paths: Path) -> frozenset[Example]:
    """The pictures that one of the checkpoints is known to have learned; what is measured on those is too good."""
    known = frozenset[str]().union(*map(learned_from, paths))
    return frozenset(one for one in examples if one.content() in known) if known else frozenset()


def refuse_strange(examples: Sequence[Example], card: Card) -> None:
    """Raise ValueError where an example is of a class that a model does not know."""
    strange = sorted({example.label for example in examples} - set(card.classes))
    if strange:
        raise ValueError(f"{card.name} does not know {', '.join(strange)}; it knows {', '.join(card.classes)}")


def measures(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics as plain numbers.

    ``macro_``… and ``per_class`` are of the classes that have examples, ``confusion`` is of all ``classes``, a row a
    true class. ``ece`` is the expected calibration error. ``confidence`` has the 95 % intervals, from and to, by
    bootstrap.
    """
    confusion = evaluation.confusion
    drawn = resample(confusion)
    single, each = rates(confusion), {name: interval(values) for name, values in rates(drawn).items()}
    images = confusion.sum(axis=1)
    present = [(index, label) for index, label in enumerate(evaluation.classes) if images[index]]
    return {
        **{name: float(value) for name, value in summary(confusion).items()},
        "ece": reliability(evaluation.labels, evaluation.probabilities).error,
        "images": len(evaluation.examples),
        "classes": list(evaluation.classes),
        "per_class": {
            label: {**{name: float(single[name][index]) for name in RATES}, "images": int(images[index])}
            for index, label in present
        },
        "confidence": {
            "level": 0.95,
            "resamples": RESAMPLES,
            **{name: interval(values).tolist() for name, values in summary(drawn).items()},
            "per_class": {label: {name: each[name][:, index].tolist() for name in RATES} for index, label in present},
        },
        "confusion": confusion.tolist(),
    }


def model(classifier: Classifier) -> dict[str, Any]:
    """What a reader must know of the model beside its metrics."""
    card = classifier.card
    return {
        "name": card.name,
        "version": classifier.version,
        "architecture": card.architecture,
        "preprocess": card.preprocess,
        "test_views": card.test_views,
        "temperature": card.temperature,
        "training_data": card.training_data,
        "notice": card.notice,
    }


def table(content: dict[str, Any]) -> str:
    """The measures as lines of text: a row a class, their mean and its interval, a column a rate."""
    heads = "".join(f"{name:>12}" for name in (*RATES, "images"))
    width = max(len(label) for label in ("95 % from", *content["per_class"])) + 2
    lines = [" " * width + heads]
    for label, row in content["per_class"].items():
        lines.append(f"{label:{width}}" + "".join(f"{row[name]:12.3f}" for name in RATES) + f"{row['images']:12}")
    sides = content["confidence"]
    lines.append(f"{'mean':{width}}" + "".join(f"{content[f'macro_{name}']:12.3f}" for name in RATES))
    for side, head in enumerate(("95 % from", "95 % to")):
        lines.append(f"{head:{width}}" + "".join(f"{sides[f'macro_{name}'][side]:12.3f}" for name in RATES))
    low, high = sides["accuracy"]
    absent = len(content["classes"]) - len(content["per_class"])
    if absent:
        lines += ["", f"The mean is of the classes that have pictures; {absent} of the model's have none."]
    return "\n".join(
        [
            *lines,
            "",
            f"Right: {content['accuracy']:.1%} of {content['images']} pictures (95 %: {low:.1%} to {high:.1%}). "
            f"Expected calibration error: {content['ece']:.3f}.",
        ]
    )
