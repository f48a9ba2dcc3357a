"""``endolens evaluate``: a classifier on labelled pictures."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path

import click

from monai_label_app.commands.options import model_option, weights_option
from monai_label_app.console import explained, fail, name_problems, notice, progress


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--extra-polyps", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Pictures of another source, all of class polyps: CVC-ClinicDB, CVC-ColonDB.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not a table.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for predictions.csv, metrics.json, two plots and report.html.")  # fmt: skip
@model_option
@weights_option
def evaluate(
    dataset: Path, extra_polyps: Path | None, as_json: bool, out: Path | None, model: str | None, weights: str | None
) -> None:
    """Measure how often a model is right on DATASET, of every class, with 95 % intervals, and how sure it may be.

    DATASET is a folder with a folder a class (Kvasir, HyperKvasir), or a CSV file with the columns path and label. Its
    classes must be the model's; some may be missing.

    \b
    Example:
      endolens evaluate kvasir-dataset-v2 --model mine.safetensors --extra-polyps CVC-ClinicDB --out evaluation
    """
    import json

    from monai_label_app import folder
    from monai_label_app.classifier import evaluation
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.classifier.data import find_dataset
    from monai_label_app.classifier.evaluation_report import write

    with explained(out or dataset):
        found = find_dataset(dataset, extra_polyps)
        classifier = open_classifier(model, weights)
        notice(classifier)
        # The folder comes first: that it cannot be written is better known before the work than after.
        with folder.staging(out) if out else nullcontext() as staged:
            result = evaluation.evaluate((*found.examples, *found.extra), classifier, progress)
            name_problems(list(result.problems))
            content = {
                **evaluation.measures(result),
                "model": evaluation.model(classifier),
                "dataset": str(dataset),
                "extra_polyps": str(extra_polyps) if extra_polyps else None,
            }
            if out and staged:
                options = {"--extra-polyps": extra_polyps, "--model": model, "--weights": weights, "--out": out}
                given = [str(word) for option, value in options.items() if value for word in (option, value)]
                for path in write(result, content, shlex.join(["endolens", "evaluate", str(dataset), *given]), staged):
                    path.replace(out / path.name)
    click.echo(json.dumps(content, indent=1) if as_json else evaluation.table(content))
    if result.problems:
        fail(f"{len(result.problems)} of the pictures could not be used")
