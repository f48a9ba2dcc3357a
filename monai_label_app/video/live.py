"""A running examination: the picture as it comes, and beside it what the network sees, as soon as it is known.

The picture and the analysis never wait for each other: each takes the newest frame there is, and the others are
dropped. When the analysis fails the picture goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from explainers import METHODS, heatmap
from monai_label_app import journal
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import UnreadableError, in_one_line, without_login
from monai_label_app.pictures import write_own
from monai_label_app.video.decode import Decoded
from monai_label_app.video.quality import CLEAR, look
from monai_label_app.video.segments import LEAST, SEEN
from report.findings import as_reported

FINDINGS = "findings.jsonl"
"""What was seen, a line each, in the folder of a recording."""

_SHORT_SIDE = 480
"""Of the picture that is shown, in pixels, at most."""

_PATIENCE = 10.0
"""Seconds after which an address or a device that sends nothing is given up."""

_AGAIN = 2.0
"""Seconds after which one that was lost is tried again."""


@dataclass(frozen=True)
class Shown:
    """A frame (H, W, 3) uint8, its number from 1, and when it came, in seconds of the machine's clock."""

    number: int
    arrived: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What the network saw.

    Attributes:
        of: the frame.
        overlay: the map over it, (H, W, 3) uint8; the frame itself where nothing is seen.
        label, probability: the class; empty and 0 where the frame shows nothing.
        problem: why there is no answer, in a sentence; empty if there is one.
    """

    of: Shown
    overlay: NDArray[np.uint8]
    label: str = ""
    probability: float = 0.0
    problem: str = ""


class Live:
    """A source that is shown and analysed as it comes, until it ends or :meth:`close`.

    An examination goes on when its cable or network does: a device, or an address that is not of a file (HTTP), is
    tried again whenever it is lost.

    Args:
        source: a file, which is played at its own speed, an address (RTSP and others), or a capture device.
        classifier: the network.
        folder: gets a line and two pictures, frame and map, of every finding; None to keep nothing.

    Attributes:
        newest: the last frame that came.
        seen: the last that was analysed.
        problem: why no frames come, in a sentence; empty if they do, or the source came to its end.

    Raises:
        UnreadableError: the source cannot be opened.
    """

    def __init__(self, source: str, classifier: Classifier, folder: Path | None = None) -> None:
        self._classifier, self._folder = classifier, folder
        self._source, self._container = source, _opened(source)
        self._paced = Path(source).is_file()
        self._lasting = not (self._paced or source.startswith(("http:", "https:")))
        self.newest: Shown | None = None
        self.seen: Seen | None = None
        self.problem = ""
        self._came = threading.Condition()
        self._ended = threading.Event()
        self._labels: list[str] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._analyse)]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """No more frames come."""
        return self._ended.is_set()

    def close(self) -> None:
        """End it, and wait for what is under way."""
        self._ended.set()
        with self._came:
            self._came.notify_all()
        for thread in self._threads:
            thread.join()

    def _receive(self) -> None:
        try:
            for number, frame in enumerate(self._frames(), start=1):
                pixels = Decoded(frame).pixels(_SHORT_SIDE)
                with self._came:
                    self.newest, self.problem = Shown(number, time.monotonic(), pixels), ""
                    self._came.notify_all()
                if self._ended.is_set():
                    break
        finally:
            self._ended.set()
            with self._came:
                self._came.notify_all()
            self._container.close()

    def _frames(self) -> Iterator[av.VideoFrame]:
        """Every frame, also of a source that was lost and is there again."""
        while True:
            reason = ""
            try:
                yield from self._frames_when_due()
            except (av.FFmpegError, OSError, ValueError) as error:
                reason = _reason(error)
            if not self._lasting:
                if reason or self.newest is not None:
                    self.problem = f"the source ended: {reason}" if reason else ""
                return
            self.problem = f"the source was lost{reason and f': {reason}'}; it is tried again"
            if not self._opened_again():
                return

    def _opened_again(self) -> bool:
        """Wait for a source that was lost; False where the end came first."""
        self._container.close()
        while not self._ended.wait(_AGAIN):
            with suppress(UnreadableError):
                self._container = _opened(self._source)
                return True
        return False

    def _frames_when_due(self) -> Iterator[av.VideoFrame]:
        """Every frame, when it is due; of a file those for which it is too late are passed over."""
        start: float | None = None
        for frame in self._whole_frames():
            if self._paced and frame.time is not None:
                start = time.monotonic() - frame.time if start is None else start
                ahead = start + frame.time - time.monotonic()
                if ahead < -0.5:
                    continue
                self._ended.wait(max(0.0, ahead))
            yield frame

    def _whole_frames(self) -> Iterator[av.VideoFrame]:
        """Every frame but those that are damaged, which a cable or a network makes of some."""
        for packet in self._container.demux(video=0):
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                self.problem = f"a frame cannot be shown: {_reason(error)}"

    def _analyse(self) -> None:
        shown: Shown | None = None
        while shown := self._after(shown):
            try:
                self.seen = self._look(shown)
                self._record(self.seen)
            except Exception as error:  # whatever it is, the picture must go on
                self.seen = Seen(shown, shown.pixels, problem=f"the analysis failed: {in_one_line(error)}")

    def _after(self, last: Shown | None) -> Shown | None:
        """The newest frame, once it is another than the last; None if no more come."""
        with self._came:
            self._came.wait_for(lambda: self._ended.is_set() or self.newest is not last)
            return None if self.newest is last else self.newest

    def _look(self, shown: Shown) -> Seen:
        if look(shown.pixels).quality != CLEAR:
            return Seen(shown, shown.pixels)
        card = self._classifier.card
        dissection, (geometry,) = self._classifier.dissect([shown.pixels])
        chances = dissection.probabilities[0]
        top = int(chances.argmax())
        values = METHODS["grad-cam"].look(dissection, card.target_layer, [top])[0].cpu().numpy()
        overlay = heatmap.overlay(shown.pixels, heatmap.normalise(geometry.to_source(values)))
        return Seen(shown, overlay, card.classes[top], float(chances[top]))

    def _record(self, seen: Seen) -> None:
        """Keep a class that is seen for as long as a segment needs, once until another is seen."""
        self._labels = [*self._labels[-LEAST:], seen.label if seen.probability >= SEEN else ""]
        begins = self._labels[-LEAST:] == [seen.label] * LEAST and self._labels[:-LEAST] != [seen.label]
        if self._folder is None or not seen.label or not begins:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # The same folder may hold what was found before.
        moment = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{seen.of.number:08d}"
        names = {kind: f"{moment}-{kind}.png" for kind in ("frame", "map")}
        for kind, pixels in (("frame", seen.of.pixels), ("map", seen.overlay)):
            write_own(pixels, self._folder / names[kind])
        journal.append(
            self._folder / FINDINGS,
            {"class": seen.label, "probability": as_reported(seen.probability), "number": seen.of.number, **names},
        )


def _opened(source: str) -> av.container.InputContainer:
    device = "v4l2" if source.startswith("/dev/") else None
    try:
        container = av.open(source, "r", format=device, timeout=_PATIENCE)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableError(f"{without_login(source)} cannot be watched: {_reason(error)}") from None
    if not container.streams.video:
        container.close()
        raise UnreadableError(f"{without_login(source)} has no picture")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _reason(error: Exception) -> str:
    """What went wrong, without the address, which may hold a password."""
    return getattr(error, "strerror", None) or in_one_line(error)
