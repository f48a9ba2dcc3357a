"""An audit for people: tables, a row a frame as CSV, the worst frames as a picture, and one page."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from explainers import heatmap
from explainers.contact_sheet import CELL, contact_sheet
from monai_label_app.classifier.artifacts import ARTIFACTS, find_artifacts
from monai_label_app.classifier.audit import ELSEWHERE, Audit, Look, evidence
from monai_label_app.classifier.audit_summary import MOMENTS, NO_SHORTCUT
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.page import data_address, write_page
from monai_label_app.pictures import write_own

_WORST, _COLUMNS = 12, 4
"""Frames that the contact sheet shows, and how many a row."""

_CELL = (CELL + 40, CELL)
"""Room for the name of a class below a picture."""

_OUTLINE = (0, 255, 90)


def table(content: Mapping[str, Any]) -> str:
    """The audit as lines of text: where the evidence lies, what a planted box does, and what it comes to."""
    width = max(map(len, content["classes"])) + 2
    lines = [
        " " * width + "".join(f"{kind:>27}" for kind in ARTIFACTS),
        " " * width + f"{'carried by':>12}{'evidence':>9}{'area':>6}" * len(ARTIFACTS),
    ]
    for name, row in content["classes"].items():
        cells = ""
        for kind in ARTIFACTS:
            seen, carried = row["evidence"][kind], f"{row['carries'][kind]} of {row['images']}"
            cells += f"{carried:>12}{_percent(seen['share']):>9}{_percent(seen['area']):>6}"
        lines.append(f"{name:{width}}{cells}")
    lines += ["", f"{'box planted: p':{width}}" + "".join(f"{head:>10}" for head in (*MOMENTS, "frames"))]
    for name, row in content["classes"].items():
        planted = row["planted"]
        cells = "".join(f"{_number(planted[moment]):>10}" for moment in MOMENTS)
        lines.append(f"{name:{width}}{cells}{planted['frames']:>10}")
    return "\n".join([*lines, "", *(content["shortcuts"] or [NO_SHORTCUT]), "", content["rules"]])


def write(result: Audit, classifier: Classifier, content: dict[str, Any], command: str, folder: Path) -> list[Path]:
    """Write ``audit.csv``, ``worst.png``, ``report.html`` and ``audit.json`` to a folder that exists.

    Args:
        result: by :func:`monai_label_app.classifier.audit.audit`.
        classifier: that was audited.
        content: of ``audit.json``, by :func:`monai_label_app.classifier.audit_summary.summary`, with ``model`` and
            ``dataset``.
        command: that made it, for the page.
        folder: that exists.

    Returns:
        The files.
    """
    paths = [folder / name for name in ("audit.csv", "worst.png", "report.html", "audit.json")]
    rows, worst, report, numbers = paths
    _write_rows(result, rows)
    looks = sorted(result.looks, key=lambda look: look.on_artifacts, reverse=True)[:_WORST]
    write_own(_sheet(looks, classifier), worst)
    values = {
        "content": content,
        "artifacts": ARTIFACTS,
        "elsewhere": ELSEWHERE,
        "moments": MOMENTS,
        "no_shortcut": NO_SHORTCUT,
        "worst": data_address(worst),
        "command": command,
    }
    write_page("classifier/audit.html", report, problems=result.problems, **values)
    # A file name need not be valid text.
    numbers.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8", errors="replace")
    return paths


def _write_rows(result: Audit, path: Path) -> None:
    known = {name: index for index, name in enumerate(result.classes)}
    heads = [f"{kind}: {what}" for kind in ARTIFACTS for what in ("area", "evidence", "p predicted", "p label")]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "predicted", "right", *known, *heads, f"{ELSEWHERE}: evidence"])
        for look in result.looks:
            values: list[float | None] = [*look.before]
            for kind in ARTIFACTS:
                after = look.removed.get(kind)
                values += [look.areas.get(kind), look.shares.get(kind)]
                values += [
                    None if after is None else after[known[name]] for name in (look.predicted, look.example.label)
                ]
            cells = ["" if value is None else f"{value:.6f}" for value in (*values, look.shares.get(ELSEWHERE))]
            rows.writerow([look.example.path, look.example.label, look.predicted, int(look.right), *cells])


def _sheet(looks: Sequence[Look], classifier: Classifier) -> NDArray[np.uint8]:
    """The frames with their maps and the artifacts outlined."""
    columns = [str(number + 1) for number in range(min(_COLUMNS, len(looks)))]
    rows = [str(number + 1) for number in range(-(-len(looks) // _COLUMNS))]
    cells, marks = {}, {}
    for number, look in enumerate(looks):
        place = (rows[number // _COLUMNS], columns[number % _COLUMNS])
        frame = look.example.read()
        picture = Image.fromarray(heatmap.overlay(frame, heatmap.normalise(evidence(frame, classifier)[1])))
        found = find_artifacts(frame)
        for box in (found.navigation_box, found.blacked_out):
            if box:
                ImageDraw.Draw(picture).rectangle(box, outline=_OUTLINE, width=max(2, picture.width // 150))
        cells[place] = ImageOps.pad(picture, _CELL)
        marks[place] = f"{look.on_artifacts:.0%}{'' if look.right else '*'} {look.predicted}"
    caption = ["The frames with the largest share of their evidence on artifacts, and the predicted class; * is wrong"]
    return contact_sheet(cells, rows, columns, caption, marks)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
