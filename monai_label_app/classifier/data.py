"""Labelled pictures on disk: which there are, which of them can be read, and how they are divided for cross-validation.

Three layouts are known:

- a folder a class, as Kvasir has, or folders of such folders, as HyperKvasir has
  (``labeled-images/lower-gi-tract/pathological-findings/polyps/*.jpg``): the class is the folder that holds pictures;
- a CSV file with the columns ``path`` (relative to it), ``label`` and, where it is known which pictures belong together
  (one patient, one video), ``group``.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from monai_label_app.classifier.duplicates import are_near, fingerprint, near_duplicates
from monai_label_app.console import Progress, silent
from monai_label_app.folder import whole
from monai_label_app.frames import in_one_line
from monai_label_app.pictures import PICTURE_SUFFIXES
from monai_label_app.reading import read_frame
from monai_label_app.study import Problem

POLYPS = "polyps"
"""The class of the pictures of another source; see :class:`Dataset`."""

KEPT_ASIDE = "kept-aside.csv"
"""Of a training's folder: what it kept aside, as :func:`write_list` writes it."""

_MASKS = frozenset({"ground truth", "groundtruth", "ground_truth", "masks", "mask"})
"""Folders that hold no pictures, by what CVC-ClinicDB, CVC-ColonDB and their copies call them."""


@dataclass(frozen=True)
class Example:
    """A picture, its class, and the group that may not be divided between training and test.

    Attributes:
        frame: its number, from 1, where ``path`` has several.
        region: polygon (x, y) in pixels around what the class is about; empty where that is not known.
    """

    path: Path
    label: str
    group: str
    frame: int = 1
    region: tuple[tuple[float, float], ...] = ()

    def read(self) -> NDArray[np.uint8]:
        """The frame, (H, W, 3) RGB; ValueError as :func:`monai_label_app.study.read_frame`."""
        return read_frame(self.path, self.frame)

    def content(self) -> str:
        """By what the frame is known wherever its file lies: its :func:`digest`, and its number."""
        return f"{digest(self.path)}-{self.frame}"


def digest(path: Path) -> str:
    """Sixteen digits of the SHA-256 of a file; none where it cannot be read. A file that stays is read once."""
    try:
        status = path.stat()
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return ""


@lru_cache(maxsize=100_000)
def _digest(path: Path, _time: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Dataset:
    """Labelled pictures.

    Attributes:
        classes: in alphabetical order.
        examples: the pictures, a class after the other, or as a CSV lists them.
        extra: of another source: polyps to test on and never to train on (the paper, Table I b), or corrected frames.
        replaced: examples of the dataset that are nearly the same picture as a corrected one, whose label counts.
        problems: what was left out.
        remarks: sentences on near-duplicates among the examples.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    extra: tuple[Example, ...] = ()
    replaced: tuple[Example, ...] = ()
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()


def find_dataset(path: Path, extra_polyps: Path | None = None) -> Dataset:
    """List a dataset, quickly: no picture is opened, and a picture is alone in its group unless a CSV says otherwise.

    Args:
        path: a folder or CSV file in one of the layouts above.
        extra_polyps: a folder of pictures, all polyps, such as CVC-ClinicDB or CVC-ColonDB; masks are passed over:
            folders that are called ``Ground Truth`` or ``masks``, and ``p1.bmp``, ``s1.bmp``, ``c1.bmp`` of ``1.bmp``.

    Raises:
        ValueError: no such folder or file, a layout that is not known, or fewer than two classes.
    """
    if path.is_dir():
        labeled = path / "labeled-images"  # beside it HyperKvasir has pictures without labels, masks and videos
        examples = tuple(_in_folders(labeled if labeled.is_dir() else path))
    elif path.is_file():
        examples = tuple(_listed(path))
    else:
        raise ValueError(f"{path} does not exist")
    classes = tuple(sorted({example.label for example in examples}))
    if len(classes) < 2:
        found = f"one class, {classes[0]}" if classes else "no class"
        raise ValueError(f"{path} has {found}; a dataset has a folder a class, or is a CSV file with path and label")
    if extra_polyps is None:
        return Dataset(classes, examples)
    if POLYPS not in classes:
        raise ValueError(f"{path} has no class {POLYPS} for the pictures of {extra_polyps}")
    return Dataset(classes, examples, tuple(_polyps(extra_polyps)))


def read_dataset(
    path: Path, extra_polyps: Path | None = None, progress: Progress = silent, corrected: Sequence[Example] = ()
) -> Dataset:
    """List a dataset as :func:`find_dataset` does, and open every picture.

    Those that cannot be read are left out. Near-duplicates get one group, whatever their classes, and are remarked on;
    extra polyps that are near-duplicates of an example are left out.

    Args:
        path, extra_polyps: as there.
        progress: shows how far it is.
        corrected: frames that are learned with it; they are its ``extra``, and take the place of near-duplicates.

    Raises:
        ValueError: as there, or no picture of a class can be read.
    """
    found = find_dataset(path, extra_polyps)
    problems: list[Problem] = []
    readable: list[Example] = []
    fingerprints = []
    every = (*found.examples, *found.extra, *corrected)
    for example, frame in read_examples(progress(every, len(every), "Reading"), problems):
        fingerprints.append(fingerprint(frame))
        readable.append(example)
    own = len(set(found.examples) & set(readable))
    missing = set(found.classes) - {example.label for example in readable[:own]}
    if missing:
        raise ValueError(f"{path} has no picture of {', '.join(sorted(missing))} that can be read")
    groups = near_duplicates(np.array(fingerprints), [example.group for example in readable])
    grouped = [replace(example, group=group) for example, group in zip(readable, groups, strict=True)]
    remarks = _on_duplicates(readable[:own], groups[:own], np.array(fingerprints[:own]))
    if corrected:
        alike = are_near(np.array(fingerprints[:own]), np.array(fingerprints[own:])).any(axis=1)
        kept, replaced = ([one for one, near in zip(grouped, alike, strict=False) if near == what] for what in (0, 1))
        return Dataset(
            found.classes, tuple(kept), tuple(grouped[own:]), tuple(replaced), tuple(problems), tuple(remarks)
        )
    known = {example.group for example in grouped[:own]}
    extra = []
    for example in grouped[own:]:
        if example.group in known:
            problems.append(Problem(str(example.path), f"{example.path} is nearly the same picture as {example.group}"))
        else:
            extra.append(example)
    return Dataset(found.classes, tuple(grouped[:own]), tuple(extra), (), tuple(problems), tuple(remarks))


def _on_duplicates(
    examples: Sequence[Example], groups: Sequence[str], fingerprints: NDArray[np.bool_]
) -> Iterator[str]:
    """How many examples had another group before, and which near-duplicates are of two classes: one pair a group."""
    joined: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        joined.setdefault(group, []).append(index)
    alike = [members for members in joined.values() if len({examples[index].group for index in members}) > 1]
    if alike:
        count = sum(map(len, alike))
        yield f"{count} pictures are nearly the same as others, or of one group with such; these stay together"
    for members in alike:
        pairs = (
            (examples[one], examples[other])
            for place, one in enumerate(members)
            for other in members[place + 1 :]
            if examples[one].label != examples[other].label
            and are_near(fingerprints[[one]], fingerprints[[other]]).any()
        )
        for one, other in islice(pairs, 1):
            classes = f"of the classes {one.label} and {other.label}"
            yield f"{one.path} and {other.path} are nearly the same picture, {classes}"


def read_examples(examples: Iterable[Example], problems: list[Problem]) -> Iterator[tuple[Example, NDArray[np.uint8]]]:
    """Examples with their frames (H, W, 3); those that cannot be read are added to ``problems``."""
    for example in examples:
        try:
            frame = example.read()
        except ValueError as error:
            problems.append(Problem(str(example.path), str(error)))
        else:
            yield example, frame


def folds(dataset: Dataset, count: int, seed: int) -> list[tuple[tuple[Example, ...], tuple[Example, ...]]]:
    """Divide the examples for cross-validation, shuffled: a part of every class in every fold, no group in two.

    Args:
        dataset: whose groups are known, by :func:`read_dataset`. Its extra polyps are in no fold.
        count: number of folds, at least 2.
        seed: the same gives the same folds.

    Returns:
        For every fold what is trained and what is tested on. Every example is tested on once.

    Raises:
        ValueError: fewer than two folds, fewer groups of a class than folds, or a fold without a class.
    """
    divided = []
    for number, parts in enumerate(_splits(dataset, count, seed), start=1):
        for part, what in zip(parts, ("train", "test"), strict=True):
            if missing := _without(dataset, part):
                raise ValueError(
                    f"fold {number} of {count} has no picture of {missing} to {what} on; "
                    f"take fewer folds or another seed"
                )
        divided.append(parts)
    return divided


def _splits(dataset: Dataset, count: int, seed: int) -> Iterator[tuple[tuple[Example, ...], tuple[Example, ...]]]:
    """The folds as they come, even without a class."""
    if count < 2:
        raise ValueError(f"cross-validation needs 2 folds at least, not {count}")
    for label in dataset.classes:
        members = [example.group for example in dataset.examples if example.label == label]
        if len(set(members)) < count:
            raise ValueError(
                f"class {label} has too few pictures for {count} folds: {len(members)}, of which "
                f"{len(set(members))} may be divided"
            )
    labels = [example.label for example in dataset.examples]
    groups = [example.group for example in dataset.examples]
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for parts in splitter.split(labels, labels, groups):
        train, test = (tuple(dataset.examples[index] for index in part) for part in parts)
        yield train, test


def _without(dataset: Dataset, part: Iterable[Example]) -> str:
    """The classes of which a part has no picture."""
    return ", ".join(sorted(set(dataset.classes) - {example.label for example in part}))


def divide(dataset: Dataset, share: float, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Keep a share of the examples aside, of every class about as many: what is trained on, and what is kept aside.

    Args:
        dataset: as for :func:`folds`.
        share: 0 for none; else one fold of ``round(1 / share)`` is kept aside, the first with a part of every class.
        seed: the same divides alike.

    Raises:
        ValueError: as :func:`folds`.
    """
    if not share:
        return dataset.examples, ()
    try:
        for parts in _splits(dataset, round(1 / share), seed):
            if not any(_without(dataset, part) for part in parts):
                return parts
        return folds(dataset, round(1 / share), seed)[0]  # says what is wrong
    except ValueError as error:
        raise ValueError(f"{share:g} of the pictures cannot be kept aside for validation: {error}") from None


def _in_folders(root: Path) -> Iterator[Example]:
    where: dict[str, Path] = {}
    for folder, files in _leaves(root):
        if folder == root:
            raise ValueError(f"{root} has no folder a class")
        label = folder.name
        if label.lower() in _MASKS:
            raise ValueError(f"{folder} is called as masks are, and a dataset has a folder a class; name its pictures")
        if not files:
            raise ValueError(f"{folder} is empty, and a class needs a picture")
        if label in where:
            raise ValueError(f"{where[label]} and {folder} are both of class {label}; name one of their parents alone")
        where[label] = folder
        for file in files:
            yield Example(file, label, str(file))


def _leaves(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder without folders in it, and its files."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in visible if path.is_dir()]
    if not folders:
        yield folder, visible
        return
    if loose := next((path for path in visible if path.suffix.lower() in PICTURE_SUFFIXES), None):
        raise ValueError(f"{loose} lies beside folders, so its class is not known")
    for path in folders:
        yield from _leaves(path)


def _listed(table: Path) -> Iterator[Example]:
    try:
        # A file's name need not be text.
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            rows, head = list(reader), reader.fieldnames or ()
            "".join([*head, *(row.get("label") or "" for row in rows)]).encode()
    except (UnicodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a CSV file: {in_one_line(error)}") from None
    if missing := [name for name in ("path", "label") if name not in head]:
        raise ValueError(
            f"{table} has no column {' and no column '.join(missing)} in its first row, with commas between"
        )
    seen: set[Path] = set()
    for number, row in enumerate(rows, start=1):
        name, label, group = ((row.get(column) or "").strip() for column in ("path", "label", "group"))
        if not (name and label):
            raise ValueError(f"{table} has no path and label in row {number}")
        path = table.parent / name
        if path in seen:
            raise ValueError(f"{table} names {path} twice")
        seen.add(path)
        yield Example(path, label, group or str(path))


def write_list(examples: Iterable[Example], table: Path) -> None:
    """Write pictures as the CSV file that :func:`find_dataset` reads, with their places on this machine."""
    with whole(table) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "group"))
        rows.writerows((example.path.resolve(), example.label, example.group) for example in examples)


def _is_mask_beside(path: Path) -> bool:
    """Whether it is ``p1``, ``s1`` or ``c1`` beside picture ``1``, as in CVC-ColonDB."""
    kind, number = path.stem[:1], path.stem[1:]
    return kind in ("p", "s", "c") and number.isdecimal() and path.with_stem(number).is_file()


def _polyps(folder: Path) -> Iterator[Example]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    found = False
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).parts
        masks = any(part.lower() in _MASKS or part.startswith(".") for part in place) or _is_mask_beside(path)
        if path.suffix.lower() in PICTURE_SUFFIXES and not masks:
            found = True
            yield Example(path, POLYPS, str(path))
    if not found:
        raise ValueError(f"{folder} has no picture")
