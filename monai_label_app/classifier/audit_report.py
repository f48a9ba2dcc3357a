"""An audit for people: a table, a row a frame as CSV, the worst frames as a picture, and one page."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from explainers import heatmap
from explainers.contact_sheet import CELL, contact_sheet
from monai_label_app.classifier.artifacts import find_artifacts
from monai_label_app.classifier.audit import ARTIFACTS, Audit, Look
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.evaluation_report import page
from monai_label_app.study import read_frame

_WORST, _COLUMNS = 12, 4
"""Frames with the largest share of their evidence on artifacts that the contact sheet shows, and how many a row."""

_OUTLINE = (0, 255, 90)


def table(content: Mapping[str, Any]) -> str:
    """The audit as lines of text: a row a class, and what it comes to."""
    heads = [f"{kind}: frames, evidence, area" for kind in ARTIFACTS]
    width = max(map(len, content["classes"])) + 2
    lines = [" " * width + "".join(f"{head:>40}" for head in heads) + f"{'box planted: p':>34}"]
    for name, row in content["classes"].items():
        cells = [
            f"{row['carries'][kind]} of {row['images']}, {_percent(seen['share'])}, {_percent(seen['area'])}"
            for kind, seen in row["evidence"].items()
        ]
        planted = row["planted"]
        moved = " ".join(f"{when} {_number(planted[when])}" for when in ("before", "box", "control"))
        lines.append(f"{name:{width}}" + "".join(f"{cell:>40}" for cell in cells) + f"{moved:>34}")
    return "\n".join([*lines, "", *(content["shortcuts"] or ["No shortcut was found by the stated rules."])])


def write(result: Audit, classifier: Classifier, content: dict[str, Any], command: str, folder: Path) -> list[Path]:
    """Write ``audit.csv``, ``worst.png``, ``report.html`` and ``audit.json`` to a folder that exists.

    Args:
        result: by :func:`monai_label_app.classifier.audit.audit`.
        classifier: that was audited.
        content: of ``audit.json``, by :func:`monai_label_app.classifier.audit.summary`, with ``model`` and ``dataset``.
        command: that made it, for the page.
        folder: that exists.

    Returns:
        The files.
    """
    paths = [folder / name for name in ("audit.csv", "worst.png", "report.html", "audit.json")]
    rows, worst, report, numbers = paths
    _write_rows(result, rows)
    looks = sorted(result.looks, key=lambda look: -sum(look.shares.values()))[:_WORST]
    Image.fromarray(_sheet([look for look in looks if look.shares], classifier)).save(worst)
    picture = f"data:image/png;base64,{base64.b64encode(worst.read_bytes()).decode()}"
    values = {"content": content, "artifacts": ARTIFACTS, "worst": picture, "command": command}
    # A file name need not be valid text.
    report.write_text(page("audit.html", problems=result.problems, **values), encoding="utf-8", errors="replace")
    numbers.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
    return paths


def _write_rows(result: Audit, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.writer(file)
        heads = [f"{kind}: {what}" for kind in ARTIFACTS for what in ("area", "evidence", "p without")]
        rows.writerow(["file", "label", "predicted", "p", *heads])
        for look in result.looks:
            cells: list[str] = []
            for kind in ARTIFACTS:
                without = look.removed[kind][look.predicted] if kind in look.removed else None
                for value in (look.areas.get(kind), look.shares.get(kind), without):
                    cells.append("" if value is None else f"{value:.6f}")
            probability = f"{look.before[look.predicted]:.6f}"
            rows.writerow([look.example.path, look.example.label, result.classes[look.predicted], probability, *cells])


def _sheet(looks: list[Look], classifier: Classifier) -> np.ndarray:
    """The frames with their maps and the artifacts outlined."""
    columns = [f"{number + 1}" for number in range(min(_COLUMNS, max(1, len(looks))))]
    rows = [str(number + 1) for number in range(max(1, -(-len(looks) // _COLUMNS)))]
    cells, marks = {}, {}
    for number, look in enumerate(looks):
        frame = read_frame(look.example.path)
        seen, (geometry,) = classifier.dissect([frame])
        saliency = geometry.to_source(seen.grad_cam(classifier.card.target_layer, look.predicted)[0].cpu())
        picture = Image.fromarray(heatmap.overlay(frame, heatmap.normalise(saliency)))
        found = find_artifacts(frame)
        for box in (found.navigation_box, found.blacked_out):
            if box:
                ImageDraw.Draw(picture).rectangle(box, outline=_OUTLINE, width=max(2, picture.width // 150))
        place = (rows[number // _COLUMNS], columns[number % _COLUMNS])
        cells[place] = ImageOps.pad(picture, (CELL, CELL))
        marks[place] = f"{classifier.card.classes[look.predicted]} {sum(look.shares.values()):.0%}"
    blank = Image.new("RGB", (CELL, CELL), "white")
    caption = ["The frames with the largest share of their evidence on artifacts, the predicted class and that share"]
    return contact_sheet(cells or {(rows[0], columns[0]): blank}, rows, columns, caption, marks)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
