"""``endolens evaluate | train | crossval | audit``: a classifier on labelled pictures."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from monai_label_app.commands.options import adding, keep_out, model_option, result_file, result_folder, weights_option
from monai_label_app.console import explained, fail, name_problems, notice, progress, silent

if TYPE_CHECKING:  # torch comes with it
    from monai_label_app.classifier.data import Dataset, Example


def _command() -> str:
    """The command as it was given, for a report: with every option that is not the default."""
    context = click.get_current_context()
    words = ["endolens", context.info_name or ""]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], text]
    return shlex.join(words)


def _widths(_context: click.Context, _parameter: click.Parameter, given: str) -> float | tuple[float, ...]:
    try:
        factors = tuple(float(part) for part in given.split(","))
    except ValueError:
        raise click.BadParameter(f"{given!r} is no number, nor several with commas between them") from None
    if not all(0 < factor <= 4 for factor in factors):
        raise click.BadParameter(f"{given!r} is not above 0 and at most 4")
    return factors if len(factors) > 1 else factors[0]


_recipe_options = adding(
    click.option("--architecture", default="vgg19", show_default=True, help="A torchvision classification network."),
    click.option(
        "--width",
        default="1",
        show_default=True,
        callback=_widths,
        help="Factor on the channels of a VGG network; or six, of its blocks and its head, such as 1,1,.5,.5,.5,.1",
    ),
    click.option(
        "--size", default=224, show_default=True, type=click.IntRange(32, 4096), help="Of the input, in pixels."
    ),
    click.option("--weights", default="", metavar="imagenet|FILE", help="Pretrained weights to start from."),
    click.option(
        "--teacher",
        default="",
        metavar="FILE|trunk",
        help="A checkpoint to learn from too, of the same input; trunk: a regression on its own convolutions.",
    ),
    click.option(
        "--train-from",
        default="",
        metavar="LAYER|head",
        help="Freeze what comes before this layer and run it only once. [default: all learn]",
    ),
    click.option(
        "--views",
        default=8,
        show_default=True,
        type=click.IntRange(1),
        help="Of a picture, to frozen layers or a trunk that teaches.",
    ),
    click.option(
        "--test-views",
        default=1,
        show_default=True,
        type=click.IntRange(1, 4),
        help="Of a frame whose mean is the trained network's answer (test-time augmentation); each takes its time.",
    ),
    click.option("--epochs", default=30, show_default=True, type=click.IntRange(1), help="Passes over the pictures."),
    click.option(
        "--patience",
        default=10,
        show_default=True,
        type=click.IntRange(1),
        help="Epochs without a better validation loss before it stops.",
    ),
    click.option(
        "--rate",
        default=1e-4,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        help="Highest learning rate.",
    ),
    click.option(
        "--guidance",
        default=0.3,
        show_default=True,
        type=click.FloatRange(0),
        help="Weight of the loss on maps beside masks, or on black.",
    ),
    click.option(
        "--validation",
        default=0.2,
        show_default=True,
        type=click.FloatRange(0, 0.5),
        help="Share of the pictures kept aside for early stopping and calibration, about 1/2, 1/3, 1/4, …; 0: none.",
    ),
    click.option("--seed", default=0, show_default=True, help="Of everything random."),
)
"""How a network is trained."""


def _keep_apart(folder: Path, *sources: Path | None) -> None:
    """End where what is written would lie among pictures, as if it were a class of them, or take a list's place."""
    place = folder.resolve()
    for source in filter(None, sources):
        pictures = source.resolve()
        if place == pictures or place in pictures.parents or pictures in place.parents:
            fail(f"{folder}, where the run would be kept, is, holds or lies in {source}; name another folder")


def _masks_of(dataset: Dataset, folder: Path | None) -> dict[str, Path]:
    """The masks in a folder; a folder without one of the dataset's pictures is the wrong one."""
    from monai_label_app.masks import masks_by_picture

    named = masks_by_picture(folder) if folder else {}
    shown: dict[str, Path] = {}
    for one in (*dataset.examples, *dataset.extra):
        if one.path.stem in named and shown.setdefault(one.path.stem, one.path) != one.path:
            fail(f"{named[one.path.stem]} would be the mask of two pictures, {shown[one.path.stem]} and {one.path}")
    if folder and not shown:
        fail(f"{folder} has no mask with the name of a picture")
    return named


def _name_learned(examples: Sequence[Example], *networks: Path | str | None) -> int:
    """Say how many of the pictures that something is measured on were learned by a network; the most of them."""
    from monai_label_app.classifier.evaluation import learned

    counts = {file: len(learned(examples, Path(file))) for file in networks if file and Path(file).is_file()}
    for file, count in counts.items():
        if count:
            click.echo(f"{count} of {len(examples)} pictures to measure on were learned by {file}", err=True)
    return max(counts.values(), default=0)


_more_pictures = adding(
    click.option(
        "--polyps",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="More pictures to learn from, all of class polyps: Kvasir-SEG, CVC.",
    ),
    click.option(
        "--masks",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        metavar="FOLDER",
        help="Masks of what the network should look at, PNG or JPEG of the pictures' names.",
    ),
)
"""What a network learns from beside the dataset."""


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--extra-polyps", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Pictures of another source, all of class polyps: CVC-ClinicDB, CVC-ColonDB.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not a table.")
@click.option("--out", type=result_folder,
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
    from monai_label_app.classifier.classifier import checkpoint_of, open_classifier
    from monai_label_app.classifier.data import find_dataset, read_dataset
    from monai_label_app.classifier.evaluation_report import write

    keep_out(out, dataset, extra_polyps)
    with explained(out or dataset):
        # What is there twice counts once; without more pictures that is the dataset's own business.
        found = read_dataset(dataset, extra_polyps, progress) if extra_polyps else find_dataset(dataset)
        name_problems(list(found.problems))
        classifier = open_classifier(model, weights)
        notice(classifier)
        # The folder comes first: that it cannot be written is better known before the work than after.
        with folder.staging(out) if out else nullcontext() as staged:
            result = evaluation.evaluate((*found.examples, *found.extra), classifier, progress)
            name_problems(list(result.problems))
            content = {
                **evaluation.measures(result),
                "learned": _name_learned(result.examples, checkpoint_of(model)),
                "model": evaluation.model(classifier),
                "dataset": str(dataset),
                "extra_polyps": str(extra_polyps) if extra_polyps else None,
            }
            if out and staged:
                for path in write(result, content, _command(), staged):
                    path.replace(out / path.name)
    click.echo(json.dumps(content, indent=1) if as_json else evaluation.table(content))
    if result.problems:
        fail(f"{len(result.problems)} of the pictures could not be used")


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=result_file, help="The checkpoint, .safetensors.")
@_more_pictures
@click.option("--preprocess", type=click.Choice(["none", "box", "box+border", "inpaint"]), default="box+border",
              show_default=True, help="What is taken off a frame first.")  # fmt: skip
@_recipe_options
@click.option("--refit", is_flag=True,
              help="Train again, on what was kept aside too; temperature and metrics stay.")  # fmt: skip
@click.option("--half", is_flag=True, help="Write the weights in numbers of 16 bits.")
@click.option("--run", type=result_folder,
              help="Folder for curves, logs and the state. [default: --out without its suffix]")  # fmt: skip
@click.option("--name", default="endolens", show_default=True, help="Of the model, on its card.")
@click.option("--version", default="1.0.0", show_default=True, help="Of the model, on its card.")
@click.option("--notice", default="", help="Shown wherever a result of the model is shown.")
def train(
    dataset: Path,
    out: Path,
    polyps: Path | None,
    masks: Path | None,
    validation: float,
    refit: bool,
    half: bool,
    run: Path | None,
    name: str,
    version: str,
    notice: str,
    **options: Any,
) -> None:
    """Train a network on DATASET, a folder with a folder a class or a CSV file, and calibrate it.

    Started again after an interruption it goes on where it was. torchrun starts it on several GPUs.

    \b
    Example:
      endolens train kvasir-dataset-v2 --out mine.safetensors --weights imagenet
      endolens train kvasir-dataset-v2 --out head.safetensors --weights imagenet --train-from head
      torchrun --nproc-per-node 4 --no-python endolens train kvasir-dataset-v2 --out mine.safetensors
    """
    from dataclasses import replace

    from monai_label_app.classifier.checkpoint import Card, learned_from, save
    from monai_label_app.classifier.data import KEPT_ASIDE, Dataset, divide, read_dataset, write_list
    from monai_label_app.classifier.distributed import group, leads
    from monai_label_app.classifier.network import calibrate
    from monai_label_app.classifier.training import FEATURES, Recipe, Training
    from monai_label_app.folder import alone

    if out.suffix != ".safetensors":
        fail(f"--out {out} must end in .safetensors")
    folder = run or out.with_suffix("")
    _keep_apart(folder, dataset, polyps, masks)
    keep_out(out, dataset, polyps, masks)
    shown = progress if leads() else silent
    with explained(folder), ExitStack() as stack:
        # What could not be written in the end is better known before the work.
        Card(name, version, notice=notice)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            fail(f"{out.parent} cannot be written")
        stack.enter_context(group())
        found = read_dataset(dataset, polyps, shown)
        if leads():
            name_problems(list(found.problems), found.remarks)
        everything = Dataset(found.classes, (*found.examples, *found.extra))
        examples, aside = divide(everything, validation, options["seed"])
        named = _masks_of(found, masks)
        recipe = Recipe(**options)
        began = [Path(one) for one in (recipe.weights, recipe.teacher) if Path(one).is_file()]
        if leads():
            stack.enter_context(alone(folder))
            _name_learned(aside, *began)
        runs = [Training(recipe, found.classes, examples, aside, named, folder, shown)]
        if leads() and aside:  # only now that the folder is known to be of this run
            write_list(aside, folder / KEPT_ASIDE)
        card = runs[0].run()
        if refit and aside:
            (folder / KEPT_ASIDE).unlink(missing_ok=True)  # what is learned measures nothing
            examples, again = (*examples, *aside), folder / "refit"
            again.mkdir(exist_ok=True)
            runs.append(Training(recipe, found.classes, examples, (), named, again, shown, folder / FEATURES))
            # For as long as the network learned of which these are measured.
            card = replace(runs[1].run(runs[0].history.best), temperature=card.temperature, metrics=card.metrics)
            calibrate(runs[1].network, card.temperature)
        if not leads():
            return
        name_problems(runs[-1].problems)
        sources = ", ".join(str(path) for path in (dataset, polyps) if path)
        card = replace(card, name=name, version=version, notice=notice, training_data=f"{len(examples)} of {sources}")
        unlearned = [] if refit else [one.content() for one in aside]
        learned = {one.content() for one in examples}.union(*map(learned_from, began))
        save(out, runs[-1].network, card, half, unlearned, learned)
        for one in runs:
            one.clear()
    scores = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in card.metrics.items())
    if card.metrics and card.temperature == 1:
        click.echo("nothing kept aside was wrong, so how sure it may be is not known; keep more aside", err=True)
    click.echo(f"{out}: {len(examples)} pictures, temperature {card.temperature:.2f}{', ' + scores if scores else ''}")


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", type=result_folder, default=Path("crossval"), show_default=True,
              help="Folder for every run, metrics.json and report.html.")  # fmt: skip
@click.option("--extra-polyps", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Pictures of another source, all of class polyps, to test on, such as CVC-ClinicDB.")  # fmt: skip
@click.option("--folds", default=2, show_default=True, type=click.IntRange(2), help="Cross-validation folds.")
@click.option("--variants", default="none,box,box+border", show_default=True,
              help="What is taken off a frame first, by commas.")  # fmt: skip
@_more_pictures
@_recipe_options
def crossval(
    dataset: Path,
    out: Path,
    extra_polyps: Path | None,
    folds: int,
    variants: str,
    polyps: Path | None,
    masks: Path | None,
    validation: float,
    **options: Any,
) -> None:
    """Train and test on DATASET by cross-validation for each variant, and print the paper's Table I beside ours.

    Pictures of a group or nearly the same never lie in two folds. Started again, it goes on where it was.

    \b
    Example:
      endolens crossval kvasir-dataset-v2 --extra-polyps CVC-ClinicDB --weights imagenet --out table-1
    """
    from dataclasses import asdict, replace

    from explainers.layers import unknown
    from monai_label_app.classifier import crossval as validating
    from monai_label_app.classifier.artifacts import VARIANTS
    from monai_label_app.classifier.data import read_dataset
    from monai_label_app.classifier.distributed import ranks
    from monai_label_app.classifier.training import Recipe
    from monai_label_app.folder import alone

    chosen = list(dict.fromkeys(variants.split(",")))
    for name in chosen:
        if name not in VARIANTS:
            fail(str(unknown("variant", name, VARIANTS)))
    if ranks() > 1:
        fail("torchrun is for endolens train; start endolens crossval by itself")
    if polyps and extra_polyps:
        fail("polyps are either learned from (--polyps) or tested on (--extra-polyps)")
    _keep_apart(out, dataset, polyps, extra_polyps, masks)
    with explained(out), ExitStack() as stack:
        found = read_dataset(dataset, polyps or extra_polyps, progress)
        name_problems(list(found.problems), found.remarks)
        recipe = Recipe(**options)
        named = _masks_of(found, masks)
        _name_learned(found.examples, recipe.weights, recipe.teacher)
        learned, tested = (found.extra, replace(found, extra=())) if polyps else ((), found)
        stack.enter_context(alone(out))
        made = validating.crossval(tested, recipe, chosen, folds, validation, out, progress, learned, named)
        content: dict[str, Any] = {
            "table": validating.measures(made),
            "recipe": {name: value for name, value in asdict(recipe).items() if name != "preprocess"},
            "dataset": str(dataset),
            "images": len(found.examples),
            "folds": folds,
            "extra_polyps": str(extra_polyps) if extra_polyps else None,
            "extra_images": len(made[0].extra[0].examples) if made[0].extra else 0,
            "polyps": str(polyps) if polyps else None,
            "masks": str(masks) if masks else None,
        }
        validating.write(made, content, _command(), out)
    click.echo(f"{validating.table(content['table'])}\n\nRuns, plots and report.html in {out}")


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not a table.")
@click.option("--out", type=result_folder,
              help="Folder for audit.json, audit.csv, worst.png and report.html.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of which boxes are planted on which frames.")
@model_option
@weights_option
def audit(dataset: Path, as_json: bool, out: Path | None, seed: int, model: str | None, weights: str | None) -> None:
    """Find what fools a model on DATASET: navigation boxes, places where one was cut out, black borders.

    How much of the evidence lies there, what happens to the prediction when they are taken away, and when a box is
    planted on a clean frame.

    \b
    Example:
      endolens audit kvasir-dataset-v2 --model mine.safetensors --out audit
    """
    import json

    from monai_label_app import folder
    from monai_label_app.classifier import audit as auditing
    from monai_label_app.classifier import audit_report, audit_summary, evaluation
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.classifier.data import find_dataset

    keep_out(out, dataset)
    with explained(out or dataset):
        found = find_dataset(dataset)
        classifier = open_classifier(model, weights)
        notice(classifier)
        with folder.staging(out) if out else nullcontext() as staged:
            result = auditing.audit(found.examples, classifier, seed, progress)
            name_problems(list(result.problems))
            about = {"model": evaluation.model(classifier), "dataset": str(dataset)}
            content = {**audit_summary.summary(result), **about}
            if out and staged:
                for path in audit_report.write(result, classifier, content, _command(), staged):
                    path.replace(out / path.name)
    click.echo(json.dumps(content, indent=1) if as_json else audit_report.table(content))
    if result.problems:
        fail(f"{len(result.problems)} of the pictures could not be used")
