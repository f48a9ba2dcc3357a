"""The command line: ``endolens analyze | explain | faithfulness | artifacts | dicomize | serve | demo``."""

from __future__ import annotations

import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from monai_label_app.console import explained, fail, name_problems, notice, progress
from report.endoscopic_image import Examination


def _examination_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Patient and study of pictures that carry none."""
    for name, text in reversed(
        [
            ("patient-id", "Patient ID."),
            ("patient-name", "Person name, Family^Given."),
            ("patient-birth-date", "YYYYMMDD."),
            ("patient-sex", "M, F or O."),
            ("study-date", "YYYYMMDD."),
            ("study-time", "HHMMSS."),
            ("study-description", "Free text."),
            ("accession-number", "Accession number."),
            ("referring-physician-name", "Person name, Family^Given."),
            ("study-instance-uid", "Derived from the pictures unless given."),
        ]
    ):
        command = click.option(f"--{name}", default="", help=text)(command)
    return command


_model_option = click.option(
    "--model",
    metavar="FILE|NAME",
    help="A checkpoint (.safetensors with a card) or a torchvision network by name. "
    "[default: the demonstration model, not for clinical use]",
)
_method_option = click.option(
    "--method",
    default="grad-cam",
    show_default=True,
    help="grad-cam, hires-cam, saliency (of a layer), guided-backprop (of a class) or guided-grad-cam.",
)
_weights_option = click.option("--weights", metavar="imagenet|FILE", help="Weights for a network by name.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="endolens")
def main() -> None:
    """See why a network says "polyp": heatmaps and findings of endoscopy images, as DICOM.

    \b
    Example:
      endolens dicomize stills/*.jpg --out study --patient-id 4711
      endolens analyze study --out results
      endolens serve --studies results
      endolens explain still.jpg --layer all --class all
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C does, so that what is half done is taken away.
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    # They warn of oddities that they read all the same; what we cannot use gets a sentence of our own.
    for library in ("pydicom", "highdicom"):
        warnings.filterwarnings("ignore", category=UserWarning, module=library)


@main.command()
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("endolens-results"), show_default=True,
    help="Folder for the results and summary.json; with --pacs, for summary.json alone.",
)  # fmt: skip
@click.option("--pacs", metavar="URL", help="DICOMweb address of a PACS: fetch from there, store back to there.")
@click.option("--study", metavar="UID", help="Study Instance UID, with --pacs.")
@_model_option
@_weights_option
def analyze(
    inputs: tuple[Path, ...], out: Path, pacs: str | None, study: str | None, model: str | None, weights: str | None
) -> None:
    """Analyse endoscopy images: one heatmap Secondary Capture a frame, one findings report a study.

    INPUTS are DICOM files, JPEG or PNG pictures, or folders of them. Without INPUTS, name a study of a PACS.

    \b
    Example:
      endolens analyze study/ --out results
      endolens analyze --pacs http://localhost:8042/dicom-web --study 1.2.840.113619.2.1
    """
    if bool(inputs) == bool(pacs) or bool(pacs) != bool(study):
        raise click.UsageError("give either INPUTS, or --pacs with --study")
    # torch takes seconds to import; --help and mistakes in the options need not wait for it.
    from monai_label_app import analysis, folder
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.pacs import Pacs
    from monai_label_app.study import read_studies

    with explained(out):
        archive = Pacs(pacs) if pacs else None
        studies, problems = ([archive.study(study).images], []) if archive and study else read_studies(inputs)
        name_problems(problems)
        instances = sum(len(one.instances) for one in studies)
        if not instances:
            fail("there is no endoscopic image to analyse")
        classifier = open_classifier(model, weights)
        notice(classifier)
        with folder.staging(out) as staged:
            results = []
            with click.progressbar(length=instances, label="Analysing", file=sys.stderr) as bar:
                for one in studies:
                    (staged / one.uid).mkdir()
                    results.append(analysis.analyze(one, classifier, staged / one.uid, lambda: bar.update(1)))
            for result in results:
                name_problems(result.problems)
            frames = sum(len(result.frames) for result in results)
            if not frames:
                fail("no image could be analysed")
            for result in results:
                if archive:
                    archive.deliver(result)
                else:
                    folder.deliver(result, staged, out)
            (staged / "summary.json").write_text(analysis.summary(classifier, results, problems), encoding="utf-8")
            (staged / "summary.json").replace(out / "summary.json")
    click.echo(f"{frames} frames analysed; results in {pacs or out}, summary in {out / 'summary.json'}")
    left_out = len(problems) + sum(len(result.problems) for result in results)
    if left_out:
        fail(f"{left_out} of the inputs could not be used")


@main.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--layer", "layers", multiple=True, metavar="NAME|all", help="Again for more. [default: the model's own]")
@click.option("--class", "classes", multiple=True, metavar="NAME|top|all",
              help="top, the default, is the predicted one. Again for more.")  # fmt: skip
@_method_option
@click.option("--frame", default=1, show_default=True, type=click.IntRange(1), help="Of a multi-frame image.")
@click.option(
    "--colours", default="blue-red", show_default=True, help="Or a matplotlib colour map: viridis, inferno, …"
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("endolens-maps"),
              show_default=True, help="Folder for the maps and manifest.json.")  # fmt: skip
@_model_option
@_weights_option
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
    """Show what the network sees in one IMAGE (JPEG, PNG or DICOM): any layer, any class.

    Writes every map as an overlay (PNG) and as raw numbers at the layer's size (float32 .npy), several of them also as
    one contact sheet (rows layers, columns classes), and a manifest.json that says what they are.

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
    from monai_label_app.explain import MANIFEST, SHEET, TOP, Picture, look, write
    from monai_label_app.study import read_frame

    with explained(out):
        colourise([[0]], colours)  # a wrong name fails now, not after the work
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
            # Those of an earlier run speak of other maps.
            for stale in (MANIFEST, SHEET):
                (out / stale).unlink(missing_ok=True)
            for file in files:
                file.replace(out / file.name)
    click.echo(f"{made.predicted} {made.probabilities[made.predicted]:.1%}; maps in {out}: {len(made.maps)}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--masks", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
              help="Masks of the objects, PNG or JPEG of the same names.")  # fmt: skip
@click.option("--class", "label", default="top", show_default=True, metavar="NAME|top",
              help="One class, whose map is measured; top is the predicted one of each picture.")  # fmt: skip
@click.option("--layer", help="[default: the model's own]")
@_method_option
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N of the pictures, spread over the folder.")
@click.option("--steps", default=16, show_default=True, type=click.IntRange(2, 1000), help="Of deletion and insertion.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("faithfulness.png"),
              show_default=True, help="The plot.")  # fmt: skip
@_model_option
@_weights_option
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
    from monai_label_app.study import find_files

    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        fail(f"--out {out} is not a .png file in a folder that exists")
    with explained(out):
        samples, problems = measures.find_samples(find_files([folder]), masks)
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


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the cleaned images, PNG; folders below IMAGES are kept.")  # fmt: skip
@click.option("--variant", type=click.Choice(["box", "box+border"]), default="box+border", show_default=True,
              help="Black out the navigation box, and crop the border.")  # fmt: skip
def artifacts(images: tuple[Path, ...], as_json: bool, out: Path | None, variant: str) -> None:
    """Find navigation boxes, places where one was cut out, and black borders in IMAGES, which fool networks.

    IMAGES are JPEG, PNG or DICOM files (the first frame of each), or folders of them. Boxes are x0, y0, x1, y1 in
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


@main.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the study.")
@_examination_options
def dicomize(pictures: tuple[Path, ...], out: Path, **attributes: str) -> None:
    """Make a VL Endoscopic study of JPEG or PNG pictures, for scopes that write no DICOM.

    PICTURES are files, or folders of them. The same pictures make the same study, however often.

    \b
    Example:
      endolens dicomize stills/ --out study --patient-id 4711 --patient-name "Doe^Jane"
    """
    from monai_label_app import folder
    from monai_label_app.study import convert_pictures, find_files

    examination = _examination(attributes)
    with explained(out):
        instances, problems = convert_pictures(find_files(pictures), examination)
        name_problems(problems)
        if not instances:
            fail("there is no picture to convert")
        with folder.staging(out) as staged:
            for instance in instances:
                dataset = instance.read()
                # Named by UID: the folder may hold the stills of another patient, or those of an earlier run.
                dataset.save_as(staged / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
            for path in sorted(staged.iterdir()):
                path.replace(out / path.name)
    click.echo(f"{len(instances)} images of study {instances[0].header.StudyInstanceUID} in {out}")
    if problems:
        fail(f"{len(problems)} of the pictures could not be used")


@main.command()
@click.option("--studies", required=True, metavar="DIR|URL", help="A folder of DICOM and pictures, or a DICOMweb URL.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--ohif", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="A built OHIF to serve in place of the bundled one.")  # fmt: skip
@_model_option
def serve(studies: str, host: str, port: int, ohif: Path | None, model: str | None) -> None:
    """Serve studies: MONAI Label's API, OHIF and the EndoLens page, in one process.

    \b
    Example:
      endolens serve --studies results
      endolens serve --studies http://localhost:8042/dicom-web --port 8001
    """
    from monai_label_app import server

    with explained(Path(studies)):
        server.run(studies, host, port, model, ohif)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"), show_default=True,
              help="Gets the sample study and its results.")  # fmt: skip
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--rebuild", is_flag=True, help="First make the sample model and study anew (20 minutes on two cores).")
@click.pass_context
def demo(context: click.Context, folder: Path, port: int, rebuild: bool) -> None:
    """Analyse the sample study with the demonstration model, and serve it.

    The study is synthetic and the model learned synthetic frames: not for clinical use.
    """
    from monai_label_app import sample

    if rebuild:
        from monai_label_app.sample.build import build

        build()
    with explained(folder):
        shutil.copytree(sample.STUDY, folder / "study", dirs_exist_ok=True)
    context.invoke(analyze, inputs=(folder / "study",), out=folder / "results")
    context.invoke(serve, studies=str(folder), port=port)


def _examination(values: dict[str, str]) -> Examination:
    try:
        return Examination(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
