"""Results of sources as they come: bare, foreign, of many frames, in other scripts, with mistakes."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import JPEG2000, JPEGBaseline8Bit

from report.attributes import is_own_result
from report.examination import Evidence, ExaminationReport
from report.examination_report import examination_report
from report.fhir import fhir_bundle
from report.findings import Algorithm, Explanation, Finding, Footage, Segment
from report.key_objects import key_objects
from report.render import encapsulated_pdf, page
from report.secondary_capture import heatmap_capture
from report.segmentation import segmentation
from report.structured_report import findings_report
from report.suggest import draft, suggest
from tests.dicom_files import CAPTURE, by_pillow, encapsulated, image, write
from tests.validators import dciodvfy, tid1500reader

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model, not for clinical use")
SQUARE = ((1.0, 1.0), (9.0, 1.0), (9.0, 7.5), (1.0, 7.5), (1.0, 1.0))
PIXELS = np.random.default_rng(2).integers(0, 256, (21, 33, 3), dtype=np.uint8)

# Type 2: may be empty; many scopes leave some out altogether.
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
    "Manufacturer",
    "PatientOrientation",
    "Laterality",
)
OPTIONAL = ("SpecificCharacterSet", "LossyImageCompression", "AcquisitionContextSequence", "ImageType")


def explanation(label: str = "polyps") -> Explanation:
    return Explanation("Grad-CAM", "block5_conv4", label, 0.93217)


def capture_of(source: Dataset, frame: int = 1, label: str = "polyps", algorithm: Algorithm = ALGORITHM) -> Dataset:
    return heatmap_capture(source, frame, PIXELS, explanation(label), algorithm)


def report_of(source: Dataset, frame: int = 1, label: str = "polyps", algorithm: Algorithm = ALGORITHM) -> Dataset:
    return findings_report([Finding(explanation(label), source.SOPInstanceUID, frame, SQUARE)], [source], algorithm)


def regions_of(source: Dataset) -> Dataset:
    return segmentation([Finding(explanation(), source.SOPInstanceUID, 1, SQUARE)], source, ALGORITHM)


def selection_of(source: Dataset) -> Dataset:
    return key_objects([Evidence(str(source.SOPInstanceUID))], [source], ALGORITHM, "")


def pdf_of(source: Dataset) -> Dataset:
    return encapsulated_pdf(b"%PDF", ExaminationReport(), [source], ALGORITHM)


EVERY = pytest.mark.parametrize("make", [capture_of, report_of, regions_of, selection_of, pdf_of])


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def sources() -> dict[str, Dataset]:
    stack = np.stack([PIXELS, PIXELS[::-1]])
    latin = image(PIXELS, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")
    return {
        "endoscopic": image(PIXELS),
        "capture": image(PIXELS, sop_class=CAPTURE),
        "multi-frame": image(stack),
        "grey": image(PIXELS[..., 0].copy()),
        "empty": image(PIXELS, **dict.fromkeys(TYPE_2, "")),
        "bare": image(PIXELS, **dict.fromkeys((*TYPE_2, *OPTIONAL), None)),
        "unicode": image(PIXELS, PatientName="山田^太郎", StudyDescription="Koloskopie, größer"),
        "latin": latin,
        "ideographic": image(PIXELS, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
        "jpeg": encapsulated(
            PIXELS, JPEGBaseline8Bit, [by_pillow(PIXELS, "JPEG")], PhotometricInterpretation="YBR_FULL_422"
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", sources())
@pytest.mark.parametrize("make", [capture_of, report_of])
def test_results_of_any_source_are_valid_and_keep_its_patient(tmp_path, kind, make):
    # Through a file, as sources come.
    source = dcmread(write(sources()[kind], tmp_path / "source.dcm"))
    path = write(make(source, frame=source.get("NumberOfFrames", 1)), tmp_path / "result.dcm")
    assert dciodvfy(path) == []
    result = dcmread(path)
    assert is_own_result(result)
    assert result.StudyInstanceUID == source.StudyInstanceUID
    for keyword in TYPE_2[:9]:
        assert (result[keyword].value or "") == (source.get(keyword) or ""), keyword


@EVERY
def test_every_result_keeps_all_that_is_said_of_patient_and_study_and_names_the_scope(tmp_path, make):
    said = {
        "IssuerOfPatientID": "Krankenhaus Süd",
        "OtherPatientNames": "Roe^Jane",
        "PatientAge": "074Y",
        "PatientSize": "1.68",
        "PatientWeight": "70",
        "StudyDescription": "Koloskopie, größer",
        "ProcedureCodeSequence": [code("73761001", "SCT", "Größe")],
        "ReasonForVisitCodeSequence": [code("1", "99X", "Größe")],
    }
    source = image(PIXELS, SpecificCharacterSet="ISO_IR 100", **said)
    source = dcmread(write(source, tmp_path / "source.dcm"))
    path = write(make(source), tmp_path / "result.dcm")
    assert dciodvfy(path) == []
    result = dcmread(path)
    assert {keyword: result[keyword].value for keyword in said} == {keyword: source[keyword].value for keyword in said}
    names = {item.PurposeOfReferenceCodeSequence[0].CodeValue: item for item in result.ContributingEquipmentSequence}
    assert names["109101"].Manufacturer == source.Manufacturer


WRONG = {"PatientSex": "UNKNOWN", "PatientBirthDate": "31.1.50", "StudyDate": "2024-01-02", "StudyTime": "25:61"}
ACR_NEMA = {"PatientBirthDate": "1950.01.31", "StudyDate": "2024.01.02", "StudyTime": "10:11:12"}


@EVERY
@pytest.mark.parametrize("wrong", [WRONG, ACR_NEMA])
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_what_no_viewer_could_read_is_left_empty_and_the_rest_kept(tmp_path, make, wrong):
    codes = [code("", "SCT", "Colonoscopy"), code("73761001", "SCT", "Colonoscopy"), code("1", "SCT", "")]
    attributes = {**wrong, "BurnedInAnnotation": "MAYBE", "ProcedureCodeSequence": codes}
    with disable_value_validation():
        source = dcmread(write(image(PIXELS, **attributes), tmp_path / "source.dcm"))
    path = write(make(source), tmp_path / "result.dcm")
    assert dciodvfy(path) == []
    result = dcmread(path)
    assert [result[keyword].value for keyword in wrong] == [""] * len(wrong)
    assert [item.CodeValue for item in result.ProcedureCodeSequence] == ["73761001"]
    assert result.get("BurnedInAnnotation") in (None, "YES" if make is pdf_of else None)
    assert (result.PatientName, result.PatientID) == ("Doe^Jane", "4711")


@EVERY
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_identifiers_and_names_stay_whatever_is_wrong_with_them(tmp_path, make):
    wrong = {
        "PatientID": ["4711", "x" * 70],
        "PatientName": "Doe" * 30,
        "AccessionNumber": "A" * 17,
        "StudyID": "1" * 17,
        "StudyTime": "101112.5",
    }
    with disable_value_validation():
        source = dcmread(write(image(PIXELS, **wrong), tmp_path / "source.dcm"))
        result = dcmread(write(make(source), tmp_path / "result.dcm"))
    assert {keyword: result[keyword].value for keyword in wrong} == wrong


@pytest.mark.parametrize("make", [capture_of, report_of])
def test_the_source_is_not_changed(tmp_path, make):
    path = write(sources()["latin"], tmp_path / "source.dcm")
    source = dcmread(path)
    del source.StudyID
    make(source)
    expected = dcmread(path)
    del expected.StudyID
    assert source == expected


@pytest.mark.slow
@pytest.mark.parametrize("label", ["Kolon-Polyp, groß", "ポリープ", "x" * 200])
@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO_IR 100", None])
@pytest.mark.parametrize("make", [capture_of, report_of])
def test_a_class_may_have_any_name(tmp_path, label, charset, make):
    source = image(PIXELS, PatientName="Müller^Zoë" if charset else "Mueller^Zoe", SpecificCharacterSet=charset)
    source = dcmread(write(source, tmp_path / "source.dcm"))
    path = write(make(source, label=label), tmp_path / "result.dcm")
    assert dciodvfy(path) == []
    result = dcmread(path)
    assert result.PatientName == source.PatientName
    shown = result.DerivationDescription if make is capture_of else str(hd.sr.srread(path))
    assert label[:60] in shown


def test_a_notice_in_any_script_is_read_as_it_was_written(tmp_path):
    algorithm = Algorithm("modèle", "1", "Demonstrationsmodell – nicht für die Klinik")
    source = dcmread(write(image(PIXELS, SpecificCharacterSet="ISO_IR 100"), tmp_path / "source.dcm"))
    capture = dcmread(write(capture_of(source, algorithm=algorithm), tmp_path / "capture.dcm"))
    assert capture.DerivationDescription.endswith(algorithm.notice)
    report = dcmread(write(report_of(source, algorithm=algorithm), tmp_path / "report.dcm"))
    assert algorithm.notice in str(report)


def test_the_pixels_of_the_capture_are_those_of_the_picture():
    assert (capture_of(image(PIXELS)).pixel_array == PIXELS).all()


@pytest.mark.parametrize(
    ("syntax", "kind", "method"), [(JPEGBaseline8Bit, "JPEG", "ISO_10918_1"), (JPEG2000, "JPEG2000", "ISO_15444_1")]
)
def test_lossy_compression_is_inherited_even_where_the_source_does_not_admit_it(tmp_path, syntax, kind, method):
    source = encapsulated(PIXELS, syntax, [by_pillow(PIXELS, kind)], LossyImageCompression=None)
    capture = capture_of(dcmread(write(source, tmp_path / "source.dcm")))
    assert capture.LossyImageCompression == "01"
    assert capture.LossyImageCompressionMethod == method


@pytest.mark.parametrize("burned_in", ["YES", "NO", None])
def test_burned_in_annotation_is_inherited_and_never_invented(burned_in):
    capture = capture_of(image(PIXELS, BurnedInAnnotation=burned_in))
    assert capture.get("BurnedInAnnotation") == burned_in


@pytest.mark.parametrize(
    ("probability", "written", "stored"),
    [(0.99974, "> 99.9 %", 99.97), (0.999999, "> 99.9 %", 99.99), (1e-7, "< 0.1 %", 0.01), (1.0, "100.0 %", 100)],
)
def test_no_result_says_that_a_machine_is_certain_where_it_is_not(probability, written, stored):
    source = image(PIXELS)
    found = Finding(replace(explanation(), probability=probability), source.SOPInstanceUID, 1, SQUARE)
    (proposed,) = suggest([found])
    report = draft([proposed], ALGORITHM, ExaminationReport(), 1, 1)
    document = examination_report(report, [source], ALGORITHM)
    said = {
        "capture": heatmap_capture(source, 1, PIXELS, found.explanation, ALGORITHM).DerivationDescription,
        "reason": proposed.reason,
        "report": " ".join(str(one.value) for one in document.iterall() if one.keyword == "TextValue"),
        "page": unescape(page(report, source, ALGORITHM, {})),
    }
    assert {name for name, text in said.items() if written in text} == set(said)
    seen = Segment("polyps", 0, 1, probability, probability, video=source.SOPInstanceUID)
    measured = findings_report([found], [source], ALGORITHM, footage=Footage((seen,), videos=(source,)))
    assert [float(one.value) for one in measured.iterall() if one.keyword == "NumericValue"] == [stored] * 3
    bundle = fhir_bundle(report, [source], ALGORITHM).model_dump_json()
    assert [float(one) for one in re.findall(r'"value":([0-9.]+),"unit":"%"', bundle)] == [stored]


def test_uids_differ_by_source_frame_model_layer_and_class():
    source, other = image(PIXELS), image(np.stack([PIXELS] * 2))
    made = [
        capture_of(source),
        capture_of(other, frame=1),
        capture_of(other, frame=2),
        capture_of(source, label="esophagitis"),
        capture_of(source, algorithm=Algorithm("tiny", "0.1.0+87654321")),
        heatmap_capture(source, 1, PIXELS, Explanation("Grad-CAM", "block1_conv1", "polyps", 0.9), ALGORITHM),
        report_of(source),
        report_of(other),
        report_of(source, algorithm=Algorithm("tiny", "0.1.0+87654321")),
    ]
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert capture_of(source).SOPInstanceUID == made[0].SOPInstanceUID
    assert report_of(source).SOPInstanceUID == made[6].SOPInstanceUID
    assert all(one.SOPInstanceUID.is_valid for one in made)


def test_a_report_has_a_group_a_finding_and_dcmqi_reads_each(tmp_path):
    first, second = image(PIXELS), image(PIXELS)
    second.StudyInstanceUID = first.StudyInstanceUID
    findings = [
        Finding(explanation("polyps"), first.SOPInstanceUID, 1, SQUARE, number=1),
        Finding(explanation("polyps"), first.SOPInstanceUID, 1, SQUARE, number=2),
        Finding(explanation("normal-cecum"), second.SOPInstanceUID, 1, SQUARE, whole_image=True),
        Finding(explanation("something new"), second.SOPInstanceUID, 1, SQUARE),
    ]
    path = write(findings_report(findings, [first, second], ALGORITHM), tmp_path / "report.dcm")
    groups = hd.sr.srread(path).content.get_planar_roi_measurement_groups()
    assert [group.finding_type.meaning for group in groups] == [
        "Polyp of colon",
        "Polyp of colon",
        "Normal",
        "something new",
    ]
    assert [[site.value.meaning for site in group.finding_sites] for group in groups] == [
        ["Colon"],
        ["Colon"],
        ["Cecum"],
        [],
    ]
    for group in groups:
        np.testing.assert_allclose(group.roi.value, SQUARE)
    content = tid1500reader(path, tmp_path)
    assert [group["Finding"]["CodeMeaning"] for group in content["Measurements"]] == [
        "Polyp of colon",
        "Polyp of colon",
        "Normal",
        "something new",
    ]
    assert {float(group["measurementItems"][0]["value"]) for group in content["Measurements"]} == {93.22}


def test_the_study_s_own_procedure_is_reported(tmp_path):
    code = hd.sr.CodedConcept("73761001", "SCT", "Colonoscopy")
    source = image(PIXELS, ProcedureCodeSequence=[code])
    path: Path = write(report_of(source), tmp_path / "report.dcm")
    assert "Colonoscopy" in str(dcmread(path))
    assert dciodvfy(path) == []


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        ([], "at least one finding"),
        ([Finding(explanation(), "1.2.3", 1, SQUARE)], "1.2.3"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(findings: list[Any], reason):
    with pytest.raises(ValueError, match=reason):
        findings_report(findings, [image(PIXELS)], ALGORITHM)


@pytest.mark.parametrize("number", [0, 3])
def test_a_frame_that_the_source_does_not_have_is_refused(number):
    source = image(np.stack([PIXELS] * 2))
    found = [Finding(explanation(), source.SOPInstanceUID, number, SQUARE)]
    for make in (capture_of, report_of, lambda *_: segmentation(found, source, ALGORITHM)):
        with pytest.raises(ValueError, match=f"has no frame {number}: it has 2"):
            make(source, number)


@pytest.mark.parametrize("probability", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_and_no_contour_is_refused_where_it_is_said(probability):
    with pytest.raises(ValueError, match="none from 0 to 1"):
        replace(explanation(), probability=probability)
    with pytest.raises(ValueError, match="not finite"):
        Finding(explanation(), "1.2", 1, ((1.0, float("nan")), *SQUARE))


def test_sources_of_two_studies_are_refused():
    first, second = image(PIXELS), image(PIXELS)
    with pytest.raises(ValueError, match="one study"):
        findings_report([Finding(explanation(), first.SOPInstanceUID, 1, SQUARE)], [first, second], ALGORITHM)
