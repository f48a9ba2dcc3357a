"""Two models on the same pictures: which is right more often, and whether that may be chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Example
from monai_label_app.classifier.evaluation import Evaluation, evaluate
from monai_label_app.classifier.metrics import summary
from monai_label_app.console import Progress, silent


def compare(
    candidate: Classifier, active: Classifier | None, examples: Sequence[Example], progress: Progress = silent
) -> dict[str, Any]:
    """Two models on the same pictures, as plain numbers.

    ``macro_f1`` and ``accuracy`` of each; how many pictures ``only_candidate`` and ``only_active`` get right, and the
    chance ``p`` that two models equally good differ as much (exact McNemar test); ``worse`` where the candidate's macro
    F1 is lower; why pictures were ``left_out``. Without an active model there is nothing to be worse than, and one that
    does not know some of the classes, ``unknown``, is not asked.

    Raises:
        ValueError: the candidate does not know a class, or no picture can be read.
    """
    new = evaluate(examples, candidate, progress)
    found: dict[str, Any] = {
        "pictures": len(new.examples),
        "candidate": _quality(new),
        "active": None,
        "worse": False,
        "unknown": sorted({one.label for one in examples} - set(active.card.classes)) if active else [],
        "left_out": [problem.reason for problem in new.problems],
    }
    if active is None or found["unknown"]:
        return found
    old = evaluate(new.examples, active, progress)
    right, was_right = (
        np.array([one.classes[index] for index in one.predicted]) == [example.label for example in one.examples]
        for one in (new, old)
    )
    gained, lost = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    found |= {"active": _quality(old), "only_candidate": gained, "only_active": lost, "p": p}
    found["worse"] = found["candidate"]["macro_f1"] < found["active"]["macro_f1"]
    return found


def _quality(evaluation: Evaluation) -> dict[str, float]:
    numbers = summary(evaluation.confusion)
    return {name: float(numbers[name]) for name in ("macro_f1", "accuracy")}


def fingerprint(examples: Sequence[Example]) -> str:
    """By what pictures are known again that two models were compared on."""
    return hashlib.sha256("\n".join(sorted(map(_identity, examples))).encode(errors="replace")).hexdigest()


def _identity(example: Example) -> str:
    return f"{example.path.name} {example.path.stat().st_size} {example.label}"
