"""``endolens explain | faithfulness | artifacts``: single pictures, for an engineer."""

from __future__ import annotations

from pathlib import Path

import click

from monai_label_app.commands.options import method_option, model_option, result_file, result_folder, weights_option
from monai_label_app.console import explained, fail, name_problems, notice, progress


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--layer", "layers", multiple=True, metavar="NAME|all", help="Again for more. [default: the model's own]")
@click.option("--class", "classes", multiple=True, metavar="NAME|top|all",
              help="top, the default, is the predicted one. Again for more.")  # fmt: skip
@method_option
@click.option("--frame", default=1, show_default=True, type=click.IntRange(1), help="Of a multi-frame image.")
@click.option(
    "--colours", default="blue-red", show_default=True, help="Or a matplotlib colour map: viridis, inferno, …"
)
@click.option("--out", type=result_folder, default=Path("endolens-maps"),
              show_default=True, help="Folder for the maps and manifest.json.")  # fmt: skip
@model_option
@weights_option
def explain(
    image: Path,
    layers: tuple[str, ...],
    classes: tuple[str, ...],
    method: str,
    frame: int,
    colours: str,
    out: Path,
    model: str | None,
    weights: str | None,
) -> None:
    """Show what the network sees in one IMAGE (JPEG, PNG, TIFF, BMP or DICOM): any layer, any class.

    Writes every map as an overlay (PNG) and as raw numbers at the layer's size (float32 .npy), several of them also as
    one contact sheet (rows layers, columns classes), and a manifest.json that says what they are. The classes that are
    asked for together share one scale of colours a layer. Maps of an earlier run in the same folder are removed.

    \b
    Example:
      endolens explain polyp.jpg
      endolens explain polyp.jpg --layer block5_conv4 --class polyps --class normal-cecum
      endolens explain polyp.jpg --layer all --class all --out maps
    """
    from explainers import METHODS
    from explainers.heatmap import colourise
    from monai_label_app import folder
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.explain import TOP, Picture, deliver, earlier, look, write
    from monai_label_app.reading import read_frame
    from report.language import ENGLISH

    with explained(out):
        # What is wrong fails now, not after the work.
        colourise([[0]], colours)
        earlier(out)
        picture = Picture(str(image), frame, read_frame(image, frame))
        classifier = open_classifier(model, weights)
        notice(classifier)
        with folder.staging(out) as staged:
            made = look(
                picture,
                classifier,
                method,
                layers or [classifier.card.target_layer],
                classes or [TOP],
                progress,
            )
            if not made.guided and method.startswith("guided"):
                click.echo("the network has no ReLU: its guided gradient is the plain one", err=True)
            if layers and not METHODS[method].of_layer:
                click.echo(f"{method} is of no layer: --layer changes nothing", err=True)
            if classes and not METHODS[method].of_class:
                click.echo(f"{method} is of no class: --class changes nothing", err=True)
            files = write(picture, classifier, method, made, colours, staged, progress)
            deliver(files, out)
    likely = ENGLISH.percent(made.probabilities[made.predicted])
    click.echo(f"{made.predicted} {likely}; maps in {out}: {len(made.maps)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--masks", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
              help="Masks of the objects, pictures of the same names.")  # fmt: skip
@click.option("--class", "label", default="top", show_default=True, metavar="NAME|top",
              help="One class, whose map is measured; top is the predicted one of each picture.")  # fmt: skip
@click.option("--layer", help="[default: the model's own]")
@method_option
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N of the pictures, spread over the folder.")
@click.option("--steps", default=16, show_default=True, type=click.IntRange(2, 1000), help="Of deletion and insertion.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=result_file, default=Path("faithfulness.png"),
              show_default=True, help="The plot.")  # fmt: skip
@model_option
@weights_option
def faithfulness(
    folder: Path,
    masks: Path | None,
    label: str,
    layer: str | None,
    method: str,
    limit: int | None,
    steps: int,
    as_json: bool,
    out: Path,
    model: str | None,
    weights: str | None,
) -> None:
    """Measure whether the maps of the pictures in FOLDER are true, beside a map of the centre and a random one.

    FOLDER may also be a CSV file with the columns path and label, of which --class NAME takes its own.

    Pointing game and energy in mask: do they lie on the object? Deletion and insertion: does the network need what they
    show? Randomisation: do they depend on the weights?

    \b
    Example:
      endolens faithfulness kvasir-seg/images --masks kvasir-seg/masks --class polyps --limit 100
    """
    import json

    from explainers import METHODS
    from monai_label_app import faithfulness as measures
    from monai_label_app.classifier.classifier import open_classifier

    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        fail(f"--out {out} is not a .png file in a folder that exists")
    with explained(out):
        samples, problems = measures.find_samples(measures.find_pictures(folder, label), masks)
        if limit and limit < len(samples):
            samples = [samples[number * len(samples) // limit] for number in range(limit)]
        classifier = open_classifier(model, weights)
        notice(classifier)
        layer = layer or classifier.card.target_layer
        result = measures.evaluate(samples, classifier, method, layer, label, steps, progress)
        problems += result.problems
        name_problems(problems)
        if not result.images:
            fail("there is no picture to measure")
        what = f"{method} of {layer}" if METHODS[method].of_layer else method
        title = f"{what}, class {label}, pictures: {result.images}, {classifier.card.name} {classifier.version}"
        measures.plot(result, title, out)
        content = measures.summary(result, method)
    click.echo(json.dumps(content, indent=1) if as_json else f"{title}\n\n{measures.table(result)}\n\nPlot in {out}")
    if problems:
        fail(f"{len(problems)} of the pictures could not be used")


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--out", type=result_folder,
              help="Folder for the cleaned images, PNG; folders below IMAGES are kept.")  # fmt: skip
@click.option("--variant", type=click.Choice(["box", "box+border", "inpaint"]), default="box+border",
              show_default=True,
              help="Black out the box; crop the border, too; or fill both with the colours beside them.")  # fmt: skip
def artifacts(images: tuple[Path, ...], as_json: bool, out: Path | None, variant: str) -> None:
    """Find navigation boxes, places where one was cut out, and black borders in IMAGES, which fool networks.

    IMAGES are pictures or DICOM files (the first frame of each), or folders of them. Boxes are x0, y0, x1, y1 in
    pixels; content is the rectangle around what the endoscope shows.

    \b
    Example:
      endolens artifacts stills/
      endolens artifacts stills/ --json --out cleaned
    """
    from monai_label_app.artifacts import examine

    with explained(out or Path()):
        problems = examine(images, out, variant, as_json, click.echo)
        name_problems(problems)
    if problems:
        fail(f"{len(problems)} of the images could not be used")
