"""Pictures in memory as a network's training sees them: random views, the same again for the same seed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose
from monai.utils.type_conversion import convert_to_tensor
from numpy.typing import NDArray
from skimage.draw import polygon2mask
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from monai_label_app.classifier.artifacts import BLACK, clean, find_artifacts
from monai_label_app.classifier.augmentation import views
from monai_label_app.classifier.data import Example, read_examples
from monai_label_app.classifier.precision import mixed_precision
from monai_label_app.classifier.prepare import square
from monai_label_app.console import Progress, silent
from monai_label_app.folder import whole
from monai_label_app.masks import read_mask
from monai_label_app.study import Problem


class TrainingSet:
    """Pictures, cleaned and resized.

    Attributes:
        examples: those that could be read.
        pixels: (N, 4, size, size) uint8: red, green, blue, and 255 where evidence may lie: on the object where the
            picture has a mask, else wherever it is not black.
        targets: (N,) indices of the classes.
        problems: what was left out.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        classes: Sequence[str],
        size: int,
        variant: str,
        masks: Mapping[str, Path],
        progress: Progress = silent,
    ) -> None:
        """Read the pictures.

        Args:
            examples: what is read.
            classes: of the network, in its order.
            size: of the network's input, in pixels.
            variant: what is taken away, one of :data:`monai_label_app.classifier.artifacts.VARIANTS`.
            masks: of objects, by the name of their picture without suffix; an example's own region comes first.
            progress: shows how far it is.

        Raises:
            ValueError: a mask cannot be read or is not of its picture's size.
        """
        self.problems: list[Problem] = []
        pictures, kept = [], []
        for example, frame in read_examples(progress(examples, len(examples), "Reading"), self.problems):
            shape, mask, shown = frame.shape[:2], masks.get(example.path.stem), None
            if example.region:
                shown = polygon2mask(shape, np.array(example.region)[:, ::-1])
            elif mask:
                shown = read_mask(mask, shape)
            squared = square(_with_allowed(frame, shown, variant), size)
            pictures.append((squared * 255).round().byte())
            kept.append(example)
        self.examples = tuple(kept)
        self.pixels = torch.stack(pictures)
        self.targets = torch.tensor([classes.index(example.label) for example in kept])


def _with_allowed(frame: NDArray[np.uint8], shown: NDArray[np.bool_] | None, variant: str) -> NDArray[np.uint8]:
    found = find_artifacts(frame)
    picture, (x0, y0, x1, y1) = clean(frame, found, variant)
    if shown is not None:
        allowed = shown[y0:y1, x0:x1]
    else:  # what was filled is no tissue
        blackened = clean(frame, found, "box+border")[0] if variant == "inpaint" else picture
        allowed = blackened.max(axis=2) > BLACK
    return np.dstack([picture, np.where(allowed, np.uint8(255), np.uint8(0))])


class Views(Dataset[tuple[Tensor, tuple[Tensor, Tensor]]]):
    """Random views of a training set: item (index, seed) is (image, (target, allowed)).

    The image (3, size, size) is normalised; allowed is (1, size, size), 0 or 1. Seed 0 is the picture as it is.
    """

    def __init__(self, pictures: TrainingSet, mean: Sequence[float], std: Sequence[float]) -> None:
        self._pictures = pictures
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        self._views: Compose = views()

    def target(self, index: int) -> Tensor:
        """The class of a picture."""
        return self._pictures.targets[index]

    def key(self, index: int) -> str:
        """Hexadecimal digits by which a picture, and no other, is known in any training set."""
        example = self._pictures.examples[index]
        named = repr((str(example.path), example.frame, example.region))
        return hashlib.sha256(named.encode()).hexdigest()

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The view."""
        index, seed = item
        pixels = self._pictures.pixels[index]
        image, allowed = pixels[:3].float() / 255, (pixels[3:] > 127).float()
        if seed:
            made = self._views.set_random_state(seed)({"image": image, "allowed": allowed})
            image, allowed = (convert_to_tensor(made[key], track_meta=False) for key in ("image", "allowed"))
        return (image.clamp(0, 1) - self._mean) / self._std, (self.target(index), allowed)


class Features(Dataset[tuple[Tensor, tuple[Tensor, Tensor]]]):
    """What frozen layers make of a few views of each picture, made once; its items are as those of :class:`Views`.

    Kept in a file a picture of half-precision numbers, (views, channels + 1, h, w) or (views, channels + 1), read in
    parts; the last channel is where evidence may lie. So a run that was interrupted goes on, and several share them.
    """

    def __init__(
        self, source: Views, frozen: nn.Module, indices: Iterable[int], count: int, folder: Path, progress: Progress
    ) -> None:
        """Make the files that are not there.

        Args:
            source: of the views.
            frozen: the layers.
            indices: of the pictures.
            count: of views of each; the first is the picture as it is.
            folder: of the files; may exist.
            progress: shows how far it is.

        Raises:
            ValueError: the disk has no room for it.
        """
        self._source, self._count = source, count
        self._files = {index: folder / f"{source.key(index)}-{count}.npy" for index in indices}
        folder.mkdir(exist_ok=True)
        missing = [index for index, path in self._files.items() if not path.is_file()]
        for index in progress(missing, len(missing), "Frozen layers"):
            content = self._make(frozen, index)
            if index == missing[0]:
                _require_room(folder, len(missing) * content.nbytes)
            with whole(self._files[index]) as partial, partial.open("wb") as file:
                np.save(file, content)

    def _make(self, frozen: nn.Module, index: int) -> NDArray[np.float16]:
        device, first = next(frozen.parameters()).device, int(self._source.key(index)[:8], 16) >> 1
        views = [self._source[index, view and first + view] for view in range(self._count)]
        with torch.inference_mode(), mixed_precision(device):
            made = frozen(torch.stack([image for image, _ in views]).to(device)).cpu()
        allowed = torch.stack([allowed for _, (_, allowed) in views])
        last = functional.adaptive_max_pool2d(allowed, made.shape[2:]) if made.ndim == 4 else torch.ones(len(made), 1)
        content: NDArray[np.float16] = torch.cat([made, last], dim=1).half().numpy()
        return content

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One of the views, chosen by the seed."""
        index, seed = item
        views = np.load(self._files[index], mmap_mode="r")
        content = torch.from_numpy(views[seed % self._count].astype(np.float32))
        allowed = content[-1:] if content.ndim == 3 else torch.ones(1, 1, 1)
        return content[:-1], (self._source.target(index), allowed)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free, and what frozen layers make needs {needed / 1e9:.1f} GB; "
            f"take fewer views, or a later layer"
        )


class Draws(Sampler[tuple[int, int]]):
    """Which views an epoch shows: (index, seed) pairs, other ones each epoch and the same again for the same seed.

    A class is drawn in proportion to the square root of its size, so that a rare one is seen often and a frequent one
    in all its variety; :meth:`weights` makes up for the rest. As many are drawn for an epoch as the set has.
    """

    def __init__(self, targets: Tensor, indices: Sequence[int], seed: int, rank: int = 0, ranks: int = 1) -> None:
        self._indices = np.asarray(indices)
        self._labels = targets.numpy()[self._indices]
        self._seed, self._rank, self._ranks = seed, rank, ranks
        self.epoch = 0
        sizes = np.bincount(self._labels, minlength=int(targets.max()) + 1)
        shares = np.sqrt(sizes)
        self._counts = np.maximum(np.rint(shares / shares.sum() * len(self._indices)).astype(int), sizes > 0)

    def weights(self) -> Tensor:
        """Of each class in the loss, so that all weigh the same; their mean over an epoch is 1."""
        drawn = self._counts > 0
        weights = np.zeros(len(drawn), dtype=np.float32)
        weights[drawn] = self._counts.sum() / drawn.sum() / self._counts[drawn]
        return torch.from_numpy(weights)

    def __len__(self) -> int:
        return int(self._counts.sum()) // self._ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self._seed, self.epoch))
        drawn = np.concatenate([self._some(random, label, count) for label, count in enumerate(self._counts)])
        random.shuffle(drawn)
        seeds = random.integers(1, 2**31, len(drawn))
        mine = slice(self._rank, len(self) * self._ranks, self._ranks)
        yield from zip(drawn[mine].tolist(), seeds[mine].tolist(), strict=True)

    def _some(self, random: np.random.Generator, label: int, count: int) -> NDArray[np.int64]:
        members = self._indices[self._labels == label]
        # Everyone once before anyone twice.
        rounds = [random.permutation(members) for _ in range(-(-count // max(1, len(members))))]
        return np.concatenate(rounds)[:count] if rounds else members
