"""Files and folders become studies: what belongs together, what is left out and why."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import MPEG4HP41, BasicTextSRStorage, VideoEndoscopicImageStorage, generate_uid

from monai_label_app.files import find_files
from monai_label_app.frames import UnreadableError, frames
from monai_label_app.reading import convert_pictures, read_instances, read_studies
from report.endoscopic_image import Examination
from tests.dicom_files import by_pillow, encapsulated, image, write


def structured_report() -> Dataset:
    dataset = image(np.zeros((2, 2, 3), np.uint8), sop_class=BasicTextSRStorage, Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(dataset, keyword)
    return dataset


def test_images_are_sorted_into_studies_by_series_and_instance_number(polyp, tmp_path):
    studies = [generate_uid(), generate_uid()]
    for number, (study, series, instance) in enumerate([(0, 2, 1), (1, 1, 1), (0, 1, 10), (0, 1, 9)]):
        dataset = image(
            polyp,
            StudyInstanceUID=studies[study],
            SeriesInstanceUID=f"1.2.{series}",
            SeriesNumber=series,
            InstanceNumber=instance,
        )
        write(dataset, tmp_path / f"{number}.dcm")
    found, problems = read_studies([tmp_path])
    assert not problems
    assert {study.uid for study in found} == set(studies)
    (first,) = (study for study in found if study.uid == studies[0])
    order = [(one.header.SeriesNumber, one.header.InstanceNumber) for one in first.instances]
    assert order == [(1, 9), (1, 10), (2, 1)]


def test_an_object_that_lies_in_two_places_is_taken_once(polyp, tmp_path):
    path = write(image(polyp), tmp_path / "a.dcm")
    shutil.copy(path, tmp_path / "b.dcm")
    (study,), problems = read_studies([tmp_path])
    assert len(study.instances) == 1
    assert not problems


def test_a_picture_and_the_still_that_was_made_of_it_are_one_image(polyp, tmp_path):
    (tmp_path / "a.png").write_bytes(by_pillow(polyp, "PNG"))
    (study,), _ = read_studies([tmp_path])
    (tmp_path / "results").mkdir()
    write(study.instances[0].read(), tmp_path / "results" / "still.dcm")
    (again,), problems = read_studies([tmp_path])
    assert not problems
    assert [one.header.SOPInstanceUID for one in again.instances] == [study.instances[0].header.SOPInstanceUID]


def test_the_pictures_of_one_folder_are_one_study_those_of_another_another(polyp, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            turned = (
                np.roll(polyp, 10 * number + len(folder), axis=1) if folder == "one" else polyp[::-1, :: number + 1]
            )
            (tmp_path / folder / f"{number}.png").write_bytes(by_pillow(np.ascontiguousarray(turned), "PNG"))
    studies, problems = read_studies([tmp_path])
    assert not problems
    assert [len(study.instances) for study in studies] == [2, 2]
    assert studies[0].uid != studies[1].uid
    for study in studies:
        for instance in study.instances:
            assert instance.converted
            (frame,) = frames(instance.read(), instance.origin)
            assert frame.number == 1


def test_hidden_files_and_bookkeeping_are_passed_over(polyp, tmp_path):
    write(image(polyp), tmp_path / "a.dcm")
    (tmp_path / ".hidden").mkdir()
    for name in (".DS_Store", "summary.json", "DICOMDIR", "datastore_v2.json", ".hidden/b.dcm"):
        (tmp_path / name).write_bytes(b"not DICOM")
    assert [path.name for path in find_files([tmp_path])] == ["a.dcm"]
    assert read_studies([tmp_path])[1] == []


def test_a_report_beside_images_is_passed_over_but_refused_where_it_is_named(polyp, tmp_path):
    write(image(polyp), tmp_path / "a.dcm")
    report = write(structured_report(), tmp_path / "report.dcm")
    studies, problems = read_studies([tmp_path])
    assert (len(studies), problems) == (1, [])
    studies, (problem,) = read_studies([report])
    assert not studies
    assert "is a Basic Text SR Storage" in problem.reason


def test_a_damaged_video_is_refused_by_name(polyp, tmp_path):
    dataset = encapsulated(polyp, MPEG4HP41, [b"\0\0\1\xb3"], sop_class=VideoEndoscopicImageStorage)
    write(dataset, tmp_path / "video.dcm")
    studies, (problem,) = read_studies([tmp_path])
    assert not studies
    assert problem.reason.startswith(str(tmp_path / "video.dcm"))
    assert "is no video that can be read" in problem.reason


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(UnreadableError, match="does not exist"):
        read_studies([tmp_path / "none"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(polyp, tmp_path):
    path = write(image(polyp), tmp_path / "a.dcm")
    path.chmod(0)
    _, (problem,) = read_studies([tmp_path])
    assert "Permission denied" in problem.reason


def test_the_same_picture_twice_is_two_instances(polyp, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(by_pillow(polyp, "PNG"))
    instances, problems = convert_pictures(paths, Examination())
    assert not problems
    assert len({one.header.SOPInstanceUID for one in instances}) == 2
    assert [one.header.InstanceNumber for one in instances] == [1, 2]


def test_converting_again_gives_the_same_uids_and_a_bad_picture_is_left_out(polyp_files, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    once, problems = convert_pictures([*polyp_files, bad], Examination(patient_id="1"))
    again, _ = convert_pictures(polyp_files, Examination(patient_id="1"))
    other, _ = convert_pictures(polyp_files, Examination(patient_id="2"))
    assert [problem.origin for problem in problems] == [str(bad)]
    assert len(once) == len(polyp_files)
    uids = [[(i.header.StudyInstanceUID, i.header.SOPInstanceUID) for i in made] for made in (once, again, other)]
    assert uids[0] == uids[1]
    assert not {study for study, _ in uids[0]} & {study for study, _ in uids[2]}
    assert not {uid for _, uid in uids[0]} & {uid for _, uid in uids[2]}


def test_headers_are_read_without_pixels_and_files_when_asked(polyp, tmp_path):
    path = write(image(polyp), tmp_path / "a.dcm")
    (instance,), problems = read_instances([path])
    assert not problems
    assert "PixelData" not in instance.header
    assert instance.read() == dcmread(path)
    path.unlink()
    with pytest.raises(UnreadableError, match="cannot be read"):
        instance.read()
