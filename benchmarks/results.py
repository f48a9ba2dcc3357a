"""What the DICOM objects of a frame cost, beside what the network takes for it.

The network's time is the frame prepared, forward, and the Grad-CAM of its class: no decoding, and nothing that follows.
The objects' is the overlay with its caption, the Secondary Capture, and the frame's part of the findings report, all
encoded. Cutting regions out of the map belongs to neither.

Example: python -m benchmarks.results; python -m benchmarks.results --frames 30
"""

from __future__ import annotations

import gc
import io
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import click
import numpy as np
from PIL import Image
from pydicom import Dataset

from monai_label_app.analysis import captures_of, findings_of
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.frames import frames as decoded
from monai_label_app.results import Wanted, algorithm_of
from monai_label_app.sample.frames import render
from monai_label_app.seeing import compute_alone, look
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from report.findings import Finding
from report.structured_report import findings_report

SIZES = {"720 × 576": (576, 720), "1920 × 1080": (1080, 1920)}


def still(height: int, width: int) -> Dataset:
    """A synthetic frame as a VL Endoscopic Image."""
    frame, _ = render("polyps", 1, 576, 720)
    pixels = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
    made = Still(pixels)
    return endoscopic_image(made, study_of(Examination(), [made.fingerprint]), 1)


def measure(source: Dataset, frames: int, classifier: Classifier, wanted: Wanted) -> tuple[float, float]:
    """Seconds that the network takes for a frame, and that its objects take, in a study of one frame over and over."""
    # Of the processor, for they are the same on a busy machine.
    clock = time.process_time
    frame = next(decoded(source, ""))
    captures: list[Dataset] = []
    findings: list[Finding] = []
    network = objects = 0.0
    for number in range(1, frames + 1):
        start = clock()
        one = look(frame.pixels, classifier).result()
        network += clock() - start
        seen = one.seen(classifier.card.classes)
        start = clock()
        made = captures_of(source, frame, seen, classifier, number, wanted)
        for capture in made:
            encode(capture)
        findings += findings_of(source, frame, seen, made)
        captures += made
        objects += clock() - start
    start = clock()
    encode(findings_report(findings, [source], algorithm_of(classifier), captures[:1]))
    return network / frames, (objects + clock() - start) / frames


def encode(dataset: Dataset) -> None:
    """Write an object as it would go to a disk or a PACS."""
    dataset.save_as(io.BytesIO(), enforce_file_format=True)


@click.command()
@click.option("--rounds", default=7, show_default=True, help="The median of so many is taken.")
@click.option("--frames", default=8, show_default=True, help="Of a study: its findings report is one.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name or a checkpoint.")
def main(rounds: int, frames: int, model: str) -> None:
    """Print the share for each size of frame and each compression; the aim is below 10 %."""
    classifier = open_classifier(model)
    with ThreadPoolExecutor(1, initializer=compute_alone) as thread:  # as in an analysis, also what follows
        thread.submit(measure, still(64, 64), 1, classifier, Wanted()).result()
        gc.freeze()
        for name, size in SIZES.items():
            source = still(*size)
            for compression in ("lossless", "none"):
                wanted = Wanted(compression=compression)
                times = [
                    thread.submit(measure, source, frames, classifier, wanted).result() for _ in range(rounds + 1)
                ][1:]  # the first round warms up
                share = statistics.median(objects / network for network, objects in times)
                network, objects = (1000 * statistics.median(ones) for ones in zip(*times, strict=True))
                words = f"{objects:.0f} ms beside {network:.0f} ms"
                click.echo(f"{name}, {compression}: objects take {share:.1%} of the network's time ({words})")


if __name__ == "__main__":
    main()
