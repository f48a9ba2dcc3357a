"""What a study of stills takes, out of an Orthanc and back into it, beside what the network takes for its frames.

The study's time runs from the first question to Orthanc until it has the last result: what ``endolens analyze --pacs``
and ``endolens listen`` do once the model is open. The network's time is that of the same frames, decoded beforehand,
through the same network in a plain loop, one by one on all cores: prepared, forward, and the Grad-CAM of the most
probable class. (An analysis looks at several at a time, a core each; what that takes alone stands below.) All are
measured in turn in one process. Orthanc, a real one, runs on the same processors, so its work counts. Where others use
the machine too, the time on the clock says little: the processor time, Orthanc's with it, stands beside it.

Example: python -m benchmarks.study; python -m benchmarks.study --model demo
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import httpx
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from benchmarks.dissection import Measure
from benchmarks.start import processor_seconds
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.frames import frames
from monai_label_app.pacs import Pacs
from monai_label_app.reading import with_videos
from monai_label_app.sample.frames import render
from monai_label_app.seeing import look
from monai_label_app.video import footage
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from tests.e2e.conftest import Orthanc, free_port, running_orthanc

CLASSES = ("polyps", "normal-cecum", "ulcerative-colitis", "esophagitis")


def stills(count: int, height: int, width: int) -> list[Dataset]:
    """A study of synthetic frames."""
    made = [Still(render(CLASSES[index % len(CLASSES)], index, height, width)[0]) for index in range(count)]
    examination = study_of(Examination(), [one.fingerprint for one in made])
    return [endoscopic_image(one, examination, number) for number, one in enumerate(made, start=1)]


def plain_loop(pictures: list[NDArray[np.uint8]], classifier: Classifier) -> None:
    """Run the network on pictures, one after the other."""
    layer = classifier.card.target_layer
    for picture in pictures:
        dissection, _ = classifier.dissect([picture])
        dissection.grad_cam(layer, int(dissection.probabilities.argmax()))


def several_at_a_time(pictures: list[NDArray[np.uint8]], classifier: Classifier) -> None:
    """Run the network on pictures as an analysis does."""
    for looked in [look(picture, classifier) for picture in pictures]:
        looked.result()


def there_and_back(orthanc: Orthanc, study: str, classifier: Classifier) -> None:
    """Analyse a study of a PACS, and store its results there."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Pacs(orthanc.dicomweb)
        fetched, _ = with_videos(archive.study(study), Path(folder))
        archive.deliver(footage.analyze(fetched, classifier, Path(folder), Path(folder)))


def timed(work: Callable[[], None], orthanc: Orthanc) -> tuple[float, float]:
    """Seconds on the clock, and of the processors."""

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time() + processor_seconds(orthanc.process.pid)

    begun = now()
    work()
    return now()[0] - begun[0], now()[1] - begun[1]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="The median of so many is taken.")
@click.option("--frames", "count", default=30, show_default=True, help="Stills of the study.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name, a checkpoint, or: demo.")
def main(rounds: int, count: int, model: str) -> None:
    """Print the ratio; the aim is at most 1.3."""
    classifier = open_classifier(None if model == "demo" else model)
    sources = stills(count, 576, 720)
    pictures = [next(frames(one, "")).pixels for one in sources]
    loops, networks, studies = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_orthanc(Path(folder) / "orthanc", free_port(), free_port()) as pacs,
    ):
        Pacs(pacs.dicomweb).store(sources)
        before = pacs.instances()
        for _ in range(rounds + 1):
            loops.append(timed(lambda: plain_loop(pictures, classifier), pacs))
            networks.append(timed(lambda: several_at_a_time(pictures, classifier), pacs))
            studies.append(timed(lambda: there_and_back(pacs, str(sources[0].StudyInstanceUID), classifier), pacs))
            results = pacs.instances() - before
            assert len(results) == count + 1
            for one in results:
                httpx.delete(f"{pacs.http}/instances/{one}").raise_for_status()
    for index, what in enumerate(("time", "processor time")):
        # The first round warms up.
        loop, network, study = ([one[index] for one in times[1:]] for times in (loops, networks, studies))
        click.echo(Measure(f"A study of {count} stills: a plain loop's {what}", ratio(study, loop), "×", 1.3))
        seconds = [f"{statistics.median(one):.1f} s" for one in (study, loop, network)]
        several = f"{seconds[2]} several at a time ({ratio(study, network):.2f} ×)"
        click.echo(f"  {seconds[0]} beside {seconds[1]}; {several}")


def ratio(ones: list[float], others: list[float]) -> float:
    """The median of the ratios of measurements that were made in turn."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


if __name__ == "__main__":
    main()
