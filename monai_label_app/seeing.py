"""What the network sees in pictures: a class, and where the evidence for it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from explainers import METHODS, Geometry, Region, heatmap, regions
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, frames, require_size
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, LAYER_WALK, HeatmapSeries

BATCH = 8
"""Frames of an image that the network looks at in one go: it takes two thirds of the time that each would alone."""

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


def see(dataset: Dataset, origin: str, classifier: Classifier, only: int | None = None) -> Iterator[tuple[Frame, Seen]]:
    """Predict and explain every frame of an image, or ``only`` this one, a batch at a time.

    Raises:
        UnreadableError: its pixels cannot be used, or it is too small.
    """
    remaining = frames(dataset, origin, only)
    while batch := list(islice(remaining, BATCH)):
        looks = look([require_size(frame.pixels, origin) for frame in batch], classifier)
        yield from ((frame, one.seen(classifier.card.classes)) for frame, one in zip(batch, looks, strict=True))


def look(
    pictures: Sequence[NDArray[np.uint8]], classifier: Classifier, guided: bool = False, layer_walk: bool = False
) -> list[Look]:
    """Run the network on pictures (H, W, 3) of any size, as one batch.

    Args:
        pictures: RGB.
        classifier: the network.
        guided: guided Grad-CAM too.
        layer_walk: Grad-CAM of the last layer of each size too.
    """
    card = classifier.card
    walked = classifier.stages if layer_walk else []
    wanted = [(GRAD_CAM, card.target_layer, HEATMAPS)]
    wanted += [(GUIDED_GRAD_CAM, card.target_layer, GUIDED_HEATMAPS)] if guided else []
    wanted += [(GRAD_CAM, layer, LAYER_WALK) for layer in walked]
    dissection, geometries = classifier.dissect(pictures, list(dict.fromkeys([card.target_layer, *walked])))
    probabilities = dissection.probabilities
    top = probabilities.argmax(dim=1).tolist()
    made = [METHODS[_KEYS[method]].look(dissection, layer, top).cpu().numpy() for method, layer, _ in wanted]
    return [
        Look(one, [Heatmap(*what, maps[index]) for what, maps in zip(wanted, made, strict=True)], geometry)
        for index, (one, geometry) in enumerate(zip(probabilities.tolist(), geometries, strict=True))
    ]
