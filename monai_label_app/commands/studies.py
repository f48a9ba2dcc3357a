"""``endolens analyze | dicomize | serve | demo``: studies, from pictures to a viewer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from monai_label_app.commands.options import (
    endpoint,
    endpoint_options,
    log_option,
    model_option,
    node_options,
    node_settings,
    result_folder,
    result_options,
    weights_option,
)
from monai_label_app.console import explained, fail, name_problems, notice
from report.endoscopic_image import Examination


class _Rate(click.ParamType):
    """A number above 0, or ``all``, which is None."""

    name = "NUMBER|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The number; a usage error if it is none."""
        if value == "all":
            return None
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0.1 <= rate <= 1000:
            self.fail(f"{value!r} is neither a number from 0.1 to 1000 nor all", param, ctx)
        return rate


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


@click.command()
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out", type=result_folder, default=Path("endolens-results"), show_default=True,
    help="Folder for the results and summary.json; with --pacs, for summary.json, the clips as MP4, and timeline.html.",
)  # fmt: skip
@click.option("--pacs", metavar="URL", help="DICOMweb address of a PACS: fetch from there, store back to there.")
@click.option("--study", metavar="UID", help="Study Instance UID, with --pacs.")
@click.option("--query", help="Which studies, with --pacs: attributes as QIDO-RS has them, of endoscopy unless a "
              "Modality is named. What is done is remembered in --out.")  # fmt: skip
@click.option("--ray", is_flag=False, flag_value="", metavar="[ADDRESS]",
              help="Have the studies of --query analysed by the Ray cluster at HOST:PORT, or by as many processes as "
              "this machine has cores.")  # fmt: skip
@result_options
@click.option("--rate", type=_Rate(), default="10", show_default=True,
              help="Frames of a video that are looked at in a second, or: all.")  # fmt: skip
@model_option
@weights_option
def analyze(
    inputs: tuple[Path, ...], out: Path, pacs: str | None, study: str | None, query: str | None, ray: str | None,
    rate: float | None, model: str | None, weights: str | None, **wanted: Any,
) -> None:  # fmt: skip
    """Analyse endoscopy images and videos: heatmaps as Secondary Captures, one findings report a study.

    INPUTS are DICOM files, JPEG, PNG, TIFF or BMP pictures, videos (MP4, MOV, AVI, MKV, MPEG and others), or folders of
    them. Without INPUTS, name a study of a PACS, or ask for many. Of a video the segments in which a class is seen are
    named, with a still and a clip of each, in summary.json and timeline.html. What was interrupted goes on where it
    was.

    \b
    Example:
      endolens analyze colonoscopy.mp4 --out results --report
      endolens analyze study/ --out results
      endolens analyze study/ --out results --guided --layer-walk
      endolens analyze --pacs http://localhost:8042/dicom-web --study 1.2.840.113619.2.1
      endolens analyze --ray --pacs http://localhost:8042/dicom-web --query "StudyDate=20200101-20201231"
    """
    if bool(inputs) == bool(pacs) or sum(map(bool, (study, query))) != bool(pacs):
        raise click.UsageError("give either INPUTS, or --pacs with --study or --query")
    if ray is not None and not query:
        raise click.UsageError("--ray goes with --pacs and --query")
    if pacs and query:
        _analyze_archive(pacs, query, ray, out, rate, model, weights, wanted)
        return
    # torch takes seconds to import; --help and mistakes in the options need not wait for it.
    from monai_label_app import folder
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.pacs import Pacs
    from monai_label_app.reading import read_studies, with_videos
    from monai_label_app.results import Wanted, summary
    from monai_label_app.video import footage

    choice = Wanted(**wanted)
    with explained(out):
        archive = Pacs(pacs) if pacs else None
        studies, problems = ([archive.study(study)], []) if archive and study else read_studies(inputs)
        with folder.staging(out) as staged:
            if archive:
                fetched, problems = with_videos(studies[0], staged)
                studies = [fetched]
            name_problems(problems)
            videos = sum(len(one.recordings) for one in studies)
            frames = sum(footage.expected(one, rate) for one in studies)
            if not (frames or videos):
                fail("there is no endoscopic image to analyse")
            classifier = open_classifier(model, weights)
            notice(classifier)
            results = []
            with click.progressbar(length=frames, label="Analysing", file=sys.stderr) as bar:
                for one in studies:
                    (staged / one.uid).mkdir()
                    place = staged / one.uid
                    results.append(footage.analyze(one, classifier, place, out, rate, bar.update, choice))
            for result in results:
                name_problems(result.problems)
            frames = sum(len(result.frames) for result in results)
            segments = sum(len(result.segments) for result in results)
            if not (frames or videos):
                fail("no image could be analysed")
            for result in results:
                if archive:
                    archive.deliver(result)
                folder.deliver(result, staged, out)
            for result in results:
                if result.fhir:
                    (staged / f"{result.study_uid}.fhir.json").write_text(result.fhir, encoding="utf-8")
                    (staged / f"{result.study_uid}.fhir.json").replace(out / f"{result.study_uid}.fhir.json")
            (staged / "summary.json").write_text(summary(classifier, results, problems), encoding="utf-8")
            (staged / "summary.json").replace(out / "summary.json")
            for one in studies:
                footage.forget(one, classifier, out, rate)
    seen = f"segments seen in videos: {segments}, " if videos else ""
    click.echo(f"{seen}frames analysed: {frames}; results in {pacs or out}, summary in {out / 'summary.json'}")
    for page in dict.fromkeys(video["timeline"] for result in results for video in result.videos):
        click.echo(f"what was seen when: {page}; with maps, it is played by: endolens serve --studies {pacs or out}")
    left_out = len(problems) + sum(len(result.problems) for result in results)
    if left_out:
        fail(f"{left_out} of the inputs could not be used")


def _analyze_archive(
    pacs: str, query: str, ray: str | None, out: Path, rate: float | None, model: str | None, weights: str | None,
    wanted: dict[str, Any],
) -> None:  # fmt: skip
    """The same for every study that a query finds."""
    from monai_label_app.archive import run
    from monai_label_app.archive.query import parse
    from monai_label_app.archive.work import Task
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.folder import sweep
    from monai_label_app.pacs import credentials
    from monai_label_app.results import Wanted

    with explained(out), ExitStack() as stack:
        asked = parse(query)
        hands: run.Hands = run.one_by_one
        if ray is not None:
            from monai_label_app.archive.cluster import workers

            stack.callback(sweep, out)  # when they have ended, however
            hands = stack.enter_context(workers(ray))
        classifier = open_classifier(model, weights)
        notice(classifier)
        task = Task(pacs, Wanted(**wanted), rate, None if ray else out.resolve(), credentials())
        totals = run.run(asked, task, classifier, out, hands)
    before = f", done before: {totals.before}" if totals.before else ""
    click.echo(f"studies analysed: {totals.studies}, frames: {totals.frames}{before}; results in {pacs}, "
               f"summary in {out / 'summary.jsonl'}")  # fmt: skip
    if totals.named:
        partly = totals.named - totals.failed
        fail(f"{totals.failed} studies could not be analysed, of {partly} something was left out; see "
             f"{out / 'failures.jsonl'}")  # fmt: skip


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=result_folder, help="Folder for the study.")
@_examination_options
def dicomize(pictures: tuple[Path, ...], out: Path, **attributes: str) -> None:
    """Make a VL Endoscopic study of JPEG, PNG, TIFF or BMP pictures, for scopes that write no DICOM.

    PICTURES are files, or folders of them. The same pictures make the same study, however often.

    \b
    Example:
      endolens dicomize stills/ --out study --patient-id 4711 --patient-name "Doe^Jane"
    """
    from monai_label_app import folder
    from monai_label_app.files import find_files
    from monai_label_app.reading import convert_pictures

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


@click.command()
@click.option("--studies", required=True, metavar="DIR|URL", help="A folder of DICOM and pictures, or a DICOMweb URL.")
@endpoint_options(8000)
@click.option("--ohif", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              envvar="ENDOLENS_OHIF", show_envvar=True,
              help="A built OHIF to serve in place of the bundled one.")  # fmt: skip
@click.option("--dataset", type=click.Path(path_type=Path, exists=True), metavar="DIR|CSV",
              help="Labelled pictures, learned again with the doctors' labels: nothing is forgotten.")  # fmt: skip
@log_option
@model_option
@click.option("--listen", is_flag=True, help="Be a DICOM node too, as `endolens listen`; the options below say which.")
@node_options("dicom-")
@result_options
@weights_option
def serve(
    studies: str, ohif: Path | None, dataset: Path | None, log: str, model: str | None, listen: bool, **given: Any
) -> None:
    """Serve studies: MONAI Label's API, OHIF and the EndoLens page, in one process.

    With a folder of versions as --model, the server also trains on the labels that doctors save. With --listen it is
    a DICOM node too, which analyses every study that comes in and sends the results on.

    \b
    Example:
      endolens serve --studies results
      endolens serve --studies results --model endolens-models --dataset kvasir-dataset-v2
      endolens serve --studies http://localhost:8042/dicom-web --port 8001
      endolens serve --studies results --host 0.0.0.0 --token-file token --tls-certificate cert.pem --tls-key key.pem
      endolens serve --studies http://localhost:8042/dicom-web --listen --send http://localhost:8042/dicom-web
    """
    from monai_label_app import server

    where = endpoint(given)
    if given["send"] and not listen:
        raise click.UsageError("--send says where a node sends results; give --listen too")
    with explained(Path(studies)):
        server.run(studies, where, model, ohif, dataset, log, node_settings(given, model, "dicom-") if listen else None)


@click.command()
@click.argument("source")
@endpoint_options(8001)
@click.option("--out", type=result_folder, help="Folder that gets a line and two pictures of every finding.")
@model_option
def watch(source: str, out: Path | None, model: str | None, **where: Any) -> None:
    """Watch a running examination: the picture, and beside it what the network sees, with its delay.

    SOURCE is a video file, an address (rtsp://…), or a capture device (/dev/video0). The picture never waits for the
    network: frames for which it has no time are left out. Ctrl-C ends it.

    \b
    Example:
      endolens watch rtsp://tower.local/live --out findings
    """
    from monai_label_app import server

    with explained(out or Path()):
        server.watch(source, endpoint(where), model, out)


@click.command()
@click.option("--folder", type=result_folder, default=Path("demo"), show_default=True,
              help="Gets the sample study and its results.")  # fmt: skip
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--rebuild", is_flag=True, help="First make the sample study anew.")
@click.pass_context
def demo(context: click.Context, folder: Path, port: int, rebuild: bool) -> None:
    """Analyse the sample study with the demonstration model, and serve it.

    The study is synthetic, the model a demonstration: not for clinical use.
    """
    from monai_label_app import sample

    if rebuild:
        from monai_label_app.sample.build import write_study

        write_study()
    with explained(folder):
        shutil.copytree(sample.STUDY, folder / "study", dirs_exist_ok=True)
    context.invoke(analyze, inputs=(folder / "study",), out=folder / "results")
    context.invoke(serve, studies=str(folder), port=port)


def _examination(values: dict[str, str]) -> Examination:
    try:
        return Examination(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
