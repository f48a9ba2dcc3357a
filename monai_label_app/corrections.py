"""What doctors say a frame shows, where the network was wrong or unsure: who, when, of which frame, and where."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydicom import Dataset

from monai_label_app import journal
from monai_label_app.folder import whole

MAX_BYTES = 100_000
"""Size of a correction as JSON, at most."""

_TEXT = 500
_REGION = 3


@dataclass(frozen=True)
class Correction:
    """One frame's class, by a reader.

    Attributes:
        image: SOP Instance UID.
        label: the class.
        by: who says so.
        frame: number of the frame, from 1.
        region: polygon (x, y) in source pixels around what is meant; empty for the whole frame.
        model: name and version of the model that the reader saw, if any.
        comment: in the reader's words.
        at: when, ISO 8601 in UTC; set when it is kept.
    """

    image: str
    label: str
    by: str
    frame: int = 1
    region: tuple[tuple[float, float], ...] = ()
    model: str = ""
    comment: str = ""
    at: str = ""


def parse(content: bytes, header: Dataset, classes: Sequence[str]) -> Correction:
    """Read a correction as a client sends it: JSON with ``class`` and ``by``, and what else :class:`Correction` has.

    Args:
        content: the JSON.
        header: of the image.
        classes: that the model knows.

    Raises:
        ValueError: what is wrong with it, in a sentence.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"a correction of {len(content)} bytes is too long; {MAX_BYTES} are the most")
    try:
        given = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("the correction is not JSON") from None
    if not isinstance(given, dict):
        raise ValueError('a correction is an object such as {"class": "polyps", "by": "Dr. Example"}')
    known = {"class", "by", "frame", "region", "model", "comment"}
    if strange := sorted(set(given) - known):
        raise ValueError(f"a correction has no {', '.join(strange)}; it has {', '.join(sorted(known))}")
    if given.get("class") not in classes:
        raise ValueError(f"there is no class {given.get('class')!r}; the model knows {', '.join(classes)}")
    texts = {name: given.get(name, "") for name in ("by", "model", "comment")}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > _TEXT:
            raise ValueError(f"{name!r} must be a text of at most {_TEXT} characters")
        if re.search(r"[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]", text):
            raise ValueError(f"{name!r} has characters that stand for nothing")
    if not texts["by"].strip():
        raise ValueError("the reader's name ('by') is missing")
    frame, frames = given.get("frame", 1), int(header.get("NumberOfFrames") or 1)
    if not isinstance(frame, int) or isinstance(frame, bool) or not 1 <= frame <= frames:
        raise ValueError(f"there is no frame {frame!r}; the image has {frames}")
    region = _region(given.get("region") or (), int(header.Columns), int(header.Rows))
    return Correction(str(header.SOPInstanceUID), given["class"], frame=frame, region=region, **texts)


def _region(points: Any, columns: int, rows: int) -> tuple[tuple[float, float], ...]:
    numbers = (int, float)
    if not isinstance(points, list | tuple) or not all(
        isinstance(point, list) and len(point) == 2 and all(type(value) in numbers for value in point)
        for point in points
    ):
        raise ValueError("'region' must be a list of [x, y] in pixels")
    if points and len(points) < _REGION:
        raise ValueError(f"'region' has {len(points)} points, and a polygon has {_REGION} at least")
    for x, y in points:
        if not (0 <= x <= columns and 0 <= y <= rows):
            raise ValueError(f"'region' has a point [{x}, {y}] outside the image of {columns} x {rows} pixels")
    region = tuple((float(x), float(y)) for x, y in points)
    if region and not sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise((*region, region[0]))):
        raise ValueError("'region' has no area")
    return region


class Corrections:
    """All corrections of a datastore, in one file that is only added to: no opinion is lost to the next."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, correction: Correction) -> None:
        """Keep a correction; it is on disk when this returns."""
        content = asdict(correction)
        del content["at"]
        journal.append(self._file, content)

    def withdraw(self, image: str, by: str) -> None:
        """What was said of an image counts no more; it stays in the file, with who withdrew it, if that is known."""
        journal.append(self._file, {"image": image, "withdrawn": True, "by": by})

    def erase(self, images: Collection[str]) -> int:
        """Take what was said of images out of the file; returns how many lines those were."""
        lines = list(journal.read(self._file))
        kept = [line for line in lines if line["image"] not in images]
        if len(kept) < len(lines):
            with whole(self._file) as partial:
                partial.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in kept), "utf-8")
        return len(lines) - len(kept)

    def all(self) -> list[Correction]:
        """Every one that counts or counted, the oldest first."""
        return [_correction(line) for line in journal.read(self._file) if "withdrawn" not in line]

    def current(self) -> list[Correction]:
        """The latest of each frame that was not withdrawn."""
        latest: dict[tuple[str, int], Correction] = {}
        for line in journal.read(self._file):
            if "withdrawn" in line:
                latest = {key: one for key, one in latest.items() if key[0] != line["image"]}
            else:
                one = _correction(line)
                latest[one.image, one.frame] = one
        return list(latest.values())

    def history(self, image: str) -> str:
        """Those of one image, the oldest first, as JSON."""
        mine = [asdict(one) for one in self.all() if one.image == image]
        return json.dumps({"image": image, "corrections": mine}, indent=1, ensure_ascii=False)


def _correction(line: dict[str, Any]) -> Correction:
    return Correction(**{**line, "region": tuple((x, y) for x, y in line["region"])})
