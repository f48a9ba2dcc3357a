"""As much of 3D Slicer as its module for EndoLens needs, by PyPI's slicer-core: scene, slice view and logics, no Qt."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from monai_label_app.viewers.slicer import FOLDER


def library() -> Any:
    """The package EndoLensLib, as Slicer imports it from the module's own folder."""
    folder = str(FOLDER / "EndoLens")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import EndoLensLib
    import EndoLensLib.logic

    return EndoLensLib


class Slicer:
    """A started Slicer with the module's logic."""

    def __init__(self) -> None:
        slicer = pytest.importorskip("slicer", reason="slicer-core has no build for this Python")
        self.application = slicer.vtkSlicerApplicationLogic()
        self.scene = slicer.vtkMRMLScene()
        self.application.SetMRMLScene(self.scene)
        self.volumes = slicer.vtkSlicerVolumesLogic()
        self.volumes.SetMRMLScene(self.scene)
        self.sequences = slicer.vtkSlicerSequencesLogic()
        self.sequences.SetMRMLScene(self.scene)
        self.view = slicer.vtkMRMLSliceLogic()
        self.view.SetMRMLScene(self.scene)
        self.view.AddSliceNode("Red")
        self.logic = library().logic.EndoLensLogic(self.scene, self.volumes)

    def pixels(self, volume: Any) -> NDArray[Any]:
        """What a volume holds, (H, W) or (H, W, 3)."""
        import slicer

        return slicer.util.arrayFromVolume(volume)[0]

    def place(self, volume: Any, x: float, y: float) -> NDArray[np.float64]:
        """Where the point (x, y) of an image is in space, by the volume's own IJK-to-RAS."""
        import vtk

        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        return np.array(matrix.MultiplyPoint((x - 0.5, y - 0.5, 0, 1)))[:3]

    def picture(self, height: int, width: int) -> NDArray[np.int64]:
        """The slice view, a pixel of it on each of the frame, (H, W, 3)."""
        from vtk.util.numpy_support import vtk_to_numpy

        self.view.GetSliceNode().SetOrientationToAxial()
        self.view.ResizeSliceNode(width, height)
        self.view.FitSliceToAll(width, height)
        self.view.GetSliceNode().SetXYZOrigin(0.5, 0.5, 0)
        self.view.UpdatePipeline()
        producer = self.view.GetImageDataConnection().GetProducer()
        producer.Update()
        colours = vtk_to_numpy(producer.GetOutputDataObject(0).GetPointData().GetScalars())
        return colours.reshape(height, width, -1)[::-1, :, :3].astype(int)
