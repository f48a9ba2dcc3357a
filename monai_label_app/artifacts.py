"""``endolens artifacts``: what lies on pictures that is no tissue, as table or JSON, and the pictures without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

from PIL import Image

from monai_label_app.classifier.artifacts import Artifacts, clean, find_artifacts
from monai_label_app.files import find_files
from monai_label_app.folder import whole
from monai_label_app.reading import read_frame
from monai_label_app.study import Problem


def examine(
    images: Iterable[Path], out: Path | None, variant: str, as_json: bool, say: Callable[[str], None]
) -> list[Problem]:
    """Look for artifacts in pictures, say what was found a picture at a time, and write them cleaned.

    Args:
        images: files and folders.
        out: folder for the cleaned pictures, or None.
        variant: what is taken away; see :data:`monai_label_app.classifier.artifacts.VARIANTS`.
        as_json: say a JSON object a picture, not a row of a table.
        say: is given one line at a time.

    Returns:
        What was left out.

    Raises:
        ValueError: a path does not exist, or there is no file.
    """
    problems: list[Problem] = []
    written: set[Path] = set()
    files = list(_placed(images))
    if not files:
        raise ValueError("there is no image")
    sources = {file.resolve() for file, _ in files}
    if not as_json:
        say(_row(*(field.name.replace("_", " ") for field in fields(Artifacts)), "file"))
    for file, place in files:
        try:
            frame = read_frame(file)
        except ValueError as error:
            problems.append(Problem(str(file), str(error)))
            continue
        found = find_artifacts(frame)
        boxes = asdict(found)
        if as_json:
            say(json.dumps({"file": str(file), **boxes}))
        else:
            cells = (" ".join(map(str, box)) if box else "-" for box in boxes.values())
            say(_row(*cells, str(file)))
        if out is None:
            continue
        target = out / place.with_name(f"{place.name}.png" if place.suffix.lower() != ".png" else place.name)
        if target in written or target.resolve() in sources:
            problems.append(Problem(str(file), f"{file} was not cleaned, for {target} is another image or itself"))
            continue
        written.add(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as partial:
            Image.fromarray(clean(frame, found, variant)[0]).save(partial, format="PNG")
    return problems


def _placed(images: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Every file, and its place below the folder that was given."""
    for path in images:
        for file in find_files([path]):
            yield file, file.relative_to(path) if path.is_dir() else Path(file.name)


def _row(*cells: str) -> str:
    return "".join(f"{cell:<20}" for cell in cells[:-1]) + cells[-1]
