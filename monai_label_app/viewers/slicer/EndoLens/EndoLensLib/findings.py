"""Findings in a MRML scene: closed curves on the images, and a table of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from .server import Evidence, Frame
from .volumes import IMAGE, nodes, to_pixels, to_space

COLUMNS = ("Finding", "Probability", "Where", "Image", "Frame", "Layer", "Made by", "Curve", "SOP Instance UID")
"""Of the table of findings; one row a curve, or a frame on which no region stands out."""

NO_REGION = "no region stands out"

MOST_POINTS = 500
"""Corners of a region that a reader sends, at most."""

_FRAME, _TABLE = "EndoLens.frame", "EndoLens findings"
_COLUMN = {name: number for number, name in enumerate(COLUMNS)}
_YELLOW = (1.0, 0.9, 0.2)


def table(scene: Any) -> Any:
    """The table of findings, made when first asked for."""
    node = scene.GetSingletonNode("EndoLensFindings", "vtkMRMLTableNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", _TABLE)
        node.SetSingletonTag("EndoLensFindings")
        node.SetUseColumnTitleAsColumnHeader(True)
        node.SetLocked(True)
        for name in COLUMNS:
            column = vtk.vtkStringArray()
            column.SetName(name)
            node.AddColumn(column)
    return node


def put(scene: Any, volume: Any, frame: Frame, evidence: Evidence, made_by: str) -> list[Any]:
    """What was found on a frame, in the place of what was there before.

    Returns:
        A closed curve a region, locked; the reader draws one of their own to correct it.
    """
    clear(scene, frame)
    percent = _percent(evidence.probability)
    made = [_curve(scene, volume, frame, evidence, percent, contour) for contour in evidence.contours]
    for curve, contour in zip(made or [None], evidence.contours or [None]):
        where = NO_REGION if contour is None else _box(contour)
        name = "" if curve is None else curve.GetID()
        cells = (evidence.label, percent, where, volume.GetName(), str(frame.number), evidence.layer, made_by, name)
        _add_row(table(scene), (*cells, frame.image))
    return made


def _percent(share: float) -> str:
    """As reports write it: what is not all or nothing never reads so."""
    written = f"{100 * share:.1f}"
    written = {"100.0": "> 99.9", "0.0": "< 0.1"}.get(written, written) if 0 < share < 1 else written
    return f"{written} %"


def clear(scene: Any, frame: Frame) -> None:
    """Take away what was found on a frame."""
    for curve in curves(scene):
        if _frame_of(curve) == frame:
            scene.RemoveNode(curve)
    node = table(scene)
    for row in reversed(range(node.GetNumberOfRows())):
        if (_cell(node, row, "SOP Instance UID"), _cell(node, row, "Frame")) == (frame.image, str(frame.number)):
            node.RemoveRow(row)


def curves(scene: Any) -> list[Any]:
    """The curves of all findings."""
    return [curve for curve in nodes(scene, "vtkMRMLMarkupsClosedCurveNode") if curve.GetAttribute(IMAGE)]


def show(scene: Any, frame: Frame | None) -> None:
    """Show the curves of one frame, or none: all stills lie in the same place."""
    for curve in curves(scene):
        curve.GetDisplayNode().SetVisibility(_frame_of(curve) == frame)


def frame_in_row(scene: Any, row: int) -> Frame:
    """The frame that a row of the table is about."""
    node = table(scene)
    return Frame(_cell(node, row, "SOP Instance UID"), int(_cell(node, row, "Frame")))


def region_of(curve: Any, volume: Any) -> list[list[float]]:
    """A closed curve as a polygon of [x, y] in pixels of an image; ValueError if it lies outside."""
    if curve.GetCurveType() == slicer.vtkCurveGenerator.CURVE_TYPE_LINEAR_SPLINE:
        places = [curve.GetNthControlPointPositionWorld(number) for number in range(curve.GetNumberOfControlPoints())]
    else:
        points = curve.GetCurvePointsWorld()
        places = [points.GetPoint(number) for number in range(points.GetNumberOfPoints())]
    pixels = to_pixels(volume, np.array(places, dtype=float).reshape(-1, 3))
    if not np.ptp(pixels, axis=0).all():
        raise ValueError("The region is no closed curve on the image.")
    return pixels[:: 1 + len(pixels) // MOST_POINTS].round(2).tolist()


def _curve(scene: Any, volume: Any, frame: Frame, evidence: Evidence, percent: str, contour: np.ndarray) -> Any:
    # A finding of a machine says so wherever its name stands.
    name = f"{evidence.label} {percent} (EndoLens, unverified)"
    curve = scene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode", name)
    curve.SetAttribute(IMAGE, frame.image)
    curve.SetAttribute(_FRAME, str(frame.number))
    curve.SetDescription(evidence.sentence)
    curve.SetCurveTypeToLinear()
    corners = contour[:-1] if np.array_equal(contour[0], contour[-1]) else contour
    points = vtk.vtkPoints()
    for place in to_space(volume, corners):
        points.InsertNextPoint(place)
    curve.SetControlPointPositionsWorld(points)
    curve.SetLocked(True)
    curve.CreateDefaultDisplayNodes()
    display = curve.GetDisplayNode()
    display.SetColor(_YELLOW)
    display.SetSelectedColor(_YELLOW)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(True)
    display.SetGlyphTypeFromString("Vertex2D")
    display.SetFillVisibility(False)
    return curve


def _frame_of(curve: Any) -> Frame:
    return Frame(curve.GetAttribute(IMAGE), int(curve.GetAttribute(_FRAME)))


def _box(contour: np.ndarray) -> str:
    (left, top), (right, bottom) = contour.min(axis=0).round(), contour.max(axis=0).round()
    return f"columns {left:.0f}–{right:.0f}, rows {top:.0f}–{bottom:.0f}"


def _cell(node: Any, row: int, column: str) -> str:
    return str(node.GetCellText(row, _COLUMN[column]))


def _add_row(node: Any, cells: tuple[str, ...]) -> None:
    row = node.AddEmptyRow()
    for number, text in enumerate(cells):
        node.SetCellText(row, number, text)
