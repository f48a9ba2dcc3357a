"""Whether what was planted in a long video of real pictures is found in time, and what is found that was not planted.

Only pictures that the model is right about are planted: the network is not what is measured.

Example: python -m benchmarks.segments kvasir-dataset-v2 --minutes 10
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.pictures import PICTURE_SUFFIXES, read_picture
from monai_label_app.video.decode import VideoFile
from monai_label_app.video.sampling import RATE, sample
from monai_label_app.video.segments import Span, spans
from tests.video_files import blurred, encode, faded, pan

SIZE, FRAMES_A_SECOND = (320, 240), 25
SURE = 0.7
"""Probability of the right class at the beginning, the middle and the end of a camera's way over a picture."""

LENGTHS = (10, 12, 15, 25, 50, 100, 200, 300)
"""Frames of a scene: from 0.4 s."""


@dataclass
class Film:
    """A video as it is made: the scenes, and (class, start, end) of what was planted."""

    known: dict[str, list[Path]]
    seconds: float
    chance: random.Random
    planted: list[tuple[str, float, float]] = field(default_factory=list)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Scenes of one class after another, some faded into, with black and blurred parts between them."""
        shown, label, last = 0, "", None
        while shown < self.seconds * FRAMES_A_SECOND:
            kind = self.chance.random()
            if kind < 0.08:
                scene = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * self.chance.randint(10, 60)
            elif kind < 0.16:
                scene = blurred(self._scene(self.chance.choice(list(self.known)), self.chance.randint(10, 50)))
            else:
                label = self.chance.choice([one for one in self.known if one != label])
                scene = self._scene(label, self.chance.choice(LENGTHS))
                if last is not None and len(scene) >= FRAMES_A_SECOND:
                    scene = faded([last], scene, self.chance.randint(0, 8))
                self.planted.append((label, shown / FRAMES_A_SECOND, (shown + len(scene)) / FRAMES_A_SECOND))
            shown, last = shown + len(scene), scene[-1]
            yield from scene

    def _scene(self, label: str, count: int) -> list[NDArray[np.uint8]]:
        return pan(self.chance.choice(self.known[label]), count, SIZE, seed=1)


def known_pictures(folder: Path, classifier: Classifier) -> dict[str, list[Path]]:
    """Class → pictures of a folder a class that the model is sure and right about."""
    known: dict[str, list[Path]] = {}
    for place, label in enumerate(classifier.card.classes):
        for file in sorted((folder / label).glob("*")):
            if file.suffix.lower() not in PICTURE_SUFFIXES or min(read_picture(file).pixels.shape[:2]) < 220:
                continue
            chances = classifier.scores(pan(file, 3, SIZE, seed=1), half=True).softmax(1)[:, place]
            if chances.min() > SURE:
                known.setdefault(label, []).append(file)
    return known


def compare(planted: list[tuple[str, float, float]], found: list[Span]) -> dict[str, object]:
    """What was missed, what is false, and how far the edges are off, in seconds."""
    missed, edges, right = [], [], set()
    for label, start, end in planted:
        over = [place for place, one in enumerate(found) if one.label == label and one.start < end and one.end > start]
        right.update(over)
        if over:
            edges.append(max(abs(found[over[0]].start - start), abs(found[over[-1]].end - end)))
        else:
            missed.append((label, start, end))
    false = [f"{one.label} {one.start:.1f}-{one.end:.1f} s" for place, one in enumerate(found) if place not in right]
    return {
        "planted": len(planted),
        "of less than a second": sum(end - start < 1 for _, start, end in planted),
        "missed": missed,
        "false": false,
        "edges off by more than half a second": sum(edge > 0.5 for edge in edges),
        "edges off by at most (s)": round(max(edges, default=0.0), 2),
    }


@click.command()
@click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--model", default=None, help="A checkpoint. [default: the demonstration model]")
def main(images: Path, minutes: float, seed: int, model: str | None) -> None:
    """Print what was planted, missed and false. IMAGES is a folder with a folder a class."""
    torch.set_num_threads(1)
    classifier = open_classifier(model)
    film = Film(known_pictures(images, classifier), 60 * minutes, random.Random(seed))
    click.echo(f"pictures: { {label: len(files) for label, files in film.known.items()} }")
    with tempfile.TemporaryDirectory() as folder:
        path = encode(Path(folder) / "film.mp4", film.frames(), options={"g": "50", "preset": "veryfast"})
        samples = sample(VideoFile(path, "film"), classifier, Path(folder) / "journal")
    click.echo(f"left out: { {reason: round(share, 3) for reason, share in samples.shares.items()} }")
    for name, value in compare(film.planted, spans(samples, classifier.card.classes, 1 / RATE)).items():
        click.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
