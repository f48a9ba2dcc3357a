"""``endolens explain``: maps of one picture for an engineer to look at, as PNG, NumPy arrays and a manifest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from explainers import METHODS, Geometry, heatmap, regions
from explainers.cams import CAMS
from explainers.contact_sheet import contact_sheet, thumbnail
from explainers.layers import convolutions, unknown
from explainers.regions import THRESHOLD
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.console import Progress, silent
from monai_label_app.pictures import is_own, write_own
from report.language import ENGLISH

ALL, TOP = "all", "top"

MANIFEST = "manifest.json"
SHEET = "contact-sheet.png"


@dataclass(frozen=True)
class Picture:
    """What is explained: a frame (H, W, 3) uint8, and where it came from."""

    origin: str
    frame: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Map:
    """One map (h, w) float32 of a layer for a class; either is empty where the method knows none."""

    layer: str
    label: str
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Maps:
    """All maps of one picture.

    Attributes:
        probabilities: class → probability.
        predicted: the class with the highest.
        geometry: the way from a map to the picture.
        maps: a class at a time, in the order of the layers.
        guided: whether the network has a ReLU to guide.
    """

    probabilities: dict[str, float]
    predicted: str
    geometry: Geometry
    maps: list[Map]
    guided: bool


def look(
    picture: Picture,
    classifier: Classifier,
    method: str,
    layers: Sequence[str],
    classes: Sequence[str],
    progress: Progress = silent,
) -> Maps:
    """Make the maps of a picture.

    Args:
        picture: what is explained.
        classifier: the network.
        method: one of :data:`explainers.METHODS`.
        layers: names, or ``all``.
        classes: names, ``top`` for the predicted one, or ``all``.
        progress: shows how far the work is.

    Raises:
        ValueError: no such method, layer or class.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    labels = classifier.card.classes
    for label in classes:
        if label not in (*labels, ALL, TOP):
            raise unknown("class", label, labels)
    known = convolutions(classifier.network)
    for layer in layers:
        if layer not in (*known, ALL):
            raise unknown("layer", layer, known)
    chosen = list(known if ALL in layers else dict.fromkeys(layers))
    dissection, (geometry,) = classifier.dissect([picture.pixels], chosen)
    probabilities = dissection.probabilities[0].tolist()
    predicted = labels[int(np.argmax(probabilities))]
    names = labels if ALL in classes else dict.fromkeys(predicted if name == TOP else name for name in classes)
    targets = [labels.index(name) for name in names]
    length = (len(chosen) if METHODS[method].of_layer else 1) * (len(targets) if METHODS[method].of_class else 1)
    maps = [
        Map(layer or "", "" if target is None else labels[target], values[0].cpu().numpy())
        for layer, target, values in progress(dissection.maps(method, targets=targets), length, "Looking")
    ]
    named = dict(zip(labels, probabilities, strict=True))
    return Maps(named, predicted, geometry, maps, dissection.has_rectifiers)


def write(
    picture: Picture,
    classifier: Classifier,
    method: str,
    made: Maps,
    colours: str,
    folder: Path,
    progress: Progress = silent,
) -> list[Path]:
    """Write maps as overlays and arrays, all of them as one contact sheet, and what they are as a manifest.

    Returns:
        The files, the manifest last.
    """
    card, geometry = classifier.card, made.geometry
    scales = _scales(made.maps, METHODS[method].percentile)
    cells: dict[tuple[str, str], Image.Image] = {}
    stems = _stems(made.maps, method)
    files: list[Path] = []
    entries: list[dict[str, Any]] = []
    for one, stem in progress(zip(made.maps, stems, strict=True), len(stems), "Writing"):
        source = geometry.to_source(one.values)
        overlay = heatmap.overlay(picture.pixels, heatmap.normalise(source, scales[one.layer]), colours=colours)
        cells[one.layer, _head(one.label, made)] = thumbnail(overlay)
        raw = folder / f"{stem}.npy"
        np.save(raw, one.values)
        files += [raw, folder / f"{stem}.png"]
        write_own(overlay, files[-1])
        entries.append(
            {
                "layer": one.layer or None,
                "class": one.label or None,
                "picture": files[-1].name,
                "raw": raw.name,
                "shape": one.values.shape,
                "maximum": float(one.values.max()),
                "full_colour": scales[one.layer],
                "regions": [
                    {"contour": region.contour.round(2).tolist(), "box": [round(v, 2) for v in region.box]}
                    for region in (regions(source) if method in CAMS else [])
                ],
            }
        )
    if len(made.maps) > 1:
        rows, columns = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
        blank = {(one.layer, _head(one.label, made)): "blank" for one in made.maps if not one.values.any()}
        sheet = contact_sheet(cells, rows, columns, _caption(classifier, method, made), blank)
        files.append(folder / SHEET)
        write_own(sheet, files[-1])
    manifest = {
        "source": picture.origin,
        "frame": picture.frame,
        "model": {
            "name": card.name,
            "version": classifier.version,
            "architecture": card.architecture,
            "test_views": card.test_views,
            "notice": card.notice,
        },
        "method": method,
        "predicted": made.predicted,
        "probabilities": made.probabilities,
        "geometry": vars(geometry),
        "scale": f"raw values; full colour is {_scale_in_words(method)}",
        "regions": f"where a map reaches {THRESHOLD:g} of its own maximum, in source pixels",
        "colours": colours,
        "contact_sheet": SHEET if len(made.maps) > 1 else None,
        "maps": entries,
    }
    files.append(folder / MANIFEST)
    # A file name need not be valid text.
    files[-1].write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
    return files


def earlier(folder: Path) -> list[Path]:
    """The files of an earlier run in a folder, by its manifest, which comes first; none where there is no manifest.

    Raises:
        ValueError: the manifest is not one of :func:`write`.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return []
    try:
        content = json.loads(manifest.read_text(encoding="utf-8", errors="replace"))
        names = [one[kind] for one in content["maps"] for kind in ("picture", "raw")]
        names += [content["contact_sheet"]] if content["contact_sheet"] else []
        if content["method"] not in METHODS or any(Path(name).suffix not in (".png", ".npy") for name in names):
            raise ValueError
        if any(Path(name).name != name for name in names):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"{manifest} is not of maps that were written here; name another --out") from None
    for path in (folder / name for name in names if name.endswith(".png")):
        if path.exists() and not is_own(path):
            raise ValueError(f"{path} is no map written here, but lies in the place of one; name another --out")
    return [manifest, *(folder / name for name in names)]


def deliver(files: Sequence[Path], folder: Path) -> None:
    """Move maps to a folder, the manifest last, in the place of those of an earlier run, maybe of another patient.

    Raises:
        ValueError: as :func:`earlier`, or a file of the same name is there that is of no earlier run.
    """
    stale = earlier(folder)
    for file in files:
        place = folder / file.name
        if os.path.lexists(place) and place not in stale:
            raise ValueError(f"{place} is there and is not of maps that were written here; name another --out")
    for path in stale:
        path.unlink(missing_ok=True)
    for file in files:
        file.replace(folder / file.name)


def _stems(maps: list[Map], method: str) -> list[str]:
    """File names without suffix; two that a file system might take for one are numbered."""
    stems: list[str] = []
    for one in maps:
        stem = "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in (one.layer, one.label, method) if part)
        taken = sum(other.casefold() == stem.casefold() for other in stems)
        stems.append(f"{stem}_{len(stems)}" if taken else stem)
    return stems


def _scales(maps: list[Map], percentile: float) -> dict[str, float]:
    """Layer → value in full colour, one for all of its classes, so that they compare."""
    layers = dict.fromkeys(one.layer for one in maps)
    return {layer: max(heatmap.peak(one.values, percentile) for one in maps if one.layer == layer) for layer in layers}


def _scale_in_words(method: str) -> str:
    percentile = METHODS[method].percentile
    what = "the maximum" if percentile == 100 else f"the {percentile:g}th percentile of the positive values"
    return f"{what}, one for all classes of a layer"


def _head(label: str, made: Maps) -> str:
    return f"{label}\n{ENGLISH.percent(made.probabilities[label])}" if label else "any class"


def _caption(classifier: Classifier, method: str, made: Maps) -> list[str]:
    card = classifier.card
    lines = [f"{method} by {card.name} {classifier.version}", f"full colour: {_scale_in_words(method)}"]
    return [*lines, card.notice] if card.notice else lines
