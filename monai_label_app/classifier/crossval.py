"""Cross-validation of what is taken off a frame first, as the paper's Table I."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Dataset, Example, divide, folds
from monai_label_app.classifier.evaluation import Evaluation, evaluate
from monai_label_app.classifier.evaluation_report import write_predictions, write_table
from monai_label_app.classifier.metrics import interval, resample, summary
from monai_label_app.classifier.network import in_views
from monai_label_app.classifier.page import write_page
from monai_label_app.classifier.training import FEATURES, Recipe, Training, claim
from monai_label_app.console import Progress, silent
from monai_label_app.folder import whole

EXTRA = 400
"""Polyps of another source that are added to each test, drawn at random (the paper, section VII)."""

COLUMNS = ("macro_precision", "macro_recall", "macro_specificity", "macro_accuracy", "macro_mcc", "macro_f1")
"""Of Table I, in its order."""

PAPER = {
    ("a", "none"): (0.736, 0.791, 0.966, 0.940, 0.762, 0.758),
    ("a", "box"): (0.753, 0.798, 0.968, 0.944, 0.778, 0.778),
    ("a", "box+border"): (0.749, 0.943, 0.968, 0.943, 0.775, 0.771),
    ("b", "none"): (0.673, 0.722, 0.957, 0.924, 0.723, 0.702),
    ("b", "box"): (0.691, 0.738, 0.959, 0.927, 0.739, 0.719),
    ("b", "box+border"): (0.724, 0.773, 0.964, 0.937, 0.760, 0.750),
}
"""The paper's Table I, (part, variant) → :data:`COLUMNS`, its heads corrected as :data:`REMARK` says."""

REMARK = (
    "The paper heads its specificity PREC and its precision SPEC: with 8 balanced classes and a recall of 0.79 only so "
    "do the other columns follow. Its recall of 0.943 in the third row repeats the accuracy; F1 0.771 with precision "
    "0.749 means about 0.79. Accuracy is the mean of one class against the rest, as there."
)


@dataclass(frozen=True)
class Variant:
    """What came of one way to prepare frames: a fold each, of its own test pictures and of the extra polyps."""

    name: str
    tests: tuple[Evaluation, ...]
    extra: tuple[Evaluation, ...]

    def pooled(self) -> Evaluation:
        """All test pictures, each seen by the network that was not trained on it."""
        return _joined(self.tests)

    def measures(self, part: str) -> dict[str, Any]:
        """Mean over the folds of the macro measures and the plain accuracy, and their 95 % intervals by bootstrap.

        Args:
            part: ``a``, the test pictures, or ``b``, with the extra polyps.
        """
        confusions = [test.confusion for test in self.tests]
        if part == "b":
            confusions = [own + other.confusion for own, other in zip(confusions, self.extra, strict=True)]
        single = [summary(confusion) for confusion in confusions]
        drawn = [summary(resample(confusion, seed=number)) for number, confusion in enumerate(confusions)]
        names = ("accuracy", *COLUMNS)
        return {
            **{name: float(np.mean([fold[name] for fold in single])) for name in names},
            "confidence": {name: interval(np.mean([fold[name] for fold in drawn], axis=0)).tolist() for name in names},
        }


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    examples = tuple(example for part in parts for example in part.examples)
    return Evaluation(parts[0].classes, examples, np.concatenate([part.scores for part in parts]), ())


def crossval(
    dataset: Dataset,
    recipe: Recipe,
    variants: Sequence[str],
    count: int,
    validation: float,
    folder: Path,
    progress: Progress = silent,
    learned: Sequence[Example] = (),
    masks: Mapping[str, Path] = MappingProxyType({}),
) -> list[Variant]:
    """Train and test a network for every variant and fold; the folds are the same for all variants.

    What an earlier run left in the folder is not done again; one of another recipe or other pictures, also of those
    that it is only tested on, is refused.

    Args:
        dataset: by :func:`monai_label_app.classifier.data.read_dataset`; up to :data:`EXTRA` of its extra polyps are
            tested on, the same in every fold.
        recipe: of every training but for ``preprocess``.
        variants: of ``preprocess``.
        count: number of folds.
        validation: share of a fold's training pictures that is kept aside for early stopping and calibration.
        folder: that exists; gets a folder a variant with a folder a fold.
        progress: shows how far the work is.
        learned: more pictures that every network learns from, and that none is tested on.
        masks: of objects, by the name of their picture without suffix; networks learn to look there.

    Raises:
        ValueError: the folds cannot be made, a training cannot, or the folder holds another run.
    """
    divided = folds(dataset, count, recipe.seed)
    chosen = np.random.default_rng(recipe.seed).permutation(len(dataset.extra))[:EXTRA]
    extra = tuple(dataset.extra[index] for index in sorted(chosen))
    # All before the work: what cannot be divided is refused at once.
    parts = [divide(Dataset(dataset.classes, (*train, *learned)), validation, recipe.seed) for train, _ in divided]
    made = []
    for name in variants:
        whose, shared = replace(recipe, preprocess=name), folder / name / FEATURES
        (folder / name).mkdir(exist_ok=True)
        claim(folder / name, whose, (*dataset.examples, *learned, *extra), masks)
        tests, others = [], []
        for number, ((_, test), (inside, aside)) in enumerate(zip(divided, parts, strict=True), start=1):
            place = folder / name / f"fold-{number}"
            place.mkdir(exist_ok=True)
            scores = place / "scores.npy"
            claim(place, whose, (*inside, *aside), masks)
            if not scores.is_file():
                _train(whose, dataset.classes, inside, aside, (*test, *extra), masks, place, shared, progress)
            try:
                known = np.load(scores)
            except (ValueError, EOFError):
                raise ValueError(f"{scores} is damaged; remove it, and the fold is trained again") from None
            tests.append(Evaluation(dataset.classes, test, known[: len(test)], ()))
            others.append(Evaluation(dataset.classes, extra, known[len(test) :], ()))
        shutil.rmtree(shared, ignore_errors=True)
        made.append(Variant(name, tuple(tests), tuple(others) if extra else ()))
    return made


def _train(
    recipe: Recipe,
    classes: Sequence[str],
    examples: Sequence[Example],
    aside: Sequence[Example],
    tested: Sequence[Example],
    masks: Mapping[str, Path],
    place: Path,
    features: Path,
    progress: Progress,
) -> None:
    """Train one network and leave its scores of the test pictures, (N, classes), as ``scores.npy``."""
    training = Training(recipe, classes, examples, aside, masks, place, progress, features)
    card = training.run()
    device = next(training.network.parameters()).device
    tried = Classifier(in_views(training.network, card.test_views), card, "", device)
    result = evaluate(tested, tried, progress)
    if result.problems:  # a row a picture
        raise ValueError(f"a picture of the test cannot be read any more: {result.problems[0].reason}")
    with whole(place / "scores.npy") as partial, partial.open("wb") as file:
        np.save(file, result.scores)
    training.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measures(made: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Table I as plain numbers: part, ``a`` the dataset or ``b`` with the extra polyps → variant → measures."""
    table = {"a": {variant.name: variant.measures("a") for variant in made}}
    if made[0].extra:
        table["b"] = {variant.name: variant.measures("b") for variant in made}
    return table


def table(content: Mapping[str, Mapping[str, Any]]) -> str:
    """Table I as lines of text, the paper's figures below ours."""
    lines = [" " * 20 + "".join(f"{name.removeprefix('macro_'):>13}" for name in COLUMNS)]
    for part, variants in content.items():
        for variant, ours in variants.items():
            rows = {f"({part}) {variant}": [ours[name] for name in COLUMNS]}
            if (part, variant) in PAPER:
                rows["    the paper"] = list(PAPER[part, variant])
            lines += [f"{head:20}" + "".join(f"{value:13.3f}" for value in values) for head, values in rows.items()]
    return "\n".join([*lines, "", REMARK])


def write(made: Sequence[Variant], content: dict[str, Any], command: str, folder: Path) -> None:
    """Write ``predictions.csv`` and plots of each variant into its folder, ``metrics.json`` and ``report.html``.

    Each fold gets a ``predictions.csv`` too, with its extra polyps, from which the table can be made again.

    Args:
        made: by :func:`crossval`.
        content: ``table`` by :func:`measures`, ``recipe``, ``dataset``, ``images``, ``folds``, ``extra_polyps`` and
            ``extra_images``.
        command: that made it, for the page.
        folder: that :func:`crossval` was given.
    """
    for variant in made:
        for number, own in enumerate(variant.tests, start=1):
            tested = _joined([own, *variant.extra[number - 1 : number]])
            write_table(tested, folder / variant.name / f"fold-{number}" / "predictions.csv")
    plots = {variant.name: write_predictions(variant.pooled(), folder / variant.name)[1] for variant in made}
    with whole(folder / "metrics.json") as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
    values = {"content": content, "plots": plots, "paper": PAPER, "columns": COLUMNS, "remark": REMARK}
    with whole(folder / "report.html") as partial:
        write_page("classifier/crossval.html", partial, command=command, **values)
