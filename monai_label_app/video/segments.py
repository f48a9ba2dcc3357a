"""What was seen when: samples filtered over time and cut into segments of one class.

The filter: of the samples on which something is seen, the median of each class's probability over five neighbours. A
class that has at least 55 % in three consecutive samples keeps it in all three, whatever is around them, so
that no lesion can be averaged away; what flashes up in one or two alone is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_label_app.video.sampling import Samples

SEEN = 0.55
"""Probability, after the filter, from which a class counts as seen: above one half, so that two classes that are as
likely as each other do not take turns.
"""

LEAST = 3
"""Consecutive samples in which a class must be seen to be a segment."""

BRIDGED = 0.5
"""Seconds without a class between two parts of one segment, at most; another class always divides them."""

_REACH = LEAST - 1


@dataclass(frozen=True)
class Span:
    """A class that is seen for a while.

    Attributes:
        label: the class.
        first, last: the places of its first and last samples.
        start, end: in seconds after the first frame.
        peak, mean: of the class's probability in the samples of the span that show something, unfiltered, 0 to 1.
    """

    label: str
    first: int
    last: int
    start: float
    end: float
    peak: float
    mean: float


def spans(samples: Samples, classes: tuple[str, ...], step: float) -> list[Span]:
    """Cut a video into spans of one class each, in their order.

    Args:
        samples: of the whole video.
        classes: the names of the columns of their probabilities.
        step: seconds for which the last sample is shown.
    """
    labels = _labels(samples.probabilities)
    # A segment begins and ends with a frame, not with the moment at which that was looked at: its still lies in it.
    starts = samples.frame_times
    ends = np.append(np.where(np.diff(starts) > 0, starts[1:], samples.times[1:]), samples.times[-1:] + step)
    found: list[Span] = []
    for label, first, last in _runs(labels, starts, ends):
        if (labels[first : last + 1] == label).sum() < LEAST:
            continue
        own = samples.probabilities[first : last + 1, label]
        found.append(
            Span(
                classes[label],
                first,
                last,
                *(float(starts[first]), float(ends[last])),
                *(float(np.nanmax(own)), float(np.nanmean(own))),
            )
        )
    return found


def filtered(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median over five samples (N, classes) that show something; mirrored at the ends: none counts twice alone."""
    if len(probabilities) < LEAST:
        return probabilities
    padded = np.pad(probabilities, ((_REACH, _REACH), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _REACH + 1, axis=0)
    return np.median(windows, axis=2)


def _labels(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class that is seen in each sample; -1 for none."""
    labels = np.full(len(probabilities), -1)
    seen = ~np.isnan(probabilities).any(axis=1)
    if seen.any():
        smooth = filtered(probabilities[seen])
        labels[seen] = np.where(smooth.max(axis=1) >= SEEN, smooth.argmax(axis=1), -1)
    return labels


def _runs(
    labels: NDArray[np.int64], starts: NDArray[np.float64], ends: NDArray[np.float64]
) -> list[tuple[int, int, int]]:
    """(class, first, last) of consecutive samples of a class, across short gaps in which no class is seen."""
    runs: list[tuple[int, int, int]] = []
    for place in np.flatnonzero(labels >= 0).tolist():
        label = int(labels[place])
        if runs and runs[-1][0] == label and starts[place] - ends[runs[-1][2]] <= BRIDGED:
            runs[-1] = label, runs[-1][1], place
        else:
            runs.append((label, place, place))
    return runs
