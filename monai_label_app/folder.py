"""Results in a folder: all of a study's objects appear there, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_label_app.analysis import StudyResult


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A hidden folder inside ``out`` to work in; whatever is left there goes when the work ends or fails."""
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as name:
            yield Path(name)
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


def deliver(result: StudyResult, staged: Path, out: Path) -> None:
    """Move a study's objects from the staging folder to their place and name them there in its result."""
    places = {str(path): out / path.relative_to(staged) for path in result.objects}
    for path in result.objects:
        target = places[str(path)]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    result.objects = list(places.values())
    for line in result.frames:
        line.outputs = [str(places[output]) for output in line.outputs]
