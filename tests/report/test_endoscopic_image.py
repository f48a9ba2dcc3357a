"""Pictures as VL Endoscopic Images: valid for dciodvfy, lossless in their pixels, steady in their UIDs."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from monai_label_app.pictures import read_picture
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from tests.validators import dciodvfy

KNOWN = Examination(
    patient_id="4711",
    patient_name="Doe^Jane",
    patient_birth_date="19500131",
    patient_sex="F",
    study_date="20240229",
    study_time="235959",
    study_description="Colonoscopy",
    accession_number="A-1",
    referring_physician_name="House^Gregory",
)


def of_study(examination: Examination, *stills: Still) -> Examination:
    return study_of(examination, [still.fingerprint for still in stills])


@pytest.mark.parametrize("examination", [Examination(), KNOWN], ids=["anonymous", "known"])
def test_real_pictures_become_valid_objects_with_their_very_pixels(polyp_files, tmp_path, examination):
    stills = [read_picture(file) for file in polyp_files]
    examination = of_study(examination, *stills)
    for number, still in enumerate(stills, start=1):
        path = tmp_path / f"{number}.dcm"
        endoscopic_image(still, examination, number).save_as(path, enforce_file_format=True)
        assert dciodvfy(path) == []
        read = dcmread(path)
        assert (read.pixel_array == still.pixels).all()
        assert read.LossyImageCompression == "01"
        assert float(read.LossyImageCompressionRatio) == pytest.approx(still.lossy_ratio, abs=0.01)
        assert read.InstanceNumber == number


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 7), (151, 203)])
def test_a_picture_of_odd_size_without_loss_is_valid(tmp_path, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    still = Still(pixels)
    path = tmp_path / "a.dcm"
    endoscopic_image(still, of_study(Examination(), still), 1).save_as(path, enforce_file_format=True)
    assert dciodvfy(path) == []
    read = dcmread(path)
    assert read.pixel_array.tolist() == pixels.tolist()
    assert read.LossyImageCompression == "00"


@pytest.mark.parametrize(("width", "syntax"), [(203, JPEGLSLossless), (202, ExplicitVRLittleEndian)])
def test_a_still_never_ends_on_a_byte_that_viewers_take_for_a_pixel(polyp, width, syntax):
    still = Still(np.ascontiguousarray(polyp[:, :width]))
    image = endoscopic_image(still, of_study(Examination(), still), 1)
    assert image.file_meta.TransferSyntaxUID == syntax
    assert (image.pixel_array == still.pixels).all()


@pytest.mark.parametrize("name", ["Müller^Zoë", "Иванов^Пётр", "山田^太郎", "Nguyễn^Ánh"])
def test_any_script_survives_in_a_name(polyp, tmp_path, name):
    still = Still(polyp)
    path = tmp_path / "a.dcm"
    image = endoscopic_image(still, of_study(Examination(patient_name=name), still), 1)
    image.save_as(path, enforce_file_format=True)
    assert dciodvfy(path) == []
    assert dcmread(path).PatientName == name


def test_all_that_is_known_of_an_examination_stands_in_the_image(polyp):
    image = endoscopic_image(Still(polyp), of_study(KNOWN, Still(polyp)), 1)
    assert (image.PatientID, image.PatientName, image.PatientSex) == ("4711", "Doe^Jane", "F")
    assert (image.PatientBirthDate, image.StudyDate, image.StudyTime) == ("19500131", "20240229", "235959")
    assert (image.StudyDescription, image.AccessionNumber) == ("Colonoscopy", "A-1")
    assert image.ReferringPhysicianName == "House^Gregory"


def test_uids_derive_from_patient_study_and_pictures(polyp):
    one, two = Still(polyp), Still(polyp[::-1].copy())
    first = of_study(KNOWN, one, two)
    assert of_study(KNOWN, two, one) == first, "the order in which the files come must not matter"
    assert of_study(KNOWN, one).study_instance_uid != first.study_instance_uid
    for change in ({"patient_id": "4712"}, {"patient_name": "Doe^John"}, {"accession_number": "A-2"}):
        other = Examination(**{**vars(KNOWN), **change})
        assert of_study(other, one, two).study_instance_uid != first.study_instance_uid
    image = endoscopic_image(one, first, 1)
    assert endoscopic_image(one, first, 1).SOPInstanceUID == image.SOPInstanceUID
    assert endoscopic_image(one, first, 2, copy=2).SOPInstanceUID != image.SOPInstanceUID
    assert endoscopic_image(two, first, 2).SOPInstanceUID != image.SOPInstanceUID
    assert endoscopic_image(two, first, 2).SeriesInstanceUID == image.SeriesInstanceUID


def test_a_study_uid_that_is_given_is_kept_and_one_that_is_missing_refused(polyp):
    given_uid = of_study(Examination(study_instance_uid="1.2.3.4"), Still(polyp))
    assert given_uid.study_instance_uid == "1.2.3.4"
    with pytest.raises(ValueError, match="study UID"):
        endoscopic_image(Still(polyp), Examination(), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patient_birth_date": "1950-01-31"},
        {"patient_birth_date": "19500230"},
        {"study_date": "2024"},
        {"study_date": "2024 1 1"},
        {"study_time": "250000"},
        {"study_time": "12:30"},
        {"patient_sex": "female"},
        {"study_instance_uid": "1.2.a"},
        {"study_instance_uid": "1." * 40 + "1"},
        {"patient_id": "a\\b"},
        {"patient_name": "Doe\n^Jane"},
        {"accession_number": "12345678901234567"},
        {"study_description": "x" * 65},
    ],
)
def test_what_dicom_cannot_hold_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name) as caught:
        Examination(**wrong)
    assert "\n" not in str(caught.value)


@given(patient_id=st.text(max_size=70), patient_name=st.text(max_size=70), study_description=st.text(max_size=70))
def test_text_that_is_accepted_comes_back_from_the_file_as_it_was(patient_id, patient_name, study_description):
    try:
        examination = Examination(patient_id=patient_id, patient_name=patient_name, study_description=study_description)
    except ValueError as error:
        assert "patient" in str(error) or "study" in str(error)
        return
    still = Still(np.zeros((2, 2, 3), np.uint8))
    stream = BytesIO()
    endoscopic_image(still, of_study(examination, still), 1).save_as(stream, enforce_file_format=True)
    stream.seek(0)
    read = dcmread(stream)
    # Spaces at the ends are padding in DICOM (PS3.5 6.2), and delimiters at the end of a name say nothing.
    assert (read.PatientID or "").strip() == patient_id.strip()
    assert str(read.PatientName or "").rstrip("^= ") == patient_name.rstrip("^= ")
    assert (read.get("StudyDescription") or "").strip() == study_description.strip()
