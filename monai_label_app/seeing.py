"""What the network sees in a picture: a class, and where the evidence for it lies.

Every picture is looked at alone, by a thread that computes alone, several pictures at a time: the last digits of what a
network puts out depend on what else it is given, and by how many threads. So a frame's results are the same whether its
study is analysed or it alone is asked for, on however many cores; and cores that do not wait for one another do more.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock, Thread

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset

from explainers import METHODS, Geometry, Region, heatmap, regions
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, frames, require_size
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, LAYER_WALK, HeatmapSeries

_MOST = 16
"""Pictures that are looked at a time: with VGG-19 each takes a tenth of a gigabyte."""

_starting = Lock()

_KEYS = {GRAD_CAM: "grad-cam", GUIDED_GRAD_CAM: "guided-grad-cam"}


@dataclass(frozen=True)
class Heatmap:
    """A map of the predicted class, (H, W) at source size, 0 to 1 of its own maximum, and its series."""

    method: str
    layer: str
    series: HeatmapSeries
    saliency: NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What the network saw in one frame.

    Attributes:
        predicted: the class with the highest probability.
        probabilities: class → probability, 0 to 1, summing to 1.
        heatmaps: the first is the Grad-CAM of the card's target layer.
        regions: of that map, the largest first; none where the map is zero.
    """

    predicted: str
    probabilities: dict[str, float]
    heatmaps: tuple[Heatmap, ...]
    regions: list[Region]

    @property
    def saliency(self) -> NDArray[np.float32]:
        """The map that the regions were cut from."""
        return self.heatmaps[0].saliency


@dataclass(frozen=True)
class Look:
    """What the network put out for a frame: a probability a class, the maps at the network's size, and the way back."""

    probabilities: list[float]
    maps: list[Heatmap]
    geometry: Geometry

    def seen(self, classes: Sequence[str]) -> Seen:
        """The same at the frame's size, and the regions."""
        heatmaps = tuple(replace(one, saliency=self._to_source(one)) for one in self.maps)
        named = dict(zip(classes, self.probabilities, strict=True))
        return Seen(max(named, key=named.__getitem__), named, heatmaps, regions(heatmaps[0].saliency))

    def _to_source(self, one: Heatmap) -> NDArray[np.float32]:
        saliency = self.geometry.to_source(one.saliency)
        return heatmap.normalise(saliency, heatmap.peak(saliency, METHODS[_KEYS[one.method]].percentile))


def see(dataset: Dataset, origin: str, classifier: Classifier, number: int) -> tuple[Frame, Seen]:
    """Predict and explain the frame of an image, counted from 1.

    Raises:
        UnreadableError: its pixels cannot be used, it is too small, or there is no such frame.
    """
    (frame,) = frames(dataset, origin, number)
    looked = look(require_size(frame.pixels, origin), classifier)
    return frame, looked.result().seen(classifier.card.classes)


def at_once(classifier: Classifier) -> int:
    """How many pictures are looked at a time."""
    return 1 if classifier.device.type == "cuda" else min(torch.get_num_threads(), _MOST)


def look(
    picture: NDArray[np.uint8], classifier: Classifier, guided: bool = False, layer_walk: bool = False
) -> Future[Look]:
    """Run the network on a picture (H, W, 3) of any size, as soon as a thread is free.

    Args:
        picture: RGB.
        classifier: the network.
        guided: guided Grad-CAM too.
        layer_walk: Grad-CAM of the last layer of each size too.
    """
    return _threads(at_once(classifier)).submit(_look, picture, classifier, guided, layer_walk)


def _look(picture: NDArray[np.uint8], classifier: Classifier, guided: bool, layer_walk: bool) -> Look:
    card = classifier.card
    walked = classifier.stages if layer_walk else []
    wanted = [(GRAD_CAM, card.target_layer, HEATMAPS)]
    wanted += [(GUIDED_GRAD_CAM, card.target_layer, GUIDED_HEATMAPS)] if guided else []
    wanted += [(GRAD_CAM, layer, LAYER_WALK) for layer in walked]
    dissection, (geometry,) = classifier.dissect([picture], list(dict.fromkeys([card.target_layer, *walked])))
    (probabilities,) = dissection.probabilities.tolist()
    top = int(np.argmax(probabilities))
    maps = [METHODS[_KEYS[what]].look(dissection, layer, top)[0].cpu().numpy() for what, layer, _ in wanted]
    return Look(probabilities, [Heatmap(*what, one) for what, one in zip(wanted, maps, strict=True)], geometry)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "network", initializer=compute_alone)


def compute_alone() -> None:
    """Give this thread one core, and leave the others theirs: torch gives what a thread sets to all that come after."""
    with _starting:
        others = torch.get_num_threads()
        torch.set_num_threads(1)
        resetting = Thread(target=torch.set_num_threads, args=(others,))
        resetting.start()
        resetting.join()
