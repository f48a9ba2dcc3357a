"""A video as a browser plays it, and which of its frames is shown when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_label_app.video.clips import code_whole, copy_whole
from monai_label_app.video.decode import TICK, Movie, VideoFile

_PROFILES = frozenset({66, 77, 100})
"""Baseline, Main and High, which every browser decodes (H.264, A.2)."""


@dataclass(frozen=True)
class Playable:
    """A video that a browser plays.

    Attributes:
        path: an MP4 file of H.264, without sound; its clock is that of ``times``.
        times: (N,) in seconds after the first frame: when each frame of the video begins to be shown.
        end: when the last one is no longer shown.
        copied: the stream is that of the video, bit by bit; else it was coded anew.
    """

    path: Path
    times: NDArray[np.float64]
    end: float
    copied: bool

    def shown_at(self, moment: float) -> int:
        """The number, from 1, of the frame that is shown at a moment.

        Raises:
            ValueError: the moment is before the first frame or after the last.
        """
        if not -TICK <= moment < self.end:
            raise ValueError(f"the video is shown from 0 to {self.end:.3f} s, and nothing at {moment:.3f} s")
        return int(np.searchsorted(self.times, moment + TICK, "right"))


def make_playable(movie: Movie, path: Path, progress: Callable[[float], None] = lambda seconds: None) -> Playable:
    """Write a video as a browser plays it, in constant memory: an H.264 stream is copied, another one is coded anew.

    Args:
        movie: the video.
        path: the MP4 file, which is replaced.
        progress: called with the time of each frame, in seconds; what it raises ends the work.

    Raises:
        UnreadableError: no frame of it can be decoded.
    """
    if isinstance(movie, VideoFile) and movie.plain and (movie.h264 or (0, 0))[0] in _PROFILES:
        copy_whole(movie, path, progress)
        times = movie.frame_times()
        return Playable(path, times, float(times[-1]) + 1 / movie.rate, copied=True)
    seen: list[float] = []

    def note(seconds: float) -> None:
        seen.append(seconds)
        progress(seconds)

    code_whole(movie, path, note)
    return Playable(path, np.array(seen), seen[-1] + 1 / movie.rate, copied=False)
