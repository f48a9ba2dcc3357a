"""What the DICOM objects of a frame cost, beside what the network takes for it.

Example: python benchmarks/results.py --rounds 15
"""

from __future__ import annotations

import io
import statistics
import time

import click
import numpy as np
from PIL import Image
from pydicom import Dataset

from monai_label_app.analysis import Wanted, algorithm_of, captures_of, findings_of, see
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.sample.frames import render
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from report.structured_report import findings_report

SIZES = {"720 × 576": (576, 720), "1920 × 1080": (1080, 1920)}


def still(height: int, width: int) -> Dataset:
    """A synthetic frame as a VL Endoscopic Image."""
    frame, _ = render("polyps", 1, 576, 720)
    pixels = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
    made = Still(pixels)
    return endoscopic_image(made, study_of(Examination(), [made.fingerprint]), 1)


def encode(dataset: Dataset) -> None:
    """Write an object as it would go to a disk or a PACS."""
    dataset.save_as(io.BytesIO(), enforce_file_format=True)


@click.command()
@click.option("--rounds", default=15, show_default=True, help="The median of so many is taken.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name or a checkpoint.")
def main(rounds: int, model: str) -> None:
    """Print the share for each size of frame and each compression; the aim is below 10 %."""
    classifier = open_classifier(model)
    for name, size in SIZES.items():
        source = still(*size)
        for compression in ("lossless", "none"):
            wanted, network, objects = Wanted(compression=compression), [], []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                ((frame, seen),) = see(source, name, classifier)
                looked = time.perf_counter()
                captures = captures_of(source, frame, seen, classifier, 1, wanted)
                findings = findings_of(source, frame, seen, captures)
                for made in (*captures, findings_report(findings, [source], algorithm_of(classifier), captures)):
                    encode(made)
                network.append(looked - start)
                objects.append(time.perf_counter() - looked)
            # The first round warms up.
            share = statistics.median(one / other for one, other in zip(objects[1:], network[1:], strict=True))
            seconds = (statistics.median(times[1:]) for times in (network, objects))
            click.echo(f"{name}, {compression}: objects take {share:.1%} of the network's time ({_in_words(*seconds)})")


def _in_words(network: float, objects: float) -> str:
    return f"{1000 * objects:.0f} ms beside {1000 * network:.0f} ms"


if __name__ == "__main__":
    main()
