"""The videos of a library as a browser plays them: each made once, kept as a file while the server runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from monai_label_app.folder import temporary
from monai_label_app.frames import UnreadableError, in_one_line
from monai_label_app.library import Library
from monai_label_app.study import Instance
from monai_label_app.video.decode import TICK, Movie
from monai_label_app.video.dicom_video import open_dicom
from monai_label_app.video.playable import Playable, make_playable
from monai_label_app.video.recording import Recording
from report.attributes import CONVERTER
from report.endoscopic_video import video_still

KEPT = 8
"""Videos whose files are kept, the ones that were asked for last."""

PATIENCE = 5.0
"""Seconds that are waited for a video, which is enough unless it is long or has to be coded anew."""

_WORKERS = 2
"""Videos that are made at once: a long one that is coded anew holds up no other."""


class PreparingError(Exception):
    """A video is not ready yet; the message is one sentence that says how far it is."""


@dataclass(frozen=True)
class Screening:
    """A video that plays, and whose frames can be had as they are in the original."""

    playable: Playable
    _open: Callable[[], Recording]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """One frame, counted from 1: RGB, (H, W, 3) uint8, upright.

        Raises:
            LookupError: there is no such frame.
            UnreadableError: it cannot be decoded.
        """
        return self._decode(self._open().movie, number)

    def still(self, number: int, place: int) -> Dataset:
        """One frame as a VL Endoscopic Image, the same one that an analysis makes of it; raises as :meth:`frame`.

        Args:
            number: of the frame, from 1.
            place: number in the series.
        """
        recording = self._open()
        pixels, time = self._decode(recording.movie, number), float(self.playable.times[number - 1])
        sources = [(recording.header, number)]
        made = video_still(recording.header, pixels, number, time, recording.coding, place, sources)
        made.InstanceCreatorUID = CONVERTER
        return made

    def _decode(self, movie: Movie, number: int) -> NDArray[np.uint8]:
        time = float(self.playable.times[self.require(number) - 1])
        shot = next(movie.shots(time, number), None)
        if shot is None or abs(shot.time - time) > TICK:
            raise UnreadableError(f"{movie.origin} has no frame at {time:.3f} s that can be decoded")
        return shot.picture.pixels()

    def require(self, number: int) -> int:
        """The number of a frame that there is; LookupError of another."""
        if not 1 <= number <= len(self.playable.times):
            raise LookupError(number)
        return number


@dataclass
class _Preparation:
    path: Path
    done: float = 0.0
    result: Future[Screening] = field(default_factory=Future)


class Player:
    """Makes videos ready. Safe for several threads.

    Args:
        library: of the videos, recordings and clips.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._ending = ExitStack()
        self._folder = self._ending.enter_context(temporary())
        self._known: OrderedDict[str, _Preparation] = OrderedDict()
        self._workers = ThreadPoolExecutor(_WORKERS, "player")
        self._closed = threading.Event()

    def open(self, uid: str, patience: float = PATIENCE) -> Screening:
        """The video of a SOP Instance UID.

        Args:
            uid: of a recording or a clip.
            patience: seconds that are waited for it.

        Raises:
            LookupError: there is no such object.
            UnreadableError: it is no video, or none that can be decoded.
            PreparingError: it is not ready yet, and is being made.
            PacsError: the PACS cannot be asked.
        """
        instance = self._library.instance(uid)
        if not instance.plays:
            raise UnreadableError(f"{uid} is no video")
        with self._lock:
            if uid not in self._known:
                made = _Preparation(self._folder / f"{uid}.mp4")
                made.result = self._workers.submit(self._prepare, instance, made)
                self._known[uid] = made
            preparation = self._known[uid]
            self._known.move_to_end(uid)
            self._forget()
        wait([preparation.result], patience)
        if not preparation.result.done():
            raise PreparingError(f"The video is being made ready for the browser: {preparation.done:.0%} are done.")
        if preparation.result.exception():
            with self._lock:  # another time it may go well
                if self._known.get(uid) is preparation:
                    del self._known[uid]
        return preparation.result.result()

    def close(self) -> None:
        """Give up what is being made, and remove the files."""
        self._closed.set()
        self._workers.shutdown(cancel_futures=True)
        self._ending.close()

    def _forget(self) -> None:
        ready = [uid for uid, one in self._known.items() if one.result.done()]
        for uid in ready[: max(0, len(self._known) - KEPT)]:
            for suffix in (".mp4", ".dcm"):
                self._known[uid].path.with_suffix(suffix).unlink(missing_ok=True)
            del self._known[uid]

    def _prepare(self, instance: Instance, preparation: _Preparation) -> Screening:
        place = instance.file(preparation.path.parent)
        opened = partial(_open, instance, place)
        movie = opened().movie

        def progress(seconds: float) -> None:
            if self._closed.is_set():
                raise UnreadableError(f"{movie.origin} is not shown: the server ends")
            preparation.done = min(1.0, seconds / movie.duration) if movie.duration else 0.0

        try:
            playable = make_playable(movie, preparation.path, progress)
        except (OSError, av.FFmpegError) as error:
            preparation.path.unlink(missing_ok=True)
            reason = in_one_line(error)
            raise UnreadableError(f"{movie.origin} cannot be made ready for a browser: {reason}") from error
        return Screening(playable, opened)


def _open(instance: Instance, place: Path) -> Recording:
    # Where a file lies on the server is nobody's business.
    uid = str(instance.header.SOPInstanceUID)
    movie = open_dicom(uid, instance.header, place, instance.streamed)
    return Recording(movie, instance.header, stored=True, size=place.stat().st_size)
