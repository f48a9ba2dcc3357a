"""What a study of stills takes, out of an Orthanc and back into it, beside what the network takes for its frames.

The study's time runs from the first question to Orthanc until it has the last result: what ``endolens analyze --pacs``
and ``endolens listen`` do once the model is open. The network's time is that of the same frames, decoded beforehand,
through the same network in the same batches: prepared, forward, and the Grad-CAM of the most probable class. Both are
measured in turn in one process. Orthanc, a real one, runs on the same processors, so its work counts.

Example: python -m benchmarks.study; python -m benchmarks.study --model demo
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import httpx
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from benchmarks.dissection import Measure
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.frames import frames
from monai_label_app.pacs import Pacs
from monai_label_app.reading import with_videos
from monai_label_app.sample.frames import render
from monai_label_app.seeing import BATCH, look
from monai_label_app.video import footage
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from tests.e2e.conftest import Orthanc, free_port, running_orthanc

CLASSES = ("polyps", "normal-cecum", "ulcerative-colitis", "esophagitis")


def stills(count: int, height: int, width: int) -> list[Dataset]:
    """A study of synthetic frames."""
    made = [Still(render(CLASSES[index % len(CLASSES)], index, height, width)[0]) for index in range(count)]
    examination = study_of(Examination(), [one.fingerprint for one in made])
    return [endoscopic_image(one, examination, number) for number, one in enumerate(made, start=1)]


def network_alone(pictures: list[NDArray[np.uint8]], classifier: Classifier) -> float:
    """Seconds that the network takes for pictures."""
    start = time.perf_counter()
    for first in range(0, len(pictures), BATCH):
        look(pictures[first : first + BATCH], classifier)
    return time.perf_counter() - start


def there_and_back(orthanc: Orthanc, study: str, classifier: Classifier) -> float:
    """Seconds to analyse a study of a PACS, and to store its results there."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        archive = Pacs(orthanc.dicomweb)
        fetched, _ = with_videos(archive.study(study), Path(folder))
        archive.deliver(footage.analyze(fetched, classifier, Path(folder), Path(folder)))
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=5, show_default=True, help="The median of so many is taken.")
@click.option("--frames", "count", default=30, show_default=True, help="Stills of the study.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name, a checkpoint, or: demo.")
def main(rounds: int, count: int, model: str) -> None:
    """Print the ratio; the aim is at most 1.3."""
    classifier = open_classifier(None if model == "demo" else model)
    sources = stills(count, 576, 720)
    pictures = [next(frames(one, "")).pixels for one in sources]
    ratios, studies, networks = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_orthanc(Path(folder) / "db", free_port(), free_port()) as pacs,
    ):
        Pacs(pacs.dicomweb).store(sources)
        before = pacs.instances()
        for _ in range(rounds + 1):
            networks.append(network_alone(pictures, classifier))
            studies.append(there_and_back(pacs, str(sources[0].StudyInstanceUID), classifier))
            ratios.append(studies[-1] / networks[-1])
            results = pacs.instances() - before
            assert len(results) == count + 1
            for one in results:
                httpx.delete(f"{pacs.http}/instances/{one}").raise_for_status()
    # The first round warms up.
    click.echo(Measure(f"A study of {count} stills: the network's time", statistics.median(ratios[1:]), "×", 1.3))
    for what, times in (("study", studies), ("network", networks)):
        click.echo(f"  {what}: {statistics.median(times[1:]):.2f} s ({min(times[1:]):.2f} to {max(times[1:]):.2f})")


if __name__ == "__main__":
    main()
