"""Which frame of a segment to show: one that the network is sure of, sharp, free of artifacts, and not shown yet."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_label_app.classifier.artifacts import find_artifacts, inside
from monai_label_app.classifier.duplicates import NEAR, fingerprint
from monai_label_app.frames import UnreadableError
from monai_label_app.video.decode import TICK, Movie, Shot
from monai_label_app.video.quality import SIDE
from monai_label_app.video.sampling import Samples
from monai_label_app.video.segments import Span

CANDIDATES = 4
"""Frames of a segment that are looked at in full."""

_APART = 0.5
"""Seconds between two candidates, at least: neighbours look alike."""

_GLARE = 240
"""Darkest channel, of 255, from which a pixel shows the lamp's reflection and no tissue."""

_AHEAD = 5.0
"""Seconds over which decoding on is quicker than starting anew."""


@dataclass(frozen=True)
class Still:
    """The frame (H, W, 3) uint8 that stands for a segment, its number and its time in seconds."""

    number: int
    time: float
    pixels: NDArray[np.uint8]


def stills(movie: Movie, samples: Samples, spans: Sequence[Span], classes: Sequence[str]) -> Iterator[Still | None]:
    """The still of each segment in turn; None for one that shows nothing but what an earlier still shows."""
    wanted = [_candidates(samples, span, classes.index(span.label)) for span in spans]
    chosen: list[NDArray[np.bool_]] = []
    with closing(_shots(movie, samples, [place for scores in wanted for place in scores])) as shots:
        for scores in wanted:
            best: tuple[float, Still, NDArray[np.bool_]] | None = None
            for score in scores.values():
                shot = next(shots)
                pixels = shot.picture.pixels()
                bits = fingerprint(pixels)
                score *= 1 - _hidden(shot.picture.pixels(SIDE))
                new = all(np.count_nonzero(bits != other) > NEAR for other in chosen)
                if new and (best is None or score > best[0]):
                    best = score, Still(shot.number, shot.time, pixels), bits
            if best is not None:
                chosen.append(best[2])
            yield best[1] if best else None


def _candidates(samples: Samples, span: Span, label: int) -> dict[int, float]:
    """Places of the surest and sharpest samples of a segment, in order of time → certainty times sharpness."""
    places = np.arange(span.first, span.last + 1)
    own = samples.probabilities[places]
    told = ~np.isnan(own).any(axis=1)
    places, own = places[told], own[told]
    scores = own[:, label] * samples.sharpness[places] / max(1e-6, float(samples.sharpness[places].max()))
    scores[own.argmax(axis=1) != label] = 0
    found: dict[int, float] = {}
    for index in np.argsort(-scores, kind="stable"):
        place, score = int(places[index]), float(scores[index])
        if len(found) == CANDIDATES or (found and not score):
            break
        if all(abs(samples.times[place] - samples.times[other]) >= _APART for other in found):
            found[place] = score
    return dict(sorted(found.items()))


def _hidden(frame: NDArray[np.uint8]) -> float:
    """Share of a frame that a navigation box, its cut-out or glare hides."""
    found = find_artifacts(frame)
    hidden = inside(frame, found.navigation_box) | inside(frame, found.blacked_out)
    return float((hidden | (frame.min(axis=2) > _GLARE)).mean())


def _shots(movie: Movie, samples: Samples, places: Sequence[int]) -> Generator[Shot, None, None]:
    """The frames of samples whose places rise."""
    shots: Iterator[Shot] = iter(())
    last = -np.inf
    for place in places:
        time = float(samples.frame_times[place])
        if not 0 < time - last < _AHEAD:
            shots = movie.shots(time, int(samples.numbers[place]))
        shot = next((one for one in shots if one.time >= time - TICK), None)
        if shot is None:
            raise UnreadableError(f"{movie.origin} has no frame at {time:.2f} s any more")
        yield shot
        last = time
