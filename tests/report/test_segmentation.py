"""Regions as a Segmentation and proposed images as a Key Object Selection."""

from __future__ import annotations

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGBaseline8Bit
from shapely import MultiPoint, Polygon, contains_xy

from monai_label_app.study import Instance, Study
from monai_label_app.viewers.ohif import manifest
from report.examination import Evidence
from report.findings import GRAD_CAM, Algorithm, Explanation, Finding
from report.key_objects import key_objects
from report.segmentation import segmentation
from report.structured_report import findings_report
from report.terms import TERMS
from tests.dicom_files import by_pillow, encapsulated, image, write
from tests.report.test_structured_report import _tracking_uids
from tests.validators import dciodvfy

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model, not for clinical use")
HEIGHT, WIDTH = 41, 63
PIXELS = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
STILL, LOOP = image(PIXELS), image(np.stack([PIXELS] * 3))
SQUARE = ((10.0, 5.0), (30.0, 5.0), (30.0, 20.0), (10.0, 20.0), (10.0, 5.0))


def finding(
    contour: tuple[tuple[float, float], ...] = SQUARE, source: Dataset = STILL, label: str = "polyps", number: int = 1
) -> Finding:
    explanation = Explanation(GRAD_CAM, "block5_conv4", label, 0.9)
    return Finding(explanation, str(source.SOPInstanceUID), 1, contour, number=number)


def test_a_segment_is_what_its_contour_encloses():
    made = segmentation([finding()], STILL, ALGORITHM)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:20, 10:30] = True
    assert (made.pixel_array.astype(bool) == expected).all()


@st.composite
def regions(draw: st.DrawFn) -> list[Finding]:
    """Up to four convex regions of any size and place, of any class."""
    points = st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=3, max_size=30, unique=True)
    made = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        hull = MultiPoint(draw(points)).convex_hull
        assume(hull.area > 2)
        label = draw(st.sampled_from([*TERMS]) | st.text(st.characters(exclude_categories=("C", "Z")), min_size=1))
        made.append(finding(tuple(hull.exterior.coords), label=label, number=number))
    return made


def _enclosed(contour: tuple[tuple[float, float], ...], margin: float) -> np.ndarray:
    """Pixels whose centre lies inside, at least ``margin`` from the line, or outside it by less than ``-margin``."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    inside: np.ndarray = contains_xy(Polygon(contour).buffer(-margin), x, y)
    return inside


@pytest.mark.slow
@given(found=regions())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_regions_make_a_valid_segmentation_of_what_they_enclose(tmp_path, found):
    inside = [(_enclosed(one.contour, 1e-6), _enclosed(one.contour, -1e-6)) for one in found]
    assume(all(least.any() for least, _ in inside))
    path = write(segmentation(found, STILL, ALGORITHM), tmp_path / "seg.dcm")
    assert dciodvfy(path) == []
    segments = hd.seg.segread(path).get_pixels_by_source_instance([STILL.SOPInstanceUID])[0].astype(bool)
    for number, (least, most) in enumerate(inside):
        assert not (least & ~segments[..., number]).any()
        assert not (segments[..., number] & ~most).any()


def test_segments_carry_the_tracking_uids_and_codes_of_the_report(tmp_path):
    found = [
        finding(),
        finding(((40.0, 20.0), (55.0, 20.0), (50.0, 35.0), (40.0, 20.0)), label="esophagitis", number=2),
    ]
    segments = segmentation(found, STILL, ALGORITHM).SegmentSequence
    report = write(findings_report(found, [STILL], ALGORITHM), tmp_path / "report.dcm")
    assert [one.TrackingUID for one in segments] == _tracking_uids(report)
    assert [one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for one in segments] == [
        "Polyp of colon",
        "Esophagitis",
    ]
    assert {one.SegmentAlgorithmType for one in segments} == {"AUTOMATIC"}


@pytest.mark.parametrize("said", [{"LossyImageCompressionRatio": "", "LossyImageCompressionMethod": ""}, {}])
def test_loss_that_a_source_says_by_half_or_by_its_syntax_alone_is_inherited(tmp_path, said):
    admitted = {"LossyImageCompression": "01", **said} if said else {"LossyImageCompression": None}
    source = encapsulated(PIXELS, JPEGBaseline8Bit, [by_pillow(PIXELS, "JPEG")], **admitted)
    source = dcmread(write(source, tmp_path / "source.dcm"))
    path = write(segmentation([finding(source=source)], source, ALGORITHM), tmp_path / "seg.dcm")
    assert dciodvfy(path) == []
    read = dcmread(path)
    assert (read.LossyImageCompression, read.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert "LossyImageCompressionRatio" not in read


def test_a_frame_of_several_is_named(tmp_path):
    found = [replace(finding(source=LOOP), frame_number=2)]
    path = write(segmentation(found, LOOP, ALGORITHM), tmp_path / "seg.dcm")
    assert dciodvfy(path) == []
    item = dcmread(path).PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (LOOP.SOPClassUID, LOOP.SOPInstanceUID)
    assert item.ReferencedFrameNumber == 2


@pytest.mark.parametrize("spacing", [None, [0.5, 0.5]])
def test_where_a_source_lies_in_space_is_not_taken_over(tmp_path, spacing):
    """Half of it, as some devices write it, would be no place at all."""
    lying = image(PIXELS, FrameOfReferenceUID="1.2.3", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    lying.ImagePositionPatient = [0, 0, 0]
    if spacing:
        lying.PixelSpacing = spacing
    path = write(segmentation([finding(source=lying)], lying, ALGORITHM), tmp_path / "seg.dcm")
    assert dciodvfy(path) == []
    assert not {"Frame of Reference UID", "Image Orientation (Patient)", "Pixel Spacing"} & {
        element.name for element in dcmread(path).iterall()
    }


def test_ohif_is_told_an_orientation_that_the_object_itself_does_not_have(tmp_path):
    made = dcmread(
        write(segmentation([finding()], STILL, ALGORITHM), tmp_path / "regions.dcm"), stop_before_pixels=True
    )
    assert "Image Orientation (Patient)" not in str(made)
    study = Study(made.StudyInstanceUID, [Instance("regions", made, lambda: made)])
    (series,) = manifest(study, "http://localhost")["studies"][0]["series"]
    shared = series["instances"][0]["metadata"]["SharedFunctionalGroupsSequence"]
    assert shared["PlaneOrientationSequence"] == {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    assert shared["PixelMeasuresSequence"] == {}


def test_the_same_regions_make_the_same_instance_and_other_frames_another():
    made = [
        segmentation([finding()], STILL, ALGORITHM),
        segmentation([finding()], STILL, ALGORITHM),
        segmentation([finding(source=LOOP)], LOOP, ALGORITHM),
        segmentation([replace(finding(source=LOOP), frame_number=2)], LOOP, ALGORITHM),
    ]
    assert len({one.SOPInstanceUID for one in made}) == 3
    moments = ("SQ", "DA", "TM", "DT")  # of making; of a sequence the elements themselves are compared
    first, again = ([(e.tag, str(e.value)) for e in one.iterall() if e.VR not in moments] for one in made[:2])
    assert first == again


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([replace(finding(), whole_image=True)], "no region"),
        ([], "no region"),
        ([finding(((1.0, 1.0), (1.1, 1.0), (1.1, 1.1), (1.0, 1.0)))], "no region"),
        ([finding(), replace(finding(), frame_number=2)], "one frame"),
        ([finding(source=LOOP)], "one frame"),
    ],
)
def test_what_is_no_region_of_one_frame_is_refused(found, reason):
    with pytest.raises(ValueError, match=reason):
        segmentation(found, STILL, ALGORITHM)


def _concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


@pytest.mark.slow
@given(count=st.integers(1, 3), text=st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=200))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_selection_is_valid_and_says_that_no_person_made_it(tmp_path, count, text):
    chosen = [image(PIXELS, StudyInstanceUID=STILL.StudyInstanceUID) for _ in range(count)]
    evidence = [Evidence(one.SOPInstanceUID) for one in chosen]
    path = write(key_objects(evidence, chosen, ALGORITHM, text), tmp_path / "selection.dcm")
    assert dciodvfy(path) == []
    read = hd.ko.KeyObjectSelectionDocument.from_dataset(dcmread(path))
    assert {read.resolve_reference(one.SOPInstanceUID)[2] for one in chosen} == {one.SOPInstanceUID for one in chosen}
    (said,) = (one.TextValue for one in read.ContentSequence if one.ValueType == "TEXT" and _concept(one) == "113012")
    assert said.startswith("Proposed by tiny 0.1.0+12345678, not by a person.")
    assert text.strip() in said


def test_a_selection_names_the_frames_of_an_image_of_several(tmp_path):
    capture = image(PIXELS, StudyInstanceUID=LOOP.StudyInstanceUID)
    evidence = [Evidence(LOOP.SOPInstanceUID, 3), Evidence(capture.SOPInstanceUID), Evidence(LOOP.SOPInstanceUID, 1)]
    path = write(key_objects(evidence, [LOOP, capture], ALGORITHM, "The surest."), tmp_path / "selection.dcm")
    assert dciodvfy(path) == []
    shown = [one.ReferencedSOPSequence[0] for one in dcmread(path).ContentSequence if one.ValueType == "IMAGE"]
    assert {one.ReferencedSOPInstanceUID: one.get("ReferencedFrameNumber") for one in shown} == {
        LOOP.SOPInstanceUID: [1, 3],
        capture.SOPInstanceUID: None,
    }


def test_a_selection_needs_images_of_one_study():
    for chosen in ([], [STILL, LOOP]):
        with pytest.raises(ValueError, match="one study"):
            key_objects([], chosen, ALGORITHM, "")
