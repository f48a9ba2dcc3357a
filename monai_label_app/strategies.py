"""Which image a doctor should look at next, so that the network learns most from it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.interfaces.tasks.strategy import Strategy
from numpy.typing import NDArray
from scipy.stats import entropy

from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.files import read_dicom
from monai_label_app.frames import frames
from monai_label_app.pacs import PacsError

NEW_LOOKS = 50
"""Images at most that are looked at for the first time when a strategy is asked; drawn at random, seeded."""

FRAMES = 8
"""Frames at most of each, evenly spread."""


class _Looking(Strategy):
    """A strategy that looks at images by the model; what was seen is kept until another model is active."""

    def __init__(self, model: str | None, description: str) -> None:
        super().__init__(description)
        self._model = model
        self._by = ""
        self._kept: dict[str, NDArray[np.float64]] = {}

    def _look(self, classifier: Classifier, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        raise NotImplementedError

    def _seen(self, images: Sequence[str], datastore: Datastore) -> dict[str, NDArray[np.float64]]:
        """Image → what was seen, (frames, …), of all that were looked at before and of some new ones."""
        classifier = open_classifier(self._model)
        if self._by != classifier.fingerprint:
            self._by, self._kept = classifier.fingerprint, {}
        new = sorted(set(images) - set(self._kept))
        for image in random.Random(0).sample(new, min(NEW_LOOKS, len(new))):
            looks = [self._look(classifier, frame) for frame in _frames(image, datastore)]
            self._kept[image] = np.array(looks)
        return {image: self._kept[image] for image in images if len(self._kept.get(image, ()))}


class Uncertainty(_Looking):
    """The image of which the model is least sure: that whose most doubtful frame has the highest entropy."""

    def __init__(self, model: str | None) -> None:
        super().__init__(model, "The image of which the model is least sure")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """``id``, and its ``entropy`` as a share of the highest possible, 0 to 1; None where all have a label."""
        seen = self._seen(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")), datastore)
        doubts = {image: float(looks.max()) for image, looks in seen.items()}
        if not doubts:
            return None
        image = max(doubts, key=lambda one: (doubts[one], one))
        return {"id": image, "entropy": doubts[image], "looked_at": len(doubts)}

    def _look(self, classifier: Classifier, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        chances = classifier.scores([frame])[0].double().softmax(0).numpy()
        return np.array(entropy(chances) / np.log(len(chances)))


class Diversity(_Looking):
    """The image that is least like any with a label: the farthest, in the mean output of the target layer.

    Source: the greedy step of k-center, Sener and Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018.
    """

    def __init__(self, model: str | None) -> None:
        super().__init__(model, "The image that is least like any that has a label")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """``id``, and its ``distance`` from the nearest labelled image, or from the mean of all where none has a label.

        Distances are 0 for two outputs of the same direction, to 2. None where all have a label.
        """
        open_ones = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        seen = self._seen(open_ones, datastore)
        if not seen:
            return None
        known = self._seen(datastore.get_labeled_images(request.get("label_tag"), request.get("labels")), datastore)
        every = np.concatenate(list(seen.values()))
        anchors = np.concatenate(list(known.values())) if known else every.mean(axis=0, keepdims=True)
        distances = {image: float((1 - looks @ anchors.T).min(axis=1).max()) for image, looks in seen.items()}
        image = max(distances, key=lambda one: (distances[one], one))
        return {"id": image, "distance": distances[image], "looked_at": len(distances)}

    def _look(self, classifier: Classifier, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen, _ = classifier.dissect([frame])
        mean = seen.activation(classifier.card.target_layer)[0].double().mean(dim=(1, 2)).cpu().numpy()
        length = float(np.linalg.norm(mean))
        return mean / length if length else mean


def _frames(image: str, datastore: Datastore) -> Iterator[NDArray[np.uint8]]:
    try:
        dataset = read_dicom(Path(datastore.get_image_uri(image)))
        count = int(dataset.get("NumberOfFrames") or 1)
        for number in np.linspace(1, count, min(count, FRAMES)).round().astype(int).tolist():
            yield next(frames(dataset, image, only=number)).pixels
    except (ValueError, PacsError, ImageNotFoundException):  # of which nothing can be said
        return
