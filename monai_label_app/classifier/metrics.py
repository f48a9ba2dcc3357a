"""How well a classifier does: rates from its confusion matrix with their intervals, and whether it may be believed.

Every rate is of one class against the rest. Where it would divide by zero it is 0, as by scikit-learn's
``zero_division=0``: the precision of a class that is never predicted, for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RATES = ("precision", "recall", "specificity", "accuracy", "mcc", "f1")

RESAMPLES = 1000
BINS = 15
"""Of the reliability diagram, all of one width, as in Guo et al."""

_TEMPERATURES = (0.05, 20.0)

Floats = NDArray[np.float64]


def confusion_matrix(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Count what was taken for what, (classes, classes): a row a true class, a column a predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def rates(confusion: NDArray) -> dict[str, Floats]:
    """Every one of :data:`RATES` for every class: (..., classes), 0 to 1, MCC -1 to 1.

    Args:
        confusion: (..., classes, classes), one matrix or a stack.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    total = counts.sum(axis=(-2, -1))[..., None]
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true, said = counts.sum(axis=-1), counts.sum(axis=-2)
    rejected = total - true - said + hit
    spread = np.sqrt(true) * np.sqrt(said) * np.sqrt(total - true) * np.sqrt(total - said)
    return {
        "precision": _ratio(hit, said),
        "recall": _ratio(hit, true),
        "specificity": _ratio(rejected, total - true),
        "accuracy": _ratio(hit + rejected, total),
        "mcc": np.clip(_ratio(hit * rejected - (said - hit) * (true - hit), spread), -1, 1),
        "f1": _ratio(2 * hit, true + said),
    }


def summary(confusion: NDArray) -> dict[str, Floats]:
    """The plain ``accuracy``, and ``macro_``… each of :data:`RATES`, (...).

    Macro is the mean over the classes that have examples. ``macro_accuracy`` is the mean of the accuracies of one class
    against the rest, as in the paper's Table I: of 8 classes it is 0.75 where the plain one is 0.

    Args:
        confusion: (..., classes, classes), one matrix or a stack.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    present = counts.sum(axis=-1) > 0
    plain = _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))
    macro = {
        f"macro_{name}": _ratio((values * present).sum(axis=-1), present.sum(axis=-1))
        for name, values in rates(counts).items()
    }
    return {"accuracy": plain, **macro}


def _ratio(part: NDArray, whole: NDArray) -> Floats:
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def resample(confusion: NDArray[np.integer], count: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Bootstrap: confusion matrices (count, classes, classes) of images drawn anew, as many of each class as there are.

    What an image of a class is taken for is all that counts of it, so a row is drawn from a multinomial distribution.
    Images count as independent; where several are of one patient, intervals are too narrow.
    """
    random = np.random.default_rng(seed)
    sizes = confusion.sum(axis=1)
    shares = confusion / np.maximum(sizes, 1)[:, None]
    return np.stack([random.multinomial(size, row, count) for size, row in zip(sizes, shares, strict=True)], axis=1)


def interval(values: Floats) -> Floats:
    """The 95 % percentile interval of resampled values (count, ...): (2, ...), from and to.

    A class that is always right has an interval without width: nothing else was ever drawn.
    """
    return np.percentile(values, (2.5, 97.5), axis=0)


@dataclass(frozen=True)
class Reliability:
    """How often the predicted class is right, by the probability that it is given.

    Attributes:
        count: (bins,), images whose highest probability lies in a bin; bins exclude their lower edge.
        confidence: (bins,), the mean of those probabilities; 0 where there are none.
        accuracy: (bins,), the share of them that is right; 0 where there are none.
    """

    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1: the mean gap, weighted by the images (Guo et al., ICML 2017)."""
        return float((self.count * np.abs(self.accuracy - self.confidence)).sum() / self.count.sum())


def reliability(labels: NDArray[np.integer], probabilities: Floats, bins: int = BINS) -> Reliability:
    """Sort images (N,) into bins by the highest of their probabilities (N, classes); N is at least 1."""
    highest = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(highest * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, values, bins) for values in (highest, right))
    confidence, accuracy = (_ratio(total, count) for total in sums)
    return Reliability(count, confidence, accuracy)


def temperature(labels: NDArray[np.integer], scores: Floats) -> float:
    """By what to divide scores so that their softmax is most likely to have given the labels (Guo et al., ICML 2017).

    Args:
        labels: (N,), of images that the network was not trained on.
        scores: (N, classes), before softmax.

    Returns:
        From 0.05 to 20; above 1 the network is too sure. 1 where no image was wrong: how sure it may be is not known
        then, and the most likely temperature would make it certain of everything.
    """
    if (scores.argmax(axis=1) == labels).all():
        return 1.0
    own = np.arange(len(labels)), labels

    def loss(logarithm: float) -> float:
        return -float(log_softmax(scores / np.exp(logarithm), axis=1)[own].mean())

    # The loss is convex in 1/T, so that it has one minimum on any scale.
    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))
