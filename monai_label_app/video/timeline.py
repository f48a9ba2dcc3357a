"""What was seen when, as a page: a plot of each video, and its segments with still, map and clip."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.page import write_page
from monai_label_app.frames import frames
from monai_label_app.pictures import write_plot
from monai_label_app.results import StudyResult
from monai_label_app.study import Instance
from monai_label_app.video.clips import Clip
from monai_label_app.video.quality import LEFT_OUT
from monai_label_app.video.sampling import Samples
from report.findings import Segment
from report.language import ENGLISH

_COLUMNS = 1200
"""Of a plot, at most; a column shows the highest probability of its samples, so that none is lost."""

_THUMBNAIL = 200
"""Pixels of the longer side of a picture on the page."""

_SHADES = dict(zip(LEFT_OUT, ("#1b1f27", "#2f6fb5", "#b58a2f", "#8d96a5"), strict=True))


@dataclass(frozen=True)
class Part:
    """A segment of a video, its clip, the header of what shows it in DICOM, and its still to be analysed, if any."""

    segment: Segment
    clip: Clip
    video: Dataset
    still: Instance | None = None


@dataclass(frozen=True)
class Watched:
    """A video as the user knows it, its samples and its segments."""

    origin: str
    samples: Samples
    parts: tuple[Part, ...]


def write_timeline(watched: Sequence[Watched], result: StudyResult, classifier: Classifier, path: Path) -> None:
    """Write the page of a study's videos; the analysis of their stills is in ``result``. Clips lie beside the page."""
    pictures = {line.sop_instance_uid: _pictures(line.outputs) for line in result.frames}
    videos = [
        {
            "name": Path(one.origin).name,
            "samples": one.samples,
            "plot": _plot(one, classifier.card.classes),
            "parts": [(part.segment, part.clip, pictures.get(part.segment.still, {})) for part in one.parts],
        }
        for one in watched
    ]
    write_page(
        "video/timeline.html",
        path,
        videos=videos,
        model=classifier.card,
        version=classifier.version,
        problems=result.problems,
        folder=path.parent,
        percent=ENGLISH.percent,
    )


def _pictures(outputs: Sequence[str]) -> dict[str, str]:
    """The still and its map as addresses that hold them whole."""
    made: dict[str, str] = {}
    for output in map(Path, outputs):
        if output.parent.name in ("stills", "heatmaps"):
            made.setdefault(output.parent.name, _address(next(frames(dcmread(output), output.name)).pixels))
    return made


def _address(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _plot(one: Watched, classes: Sequence[str]) -> str:
    """Probabilities over time, a row a class, with the segments on them, and below what was left out."""
    samples, count = one.samples, len(classes)
    step = max(1, -(-len(samples) // _COLUMNS))
    starts = np.arange(0, len(samples), step)
    shown = np.maximum.reduceat(np.nan_to_num(samples.probabilities), starts, axis=0)
    end = max(samples.duration, 0.1)
    figure = Figure(figsize=(12, 1.4 + 0.32 * count), layout="constrained")
    panel, below = figure.subplots(2, 1, sharex=True, height_ratios=(count, 1.2))
    panel.imshow(shown.T, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=(0, end, count - 0.5, -0.5))
    for part in one.parts:
        row, segment = classes.index(part.segment.label), part.segment
        panel.broken_barh([(segment.start, segment.end - segment.start)], (row + 0.25, 0.2), color="#c0392b")
        if part.still:
            panel.plot(segment.time, row - 0.2, "v", color="#c0392b", markersize=5)
    panel.set_yticks(range(count), classes)
    for reason, shade in _SHADES.items():
        left = np.add.reduceat(samples.quality == reason, starts) / step
        below.bar(samples.times[starts], left, width=end / len(starts), align="edge", color=shade, label=reason)
    below.set(xlabel="seconds", yticks=[], ylim=(0, 1), xlim=(0, end))
    below.set_ylabel("left out", rotation=0, ha="right", va="center")
    below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9), ncols=len(_SHADES), frameon=False)
    return _png(figure)


def _png(figure: Any) -> str:
    stream = io.BytesIO()
    write_plot(figure, stream)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
