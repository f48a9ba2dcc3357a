"""What watching a video costs beside the network itself, how quick the quality filter is, and what memory it takes.

Example: python -m benchmarks.video --model vgg19 --minutes 60
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import av
import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread

from benchmarks.dissection import STATUS, Measure
from explainers.trace import run
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.network import build
from monai_label_app.classifier.precision import mixed_precision
from monai_label_app.classifier.prepare import prepare
from monai_label_app.frames import frames
from monai_label_app.sample import STUDY
from monai_label_app.video.choice import stills
from monai_label_app.video.decode import VideoFile
from monai_label_app.video.quality import CLEAR, SIDE, look
from monai_label_app.video.sampling import BATCH, RATE, sample
from monai_label_app.video.segments import spans

FRAMES_A_SECOND = 25
SCENE = 10 * FRAMES_A_SECOND
"""Frames for which one picture is moved over."""


def pictures() -> list[Image.Image]:
    """The stills of the sample study."""
    return [Image.fromarray(next(frames(dcmread(file), file.name)).pixels) for file in sorted(STUDY.glob("*.dcm"))]


def moved(size: tuple[int, int], count: int) -> Iterator[NDArray[np.uint8]]:
    """So many frames of a camera that moves over one picture after another."""
    shown = pictures()
    for number in range(count):
        image, share = shown[number // SCENE % len(shown)], number % SCENE / SCENE
        left, top = 0.2 * image.width * share, 0.2 * image.height * share
        box = (left, top, left + 0.8 * image.width, top + 0.8 * image.height)
        yield np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))


def film(path: Path, size: tuple[int, int], seconds: int) -> Path:
    """A video of H.264 with a key frame a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FRAMES_A_SECOND)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": str(FRAMES_A_SECOND), "bf": "0", "preset": "veryfast"}
        for pixels in moved(size, seconds * FRAMES_A_SECOND):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        output.mux(stream.encode())
    return path


def repeated(minute: Path, path: Path, times: int) -> Path:
    """The same minute again and again, without coding it anew."""
    with av.open(str(path), "w") as output:
        target = None
        for turn in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None and packet.pts is not None:
                        shift = turn * stream.duration
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
                        output.mux(packet)
    return path


def used(work: Callable[[], object]) -> float:
    """Seconds of the processor, which other programs on the machine change less than those of the clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def watched(movie: VideoFile, classifier: Classifier) -> None:
    """All but the writing: decode, sample, judge, classify, cut, choose."""
    with tempfile.TemporaryDirectory() as folder:
        samples = sample(movie, classifier, Path(folder) / "journal")
    classes = classifier.card.classes
    list(stills(movie, samples, spans(samples, classes, 1 / RATE), classes))


def forwarded(images: torch.Tensor, classifier: Classifier, half: bool) -> None:
    """Bare batched forward passes of the prepared frames."""
    with torch.inference_mode(), mixed_precision(classifier.device) if half else nullcontext():
        for batch in images.split(BATCH):
            run(classifier.network, batch.contiguous(memory_format=torch.channels_last))


def prepared(movie: VideoFile, classifier: Classifier) -> torch.Tensor:
    """What the network is shown of the same frames."""
    card = classifier.card
    with tempfile.TemporaryDirectory() as folder:
        samples = sample(movie, tiny(), Path(folder) / "journal")
    numbers = set(samples.numbers[samples.quality == CLEAR].tolist())
    pixels = (shot.picture.pixels(2 * SIDE) for shot in movie.shots() if shot.number in numbers)
    return torch.stack([prepare(one, card.input_size, card.mean, card.std, card.preprocess)[0] for one in pixels])


def peak_memory(path: Path) -> float:
    """Megabytes that a process of its own needs at most to watch a video with a tiny network."""
    command = [sys.executable, "-m", "benchmarks.video", "--memory-of", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tiny() -> Classifier:
    """A network that costs nothing."""
    network = build("vgg19", width=1 / 32).eval()
    return Classifier(
        network, Card(name="tiny", version="1", width=1 / 32, input_size=32), "0" * 64, torch.device("cpu")
    )


@click.command()
@click.option("--model", default=None, help="A network's name or a checkpoint. [default: the demonstration model]")
@click.option("--seconds", default=40, show_default=True, help="Of the video that is timed, 640 x 480.")
@click.option("--minutes", default=60, show_default=True, help="Of the long video of which the memory is measured.")
@click.option("--memory-of", type=click.Path(path_type=Path), hidden=True)
def main(model: str | None, seconds: int, minutes: int, memory_of: Path | None) -> None:
    """Print the measures, in seconds of one core."""
    torch.set_num_threads(1)
    if memory_of:
        watched(VideoFile(memory_of, "video"), tiny())
        peak = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        click.echo(int(peak.split()[1]) / 1024)
        return
    classifier = open_classifier(model)
    with tempfile.TemporaryDirectory() as folder:
        movie = VideoFile(film(Path(folder) / "timed.mp4", (640, 480), seconds), "timed.mp4")
        images = prepared(movie, classifier)
        forwarded(images[:BATCH], classifier, half=True)
        whole = used(lambda: watched(movie, classifier))
        half, full = (used(lambda half=half: forwarded(images, classifier, half)) for half in (True, False))
        shown = [shot.picture.pixels(2 * SIDE) for shot in islice(movie.shots(), 100)]
        judged = len(shown) / used(lambda: [look(one) for one in shown])
        minute = film(Path(folder) / "minute.mp4", (160, 120), 60)
        short, long = peak_memory(minute), peak_memory(repeated(minute, Path(folder) / "long.mp4", minutes))
    click.echo(
        f"{len(images)} frames by {classifier.card.name}: forward passes {half:.1f} s, in full precision {full:.1f} s"
    )
    click.echo(Measure("Watching over bare forward passes", 100 * (whole / half - 1), " %", 15))
    click.echo(Measure("Watching over bare forward passes in full precision", 100 * (whole / full - 1), " %", 15))
    click.echo(f"Quality filter: {judged:.0f} frames a second (at least 200)")
    click.echo(f"Memory: {short:.0f} MB for a minute, {long:.0f} MB for {minutes} minutes")


if __name__ == "__main__":
    main()
