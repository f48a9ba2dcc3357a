"""An evaluation as files: predictions, metrics, two plots, and one page that needs no other file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from monai_label_app.classifier.evaluation import Evaluation
from monai_label_app.classifier.metrics import BINS, RATES, Reliability, reliability
from monai_label_app.classifier.page import data_address, write_page
from monai_label_app.pictures import write_plot


def write(evaluation: Evaluation, content: dict[str, Any], command: str, folder: Path) -> list[Path]:
    """Write an evaluation to a folder.

    Args:
        evaluation: what was said of each picture.
        content: of ``metrics.json``, by :func:`monai_label_app.classifier.evaluation.measures`, with the ``model`` and
            ``dataset`` that they are of.
        command: that made it, for the page.
        folder: that exists.

    Returns:
        The files, ``metrics.json`` last.
    """
    files, plots = write_predictions(evaluation, folder)
    report, metrics = folder / "report.html", folder / "metrics.json"
    text = {"rates": RATES, "bins": BINS, "plots": plots, "problems": evaluation.problems, "command": command}
    write_page("classifier/evaluation.html", report, content=content, **text)
    # A file name need not be valid text.
    metrics.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
    return [*files, report, metrics]


def write_predictions(evaluation: Evaluation, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write ``predictions.csv``, ``confusion.png`` and ``reliability.png``.

    Returns:
        The files, and the two plots by name as data addresses for a page.
    """
    paths = {name: folder / name for name in ("predictions.csv", "confusion.png", "reliability.png")}
    write_table(evaluation, paths["predictions.csv"])
    _draw_confusion(evaluation, paths["confusion.png"])
    _draw_reliability(reliability(evaluation.labels, evaluation.probabilities), paths["reliability.png"])
    plots = {path.stem: data_address(path) for path in (paths["confusion.png"], paths["reliability.png"])}
    return list(paths.values()), plots


def write_table(evaluation: Evaluation, path: Path) -> None:
    """Write what was predicted of every picture, as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "predicted", *evaluation.classes])
        predictions = zip(evaluation.examples, evaluation.predicted, evaluation.probabilities, strict=True)
        for example, index, values in predictions:
            chances = (f"{value:.6f}" for value in values)
            rows.writerow([example.path, example.label, evaluation.classes[index], *chances])


def _draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Counts, on the share of the true class."""
    confusion = evaluation.confusion
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 3 + 0.6 * len(confusion)
    figure = Figure(figsize=(side, side), layout="constrained")
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, str(count), ha="center", va="center", color=colour)
    ticks = range(len(confusion))
    panel.set_xticks(ticks, evaluation.classes, rotation=45, ha="right")
    panel.set_yticks(ticks, evaluation.classes)
    panel.set(xlabel="predicted", ylabel="true")
    write_plot(figure, path)


def _draw_reliability(found: Reliability, path: Path) -> None:
    figure = Figure(figsize=(5, 5), layout="constrained")
    panel = figure.subplots()
    bins = len(found.count)
    filled = found.count > 0
    lefts = np.arange(bins)[filled] / bins
    panel.bar(lefts, found.accuracy[filled], 1 / bins, align="edge", edgecolor="white", label="share that is right")
    panel.plot(found.confidence[filled], found.confidence[filled], "k.", label="mean probability")
    panel.plot([0, 1], [0, 1], "k:", linewidth=1)
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the predicted class", ylabel="share that is right")
    panel.set_title(f"expected calibration error {found.error:.3f}")
    panel.legend(loc="upper left")
    write_plot(figure, path)
