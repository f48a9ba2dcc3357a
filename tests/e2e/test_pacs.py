"""A library and a datastore over a real PACS."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import MPEG4HP41

from monai_label_app import compatibility  # noqa: F401
from monai_label_app import library as library_module
from monai_label_app.library import PacsLibrary
from monai_label_app.pacs import NotInPacsError, Pacs, PacsError
from monai_label_app.sample import STUDY
from report.endoscopic_image import Examination, Still, endoscopic_image
from tests.e2e.conftest import Orthanc, endolens
from tests.video_files import encode, pan, wrapped

pytestmark = pytest.mark.e2e


def _store_copy(orthanc: Orthanc, folder: Path, study: int, instance: int) -> pydicom.Dataset:
    """Store a sample still as instance of a study of its own."""
    still = pydicom.dcmread(sorted(STUDY.iterdir())[instance])
    still.StudyInstanceUID = f"1.2.3.{study}"
    still.SeriesInstanceUID = f"1.2.3.{study}.1"
    still.SOPInstanceUID = still.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.1.{instance}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    still.save_as(folder / "still.dcm")
    orthanc.store(folder)
    return still


def test_every_study_is_listed_and_a_new_image_is_seen(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    for study in (1, 2, 3):
        _store_copy(orthanc, tmp_path / "still", study, 0)
    assert Pacs(orthanc.dicomweb).studies() == {f"1.2.3.{study}": 1 for study in (1, 2, 3)}
    library = PacsLibrary(Pacs(orthanc.dicomweb))
    assert {study.uid: len(study.instances) for study in library.studies()} == {f"1.2.3.{n}": 1 for n in (1, 2, 3)}
    still = _store_copy(orthanc, tmp_path / "still", 2, 1)
    assert library.instance(still.SOPInstanceUID).read().PixelData == still.PixelData
    assert len(library.study("1.2.3.2").instances) == 2
    with pytest.raises(NotInPacsError):
        library.study("1.2.3.9")
    with pytest.raises(LookupError):
        library.instance("1.2.3.9")


def test_a_video_in_the_pacs_gets_its_stills_and_clips_there(
    orthanc: Orthanc, real_images: Path, tmp_path: Path
) -> None:
    (polyp, *_) = sorted((real_images / "kvasir-seg" / "images").glob("*.jpg"))
    file = encode(tmp_path / "a.mp4", pan(polyp, 30, (320, 240), 1), options={"g": "10"})
    video = wrapped(file, MPEG4HP41, 30, 25)
    pacs = Pacs(orthanc.dicomweb)
    pacs.store([video])
    study = str(video.StudyInstanceUID)
    summary = tmp_path / "out" / "summary.json"
    for _ in range(2):  # analysed again, nothing is there twice
        endolens("analyze", "--pacs", orthanc.dicomweb, "--study", study, "--out", tmp_path / "out")
        (segment,) = json.loads(summary.read_text())["segments"]
        there = {str(one.header.SOPInstanceUID): one.header for one in pacs.study(study).instances}
        assert {segment["still"], segment["clip_dicom"]} < there.keys()
        assert there[segment["clip_dicom"]].PatientID == video.PatientID
        assert sorted(file.name for file in (tmp_path / "out" / study).rglob("*") if file.is_file()) == sorted(
            [Path(segment["clip"]).name, "timeline.html"]
        )
        assert Path(segment["clip"]).read_bytes()[4:8] == b"ftyp"
        kinds = sorted(one.SOPClassUID.name.removesuffix(" Storage") for one in there.values())
        assert kinds == [
            *("Comprehensive SR", "Secondary Capture Image", "VL Endoscopic Image"),
            *("Video Endoscopic Image", "Video Endoscopic Image"),
        ]


def test_datastore_reads_images_from_the_pacs_and_keeps_labels(orthanc: Orthanc, tmp_path: Path) -> None:
    from monailabel.interfaces.exception import ImageNotFoundException

    from monai_label_app.datastore import StudyDatastore

    still = _store_copy(orthanc, tmp_path / "still", 1, 0)
    datastore = StudyDatastore(PacsLibrary(Pacs(orthanc.dicomweb)), tmp_path / "cache", lambda: ["polyps"])
    uid = str(still.SOPInstanceUID)
    assert datastore.list_images() == datastore.get_unlabeled_images() == [uid]
    assert pydicom.dcmread(datastore.get_image_uri(uid)).PixelData == still.PixelData
    (tmp_path / "label.json").write_text('{"class": "polyps", "by": "a doctor"}')
    datastore.save_label(uid, str(tmp_path / "label.json"), "final", {})
    assert datastore.get_unlabeled_images() == []
    assert datastore.get_label_info(uid, "final")["by"] == "a doctor"
    (learned,) = datastore.corrected()
    assert (learned.label, learned.group) == ("polyps", str(still.StudyInstanceUID))
    assert pydicom.dcmread(learned.path).PixelData == still.PixelData
    for wrong in ("1.2.3.9", "../cache", "/etc/passwd"):
        with pytest.raises(ImageNotFoundException):
            datastore.get_image_uri(wrong)


def test_the_pacs_gets_what_it_has_not_yet_and_the_library_shows_it_at_once(orthanc: Orthanc, tmp_path: Path) -> None:
    stills = [pydicom.dcmread(file) for file in sorted(STUDY.iterdir())[:3]]
    library = PacsLibrary(Pacs(orthanc.dicomweb))
    assert library.studies() == []
    assert library.store(stills[:2]) == [one.SOPInstanceUID for one in stills[:2]]
    changed = pydicom.dcmread(sorted(STUDY.iterdir())[0])
    changed.StudyDescription = "another"
    assert library.store([changed, *stills, stills[2]]) == [stills[2].SOPInstanceUID]
    (study,) = library.studies()
    assert len(study.instances) == len(orthanc.instances()) == 3
    made = endoscopic_image(Still(np.full((40, 50, 3), 9, np.uint8)), Examination(study_instance_uid="1.2.3"), 1)
    assert library.store([made]) == [made.SOPInstanceUID]
    kept = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, orthanc.download(tmp_path))}
    for one in [*stills, made]:
        assert kept[one.SOPInstanceUID].PixelData == one.PixelData
        assert kept[one.SOPInstanceUID].get("StudyDescription") == one.get("StudyDescription")
    orthanc.process.terminate()
    orthanc.process.wait(20)
    with pytest.raises(PacsError, match="no PACS answers"):
        library.store(stills)
