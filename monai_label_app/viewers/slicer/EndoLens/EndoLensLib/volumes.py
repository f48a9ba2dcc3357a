"""Images and maps as volumes of a MRML scene, and which pixel is where in space.

A pixel (x, y) is given as the server gives it: from the outer corner of the first pixel, so the centre of that one is
(0.5, 0.5), which in Slicer's IJK is (0, 0).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .server import Frame, Image

IMAGE = "EndoLens.image"
"""Attribute of what belongs to an image: its SOP Instance UID."""

SOURCE = "EndoLens.source"
"""Attribute of a volume that the network can be asked about; a heatmap has it not."""

_MAP_OF = "EndoLens.map_of"
_SINGLE_FILE = 4


def load(volumes: Any, scene: Any, content: bytes, image: Image) -> Any:
    """A DICOM file as a volume node; of several frames as a sequence, whose browser shows one in the volume.

    Args:
        volumes: Slicer's ``vtkSlicerVolumesLogic``.
        scene: that it works in.
        content: the file.
        image: what it is.

    Raises:
        ValueError: Slicer cannot read the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.dcm"
        file.write_bytes(content)
        volume = volumes.AddArchetypeVolume(str(file), image.title, _SINGLE_FILE)
    if volume is None:
        raise ValueError("it is damaged, or in a form that Slicer cannot read")
    # The file is gone: Slicer is to store the volume anew when the scene is saved.
    scene.RemoveNode(volume.GetStorageNode())
    volume.SetAndObserveStorageNodeID(None)
    # Before the sequence is made: with each frame the volume gets the attributes that it had then.
    volume.SetAttribute(IMAGE, image.uid)
    volume.SetAttribute("DICOM.instanceUIDs", image.uid)
    volume.SetAttribute(SOURCE, "1" if image.source else None)
    if volume.GetImageData().GetScalarType() == vtk.VTK_UNSIGNED_CHAR:
        _show_as_it_is(volume)
    if volume.GetImageData().GetDimensions()[2] > 1:
        _as_sequence(scene, volume)
    return volume


def _as_sequence(scene: Any, volume: Any) -> None:
    """Frames are moments, not slices: one after the other, each in the first one's place."""
    stack = volume.GetImageData()
    width, height, count = stack.GetDimensions()
    values = vtk_to_numpy(stack.GetPointData().GetScalars())
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{volume.GetName()} frames")
    sequence.SetIndexName("frame")
    sequence.SetIndexUnit("")
    for number in range(count):
        volume.SetAndObserveImageData(_image_data(values[number * width * height :][: width * height], width, height))
        sequence.SetDataNodeAtValue(volume, str(number + 1))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{volume.GetName()} browser")
    before = browser.StartModify()  # or Slicer would make a second volume for the frames
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(volume, sequence, False)
    browser.SetSelectedItemNumber(0)
    browser.EndModify(before)


def _image_data(values: np.ndarray, width: int, height: int) -> Any:
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(values, deep=True))
    return image


def nodes(scene: Any, kind: str) -> list[Any]:
    """All nodes of a class."""
    found = scene.GetNodesByClass(kind)
    found.UnRegister(None)
    return [found.GetItemAsObject(number) for number in range(found.GetNumberOfItems())]


def of_images(scene: Any) -> list[Any]:
    """The volumes of all images that were loaded."""
    return [one for one in nodes(scene, "vtkMRMLScalarVolumeNode") if one.GetAttribute(IMAGE)]


def browser_of(scene: Any, volume: Any) -> Any:
    """The sequence browser that shows an image's frames in a volume; None for a still."""
    browsers = nodes(scene, "vtkMRMLSequenceBrowserNode")
    return next((one for one in browsers if one.GetSequenceNode(volume) is not None), None)


def frame_of(scene: Any, volume: Any) -> Frame:
    """The frame that a volume shows."""
    browser = browser_of(scene, volume)
    return Frame(volume.GetAttribute(IMAGE), 1 if browser is None else browser.GetSelectedItemNumber() + 1)


def lay(scene: Any, content: bytes, volume: Any, title: str) -> Any:
    """A map as the colour volume that lies on the frame that an image's volume shows.

    It is the same node for every map, and fits one frame: see :func:`fits`. It is clear where the map is zero, which a
    scalar volume in Slicer can be only all or nothing.

    Args:
        scene: of the volume.
        content: the map as a PNG file with transparency, of the image's size.
        volume: of the image.
        title: for the reader.

    Raises:
        ValueError: the map is not of the image's size.
    """
    colours = _read_png(content)
    height, width = colours.shape[:2]
    if (width, height) != volume.GetImageData().GetDimensions()[:2]:
        raise ValueError(f"the map of {width} x {height} pixels does not fit {volume.GetName()}")
    node = scene.GetSingletonNode("EndoLensMap", "vtkMRMLVectorVolumeNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
        node.SetSingletonTag("EndoLensMap")
        node.CreateDefaultDisplayNodes()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    node.SetAndObserveImageData(_image_data(colours.reshape(width * height, -1), width, height))
    _show_as_it_is(node)
    node.SetName(title)
    node.SetAttribute(_MAP_OF, repr(frame_of(scene, volume)))
    return node


def _read_png(content: bytes) -> np.ndarray:
    """Colours (height, width, 4)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.png"
        file.write_bytes(content)
        reader = vtk.vtkPNGReader()
        reader.SetFileName(str(file))
        reader.Update()
    image = reader.GetOutput()
    width, height, _ = image.GetDimensions()
    # VTK puts the last row of a picture first.
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1]


def _show_as_it_is(volume: Any) -> None:
    """Left to itself, Slicer stretches the contrast, and tissue changes its colour."""
    display = volume.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 255)


def fits(scene: Any, laid: Any, volume: Any) -> bool:
    """Whether a map was made of the frame that a volume, if any, shows; True of a volume that is no map of ours."""
    made_of = laid.GetAttribute(_MAP_OF)
    return made_of is None or (volume is not None and made_of == repr(frame_of(scene, volume)))


def to_space(volume: Any, pixels: np.ndarray) -> np.ndarray:
    """Pixels (points, 2) of an image's volume in space, (points, 3) RAS in mm."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    ones = np.ones(len(pixels))
    return (_array(matrix) @ np.array([pixels[:, 0] - 0.5, pixels[:, 1] - 0.5, 0 * ones, ones]))[:3].T


def to_pixels(volume: Any, places: np.ndarray) -> np.ndarray:
    """Places in space (points, 3) as pixels (points, 2), brought to the image's edge where they are outside."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    pixels = (_array(matrix) @ np.vstack([places.T, np.ones(len(places))]))[:2].T + 0.5
    return np.clip(pixels, 0, volume.GetImageData().GetDimensions()[:2])


def _array(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
