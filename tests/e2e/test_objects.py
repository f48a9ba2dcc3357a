"""Results in 3D Slicer's own libraries, and documents before the validator of the IHE test bench."""

from pathlib import Path

import pydicom
import pytest

from tests.e2e.conftest import endolens
from tests.validators import pixelmed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def results(real_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that an analysis of real stills can write."""
    out = tmp_path_factory.mktemp("results")
    endolens("analyze", real_study, "--out", out, "--guided", "--segmentation", "--key-images", "--report")
    endolens("analyze", real_study, "--out", out, "--comprehensive-3d")
    return out


def test_slicer_loads_captures_and_segmentations_with_the_same_pixels(results: Path) -> None:
    core = pytest.importorskip("slicer.slicer_core", reason="slicer-core has no build for this Python")
    from vtk.util.numpy_support import vtk_to_numpy

    files = [*results.rglob("heatmaps/*.dcm"), *results.rglob("segmentations/*.dcm")]
    assert len(files) > 8
    logic = core.vtkSlicerVolumesLogic()
    scene = core.vtkMRMLScene()
    logic.SetMRMLScene(scene)
    for file in files:
        image = logic.AddArchetypeVolume(str(file), "volume", 4).GetImageData()
        width, height, depth = image.GetDimensions()
        shown = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(depth, height, width, -1)
        dataset = pydicom.dcmread(file)
        if dataset.Modality == "SEG":  # Slicer shows a binary segmentation as 0 and 255, a slice a segment
            stored = dataset.pixel_array.reshape(depth, height, width)
            wrong = (shown[..., 0] > 0) != (stored > 0)
            if stored[0].size % 8:
                # Where a segment ends within a byte, Slicer makes up its last pixels, and loses its place for the next.
                wrong = wrong[0].ravel()[: stored[0].size // 8 * 8]
            assert not wrong.any()
        else:
            assert (shown[0] == dataset.pixel_array).all()


@pytest.mark.slow
def test_no_document_has_an_error_before_pixelmed_s_validator(results: Path) -> None:
    documents = [*results.rglob("findings/*.dcm"), *results.rglob("key-objects/*.dcm"), *results.rglob("report/*.dcm")]
    documents = [one for one in documents if pydicom.dcmread(one).Modality in ("SR", "KO")]
    assert len(documents) == 4, "findings, findings in 3D, report, key objects"
    for document, lines in pixelmed(documents).items():
        assert [line for line in lines if line.startswith("Error")] == [], document
