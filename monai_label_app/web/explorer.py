"""Frames under the doctor's eye: each is opened once, with every layer and class to look at."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from explainers import METHODS, Dissection, Geometry, heatmap, regions
from explainers.faithfulness import energy_in_mask
from explainers.layers import unknown
from monai_label_app.classifier.artifacts import find_artifacts, masks
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, UnreadableError, frames, require_size
from monai_label_app.library import Library
from monai_label_app.study import Instance
from monai_label_app.web.evidence import Evidence

OPEN = 4
"""Frames that stay open; each holds every layer's output twice, 150 MB with VGG-19."""

DECODED = 32
"""Frames whose pixels stay in memory."""

PREDICTED = 10_000
"""Frames whose probabilities stay in memory."""


@dataclass(frozen=True)
class Look:
    """A map at the size of the frame.

    Attributes:
        saliency: (H, W) float32, 0 to 1 of ``full``.
        full: the map's value that is shown in full colour, on the method's own scale.
    """

    saliency: NDArray[np.float32]
    full: float


@dataclass(frozen=True)
class OpenFrame:
    """A frame with the network opened on it."""

    frame: Frame
    classifier: Classifier
    dissection: Dissection
    geometry: Geometry

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes, in its order."""
        return tuple(self.classifier.card.classes)

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """Class → probability, 0 to 1."""
        return dict(zip(self.classes, self.dissection.probabilities[0].tolist(), strict=True))

    @cached_property
    def predicted(self) -> str:
        """The class with the highest probability."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @cached_property
    def artifacts(self) -> Mapping[str, NDArray[np.bool_]]:
        """Navigation box, cut-out and border of the frame, as masks (H, W); only what it carries."""
        return masks(self.frame.pixels, find_artifacts(self.frame.pixels))

    def look(self, method: str, layer: str, label: str, compared_with: str | None = None) -> Look:
        """A map of the frame.

        Args:
            method: one of :data:`explainers.METHODS`.
            layer: one that the network has.
            label: the class; no matter where the method knows none.
            compared_with: another class, whose map shares the scale, so that the two can be compared.

        Raises:
            ValueError: no such method, layer or class.
        """
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        saliency = self._map(method, layer, label)
        shared = saliency if compared_with is None else np.stack([saliency, self._map(method, layer, compared_with)])
        full = heatmap.peak(shared, METHODS[method].percentile)
        return Look(heatmap.normalise(saliency, full), full)

    def evidence(self, layer: str, label: str) -> Evidence:
        """What a class is read from in a layer, by its Grad-CAM; raises as :meth:`look`."""
        saliency = self._map("grad-cam", layer, label)
        shares = {name: energy_in_mask(saliency, mask) for name, mask in self.artifacts.items()}
        height, width = saliency.shape
        chance = self.probabilities[label]
        return Evidence(layer, label, label == self.predicted, chance, regions(saliency), shares, width, height)

    def _map(self, method: str, layer: str, label: str) -> NDArray[np.float32]:
        if layer not in self.dissection.layers:
            raise unknown("layer", layer, self.dissection.layers)
        if label not in self.classes:
            raise unknown("class", label, self.classes)
        made: Tensor = METHODS[method].look(self.dissection, layer, self.classes.index(label))
        return self.geometry.to_source(made[0].cpu())


class Explorer:
    """Opens frames of a library, and keeps the last ones open.

    Safe for several threads: what two ask at once is made once. What is gone from the library is not shown from memory.
    """

    def __init__(self, library: Library, classifier: Callable[[], Classifier]) -> None:
        self._library = library
        self._classifier = classifier
        self._opening, self._predicting = threading.Lock(), threading.Lock()

        @lru_cache(maxsize=DECODED)
        def decoded(uid: str, number: int) -> Frame:
            frame = next(frames(library.instance(uid).read(), uid, number))
            require_size(frame.pixels, uid)
            return frame

        @lru_cache(maxsize=OPEN)
        def opened(uid: str, number: int, fingerprint: str) -> OpenFrame:
            frame, used = decoded(uid, number), classifier()
            # Every layer may be asked for, and nothing is run before one is.
            dissection, (geometry,) = used.dissect([frame.pixels], used.layers)
            return OpenFrame(frame, used, dissection, geometry)

        @lru_cache(maxsize=PREDICTED)
        def predicted(uid: str, number: int, fingerprint: str) -> dict[str, float]:
            used = classifier()
            chances = used.scores([decoded(uid, number).pixels])[0].softmax(dim=0).tolist()
            return dict(zip(used.card.classes, chances, strict=True))

        self._decoded, self._opened, self._predicted = decoded, opened, predicted

    @property
    def classifier(self) -> Classifier:
        """The one that is active now."""
        return self._classifier()

    def instance(self, uid: str) -> Instance:
        """The image of this SOP Instance UID.

        Raises:
            LookupError: there is none.
            UnreadableError: it cannot be analysed.
            PacsError: the PACS cannot be asked.
        """
        found = self._library.instance(uid)
        if found.refusal is not None:
            raise UnreadableError(f"{uid} {found.refusal}")
        return found

    def frame(self, uid: str, number: int) -> Frame:
        """A frame's pixels; raises as :meth:`instance`."""
        self.instance(uid)
        with self._opening:
            return self._decoded(uid, number)

    def open(self, uid: str, number: int) -> OpenFrame:
        """A frame with the network opened on it; raises as :meth:`instance`."""
        self.instance(uid)
        with self._opening:
            return self._opened(uid, number, self.classifier.fingerprint)

    def predict(self, uid: str, number: int) -> dict[str, float]:
        """Class → probability of a frame, without opening it; raises as :meth:`instance`."""
        self.instance(uid)
        with self._predicting:
            return self._predicted(uid, number, self.classifier.fingerprint)
