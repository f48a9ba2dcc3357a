"""Look at a video a number of times a second: what each sample shows, and what the network says of it.

What is done is kept in a journal, so that one that was interrupted goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_label_app import journal
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.video.decode import Movie, Shot, shown_at
from monai_label_app.video.quality import CLEAR, FROZEN, LEFT_OUT, SIDE, look

RATE = 10.0
"""Samples a second, unless another rate is asked for: what is seen for 0.4 s is in four of them."""

BATCH = 32
"""Samples that are judged, classified and written to the journal together."""

HELD = 2.0
"""Seconds, or two frames of a slower video, for which a frame counts at most: then none was recorded."""

_WORKING = 2 * SIDE
"""Pixels of the shorter side in which a frame is looked at; more than a network's input has."""


@dataclass(frozen=True)
class Samples:
    """Moments of a video, N of them in order; of an hour of video they take a few megabytes.

    Attributes:
        times: (N,) in seconds after the first frame.
        numbers: (N,) of the frame that is shown then, counted from 1.
        frame_times: (N,) when that frame began to be shown.
        quality: (N,) one of :mod:`monai_label_app.video.quality` each.
        sharpness: (N,) 0 to 1.
        probabilities: (N, classes); those of the frame that it repeats for a frozen one, NaN where nothing is seen
            or a frame is held for too long.
    """

    times: NDArray[np.float64]
    numbers: NDArray[np.int64]
    frame_times: NDArray[np.float64]
    quality: NDArray[np.str_]
    sharpness: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def classified(self) -> int:
        """How many the network was shown."""
        return int((self.quality == CLEAR).sum())

    @property
    def duration(self) -> float:
        """Seconds from the first to the last."""
        return float(self.times[-1]) if len(self) else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Why samples were not classified → share of all, 0 to 1."""
        return {one: float((self.quality == one).mean()) if len(self) else 0.0 for one in LEFT_OUT}


def sample(
    movie: Movie,
    classifier: Classifier,
    path: Path,
    rate: float | None = RATE,
    progress: Callable[[int], None] = lambda samples: None,
) -> Samples:
    """Look at a whole video.

    Args:
        movie: the video.
        classifier: the network.
        path: the journal of this video, this network and this rate; what it holds already is not done again.
        rate: samples a second; None for every frame.
        progress: called with the number of samples that are done since the last call; what it raises ends the work.
    """
    parts = [_read(line) for line in journal.read(path)]
    progress(sum(map(len, parts)))
    moments = _moments(movie, rate, parts[-1] if parts else None)
    held = max(HELD, 2 / movie.rate)
    while batch := list(islice(moments, BATCH)):
        parts.append(_looked(batch, classifier, held))
        journal.append(path, {field.name: getattr(parts[-1], field.name).tolist() for field in fields(Samples)})
        progress(len(batch))
    return _joined(parts)


def expected_samples(movie: Movie, rate: float | None) -> int:
    """How many samples a video will have, by the duration that it announces."""
    return math.ceil(movie.duration * (rate or movie.rate))


def _read(line: dict) -> Samples:
    kinds = (np.float64, np.int64, np.float64, np.str_, np.float32, np.float32)
    return Samples(*(np.array(line[field.name], kind) for field, kind in zip(fields(Samples), kinds, strict=True)))


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Samples)))


def _moments(movie: Movie, rate: float | None, done: Samples | None) -> Iterator[tuple[float, Shot]]:
    """Each moment to be looked at after those that are done, and the frame that is shown then."""
    shots = movie.shots(float(done.frame_times[-1]), int(done.numbers[-1])) if done else movie.shots()
    if rate is None:
        yield from ((shot.time, shot) for shot in islice(shots, 1 if done else 0, None))
        return
    first = round(float(done.times[-1]) * rate) + 1 if done else 0
    yield from shown_at((index / rate for index in count(first)), shots, movie.rate)


def _looked(moments: Sequence[tuple[float, Shot]], classifier: Classifier, held: float) -> Samples:
    """Judge and classify a batch. Nothing is known of the one before it, so that work can go on between the two."""
    looks = []
    frames: list[NDArray[np.uint8]] = []
    places: list[int] = []
    clear = seen = before = None
    for moment, shot in moments:
        counts = moment - shot.time <= held
        if seen is None or shot is not before:
            pixels = shot.picture.pixels(_WORKING)
            seen = look(pixels, clear)
        elif seen.quality == CLEAR:
            seen = replace(seen, quality=FROZEN)
        before = shot
        if seen.quality == CLEAR and not counts:
            seen = replace(seen, quality=FROZEN)
        if seen.quality == CLEAR:
            frames.append(pixels)
        clear = seen if seen.quality in (CLEAR, FROZEN) and counts else None
        places.append(len(frames) - 1 if clear else -1)
        looks.append(seen)
    nothing = np.full((1, len(classifier.card.classes)), np.nan, np.float32)
    said = classifier.scores(frames, half=True).softmax(1).numpy() if frames else nothing[:0]
    return Samples(
        np.array([time for time, _ in moments]),
        np.array([shot.number for _, shot in moments]),
        np.array([shot.time for _, shot in moments]),
        np.array([seen.quality for seen in looks]),
        np.array([seen.sharpness for seen in looks], np.float32),
        np.concatenate([said, nothing])[places],  # the last line is that of nothing
    )
