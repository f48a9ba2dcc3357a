"""Frames under the doctor's eye: any layer, class and method, made when asked for and remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from explainers import METHODS, Dissection, Geometry, heatmap, regions
from explainers.cams import CAMS
from explainers.layers import unknown
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import UnreadableError, frames, require_size
from monai_label_app.library import Library
from monai_label_app.study import Instance
from monai_label_app.video.player import Player
from monai_label_app.web.cache import Cache, Made
from monai_label_app.web.evidence import Evidence
from monai_label_app.web.preparation import Picture

OPEN = 2
"""Frames that stay open in the network; with VGG-19 each holds 150 MB, for every view that is asked."""

MAPS = 256
"""Maps that stay in memory, those of all layers for a class as one: 0.6 MB with VGG-19."""

PICTURES = 16
"""Frames whose pixels stay in memory."""

GLANCES = 10_000
"""Frames whose prediction stays in memory."""

Maps = Mapping[str | None, NDArray[np.float32]]
"""Layer → map at the layer's size; None where the method knows no layer."""


@dataclass(frozen=True)
class Glance:
    """What the network takes a frame for.

    Attributes:
        probabilities: class → probability, 0 to 1, in the network's order.
        shares: artifact → share of the evidence for the predicted class that lies on it, 0 to 1.
        geometry: which part of the frame the network saw.
    """

    probabilities: Mapping[str, float]
    shares: Mapping[str, float]
    geometry: Geometry

    @property
    def predicted(self) -> str:
        """The class with the highest probability."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class OpenFrame:
    """A frame, and the network that was active when it was opened.

    Attributes:
        picture: its pixels.
        classifier: the network.
        glance: what the network takes it for.
    """

    picture: Picture
    classifier: Classifier
    glance: Glance
    _maps: Callable[[str, str, str], Maps]

    def saliency(self, method: str, layer: str, label: str) -> NDArray[np.float32]:
        """A map (H, W) at the size of the frame, on the method's own scale.

        Args:
            method: one of :data:`explainers.METHODS`.
            layer: one that the network has, where the method knows layers.
            label: the class, where the method knows classes.

        Raises:
            ValueError: no such method, layer or class.
        """
        for kind, name, known in (
            ("method", method, METHODS),
            ("layer", layer, self.classifier.layers),
            ("class", label, self.classifier.card.classes),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        made = self._maps(method, layer, label)
        return self.glance.geometry.to_source(made[layer if METHODS[method].of_layer else None])

    def look(self, method: str, layer: str, label: str, compared_with: str | None = None) -> NDArray[np.float32]:
        """A map (H, W), 0 to 1 of what is shown in full colour; for the rest, as :meth:`saliency`.

        Args:
            method, layer, label: as there.
            compared_with: another class, whose map shares the scale, so that the two can be compared.
        """
        saliency = self.saliency(method, layer, label)
        shared = [saliency] if compared_with is None else [saliency, self.saliency(method, layer, compared_with)]
        return heatmap.normalise(saliency, heatmap.peak(np.stack(shared), METHODS[method].percentile))

    def evidence(self, layer: str, label: str) -> Evidence:
        """What a class is read from in a layer, by its Grad-CAM; raises as :meth:`saliency`."""
        saliency = self.saliency("grad-cam", layer, label)
        height, width = saliency.shape
        return Evidence(
            layer,
            label,
            label == self.glance.predicted,
            self.glance.probabilities[label],
            regions(saliency),
            self.picture.shares(saliency),
            width,
            height,
        )


class Explorer:
    """Opens frames of a library. Safe for several threads; what is gone from the library is not shown from memory.

    Args:
        library: the studies.
        player: opens its videos.
        classifier: loads the network; asked at each use.
    """

    def __init__(self, library: Library, player: Player, classifier: Callable[[], Classifier]) -> None:
        self._library = library
        self._player = player
        self._classifier = classifier
        self._datasets: Cache[Dataset] = Cache(1)
        self._pictures: Cache[Picture] = Cache(PICTURES)
        self._glances: Cache[Glance] = Cache(GLANCES)
        self._maps: Cache[Maps] = Cache(MAPS)
        self._dissections: Cache[Dissection] = Cache(OPEN)
        # A network runs on all cores as it is, and so no more than OPEN frames and one glance are ever held.
        self._network = threading.Lock()

    @property
    def classifier(self) -> Classifier:
        """The one that is active now."""
        return self._classifier()

    def instance(self, uid: str, number: int = 1) -> Instance:
        """The image of a SOP Instance UID.

        Args:
            uid: of the image.
            number: of a frame that it must have, from 1.

        Raises:
            LookupError: there is no such image or frame.
            UnreadableError: it cannot be analysed.
            PacsError: the PACS cannot be asked.
        """
        found = self._library.instance(uid)
        if found.refusal is not None:
            raise UnreadableError(f"{uid} {found.refusal}")
        if not 1 <= number <= found.frame_count:
            raise LookupError(number)
        return found

    def find(self, uid: str, number: int) -> Callable[[], Picture]:
        """What decodes a frame of an image or of a video, of which it is known that there is one.

        Raises:
            PreparingError: the video is not ready yet; else as :meth:`instance`.
        """
        found = self._library.instance(uid)
        if not (found.streamed and found.plays):
            return partial(self._decode, self.instance(uid, number), uid, number)
        screening = self._player.open(uid)
        screening.require(number)
        return lambda: Picture(require_size(screening.frame(number), uid))

    def picture(self, uid: str, number: int) -> Picture:
        """A frame's pixels; raises as :meth:`find`."""
        return self._pictures.get((uid, number), self.find(uid, number))

    def open(self, uid: str, number: int) -> OpenFrame:
        """A frame to look into, of which no more than a glance is made yet; raises as :meth:`find`."""
        used, picture = self.classifier, self.picture(uid, number)
        glance = self._glance(used, picture, uid, number)
        return OpenFrame(picture, used, glance, partial(self._look, used, picture, uid, number))

    def _decode(self, instance: Instance, uid: str, number: int) -> Picture:
        # A file of many frames is not read again for each.
        several = instance.frame_count > 1
        dataset = self._datasets.get(uid, instance.read) if several else instance.read()
        return Picture(require_size(next(frames(dataset, uid, number)).pixels, uid))

    def _glance(self, used: Classifier, picture: Picture, uid: str, number: int) -> Glance:
        def make() -> Glance:
            seen, (geometry,) = used.dissect([picture.pixels])
            chances = seen.probabilities[0].tolist()
            ((_, _, saliency),) = seen.maps("grad-cam", used.card.target_layer, int(np.argmax(chances)))
            named = dict(zip(used.card.classes, chances, strict=True))
            return Glance(named, picture.shares(geometry.to_source(saliency[0])), geometry)

        return self._glances.get((used.fingerprint, uid, number), partial(self._alone, make))

    def _look(self, used: Classifier, picture: Picture, uid: str, number: int, method: str, *chosen: str) -> Maps:
        chosen_method, (layer, label) = METHODS[method], chosen
        # One backward pass makes the class activation maps of all layers.
        layers = None if method in CAMS or not chosen_method.of_layer else layer
        labels = label if chosen_method.of_class else None
        key = used.fingerprint, uid, number

        def make() -> Maps:
            seen = self._dissections.get(key, lambda: used.dissect([picture.pixels], used.layers)[0])
            made = seen.maps(method, layers, used.card.classes.index(label))
            return {name: saliency[0].numpy(force=True) for name, _, saliency in made}

        return self._maps.get((*key, method, layers, labels), partial(self._alone, make))

    def _alone(self, make: Callable[[], Made]) -> Made:
        # What `make` opened is let go of when it returns, before the next one may open a frame.
        with self._network:
            return make()
