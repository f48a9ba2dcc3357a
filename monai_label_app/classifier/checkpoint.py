"""Checkpoints: a safetensors file whose header carries a JSON card that says what the network is."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from explainers.layers import convolutions
from explainers.views import shown
from monai_label_app.classifier.artifacts import VARIANTS
from monai_label_app.classifier.network import KVASIR_CLASSES, TEST_VIEWS, Width, build
from monai_label_app.folder import whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ASIDE, _LEARNED = "kept_aside", "learned"


@dataclass(frozen=True)
class Card:
    """What a reader must know of a checkpoint before trusting a word of it.

    ``version`` is the author's; :class:`Classifier` adds a fingerprint of the weights to it. ``notice`` is shown
    wherever a result is shown. ``preprocess`` names the variant that the network was trained with.
    ``test_views`` is of how many views of a frame its answer is the mean, see :func:`.network.in_views`.
    ``temperature`` is what its scores were divided by for calibration, which its weights hold already; 1 where they
    are as they were trained.
    """

    name: str
    version: str
    architecture: str = "vgg19"
    width: Width = 1.0
    classes: tuple[str, ...] = KVASIR_CLASSES
    input_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    preprocess: str = "none"
    test_views: int = 1
    temperature: float = 1.0
    target_layer: str = "block5_conv4"
    training_data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    notice: str = ""

    def __post_init__(self) -> None:
        """Refuse values that would fail late or be shown wrongly: ValueError or TypeError names the field."""
        for name in ("name", "version", "architecture", "preprocess", "target_layer", "training_data", "notice"):
            _check_text(name, getattr(self, name))
        for label in self.classes:
            _check_text("classes", label)
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("classes must be distinct and not empty")
        for label in self.classes:
            if label != label.strip():  # which DICOM would not keep
                raise ValueError(f"classes {label!r} begins or ends with a blank")
        if not self.name or not self.version:
            raise ValueError("name and version must not be empty")
        if self.preprocess not in VARIANTS:
            raise ValueError(f"preprocess {self.preprocess!r} is none of {', '.join(VARIANTS)}")
        if not (isinstance(self.input_size, int) and 32 <= self.input_size <= 4096):
            raise ValueError(f"input_size {self.input_size!r} is not a number of pixels from 32 to 4096")
        if type(self.test_views) is not int or not 1 <= self.test_views <= len(TEST_VIEWS):
            raise ValueError(f"test_views {self.test_views!r} is not a whole number from 1 to {len(TEST_VIEWS)}")
        widths = self.width if isinstance(self.width, tuple) else (self.width,)
        if not (widths and all(isinstance(factor, int | float) and 0 < factor <= 4 for factor in widths)):
            raise ValueError(f"width {self.width!r} is not a factor from 0 to 4, or several")
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < math.inf):
            raise ValueError(f"temperature {self.temperature!r} is not a number above 0")
        for name, low in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(v, int | float) and low < v < math.inf for v in values):
                raise ValueError(f"{name} {values!r} is not three numbers" + (" above 0" if low == 0 else ""))


def _check_text(name: str, value: object) -> None:
    # Backslash and control characters have a meaning of their own in DICOM.
    if not isinstance(value, str) or re.search(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]", value):
        raise ValueError(f"{name} {value!r} is not a line of text without backslashes")


class CheckpointError(ValueError):
    """A file that is no checkpoint of ours, or one that does not fit its own card."""


def save(
    path: Path,
    network: nn.Module,
    card: Card,
    half: bool = False,
    aside: Collection[str] = (),
    learned: Collection[str] = (),
) -> None:
    """Write a network and its card to one safetensors file, in one step.

    Args:
        path: of the file.
        network: whose weights are written.
        card: what it is.
        half: in numbers of 16 bits.
        aside: what it was not trained on though it was at hand, see :func:`kept_aside`.
        learned: what it was trained on, see :func:`learned_from`.
    """
    tensors = {name: tensor.contiguous() for name, tensor in shown(network).state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    with whole(path) as partial:
        pictures = {key: sorted(known) for key, known in ((_ASIDE, aside), (_LEARNED, learned)) if known}
        # Of several pieces of metadata the order would be another each time.
        metadata = {"card": json.dumps({**asdict(card), **pictures})}
        partial.write_bytes(serialise(tensors, metadata=metadata))


def kept_aside(path: Path) -> frozenset[str]:
    """The pictures that a checkpoint's training kept aside, by :meth:`.data.Example.content`; none where none is known.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return _pictures(path, _ASIDE)


def learned_from(path: Path) -> frozenset[str]:
    """The pictures that a checkpoint, and those that it went on from, learned; else as :func:`kept_aside`."""
    return _pictures(path, _LEARNED)


def _pictures(path: Path, key: str) -> frozenset[str]:
    try:
        with safe_open(path, framework="pt") as archive:
            return frozenset(json.loads((archive.metadata() or {}).get("card", "{}")).get(key, ()))
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def load(path: Path) -> tuple[nn.Module, Card, str]:
    """Read a checkpoint.

    Returns:
        The network in evaluation mode, its card, and the SHA-256 of the file as a hexadecimal string.

    Raises:
        CheckpointError: the file cannot be read, has no card, or its weights do not fit the card.
    """
    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if "card" not in metadata:
        raise CheckpointError(f"{path} has no model card; give bare weights by --weights")
    card = _parse(path, metadata["card"])
    try:
        network = build(card.architecture, card.classes, card.width)
        network.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its own card: {str(error).splitlines()[0]}") from error
    if card.target_layer not in convolutions(network):
        raise CheckpointError(f"{path} names a target layer {card.target_layer!r} that its network does not have")
    return network, card, hashlib.sha256(content).hexdigest()


def _parse(path: Path, text: str) -> Card:
    try:
        values: dict[str, Any] = json.loads(text)
        known = {f.name for f in fields(Card)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return Card(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has a model card that cannot be read: {error}") from error
