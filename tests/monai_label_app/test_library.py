"""What is stored in a folder of studies: each object once, whole, and found at once."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from monai_label_app import library as library_module
from monai_label_app.files import read_header
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from tests.dicom_files import write

STILLS = sorted(STUDY.iterdir())[:3]


def stills() -> list[Dataset]:
    return [dcmread(file) for file in STILLS]


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_objects_go_into_the_folder_of_their_study_and_are_found_at_once(tmp_path):
    library = FolderLibrary(tmp_path)
    assert library.studies() == []
    given = stills()
    assert library.store(given) == [one.SOPInstanceUID for one in given]
    (study,) = library.studies()
    assert {one.header.SOPInstanceUID for one in study.instances} == {one.SOPInstanceUID for one in given}
    for one in given:
        kept = dcmread(tmp_path / one.StudyInstanceUID / f"{one.SOPInstanceUID}.dcm")
        assert kept == one
        assert kept.file_meta.TransferSyntaxUID == one.file_meta.TransferSyntaxUID
        assert library.instance(one.SOPInstanceUID).read() == one


def test_an_object_that_is_there_is_left_as_it_is_wherever_it_lies(tmp_path):
    library, (first, second, third) = FolderLibrary(tmp_path), stills()
    (tmp_path / "by hand").mkdir()
    write(first, tmp_path / "by hand" / "a.dcm")
    changed = dcmread(STILLS[0])
    changed.StudyDescription = "another"
    assert library.store([changed, second, second]) == [second.SOPInstanceUID]
    assert library.store([first, second, third]) == [third.SOPInstanceUID]
    assert library.store(stills()) == []
    assert library.instance(first.SOPInstanceUID).read() == first
    assert len(list(tmp_path.rglob("*.dcm"))) == 3


def test_what_fails_halfway_leaves_nothing(tmp_path):
    def interrupted() -> Iterator[Dataset]:
        yield from stills()
        raise OSError(errno.ENOSPC, "No space left on device")

    library = FolderLibrary(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        library.store(interrupted())
    assert library.studies() == []
    assert files(tmp_path) == []


def test_several_who_store_the_same_at_once_store_it_once(tmp_path):
    library = FolderLibrary(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        stored = [uid for uids in pool.map(lambda _: library.store(stills()), range(4)) for uid in uids]
    assert sorted(stored) == sorted(one.SOPInstanceUID for one in stills())
    assert len(list(tmp_path.rglob("*.dcm"))) == 3


def test_only_what_changed_is_read_again(tmp_path, monkeypatch):
    read: list[Path] = []

    def header(file: Path) -> Dataset:
        read.append(file)
        return read_header(file)

    monkeypatch.setattr(library_module, "read_header", header)
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    library, (first, second, third) = FolderLibrary(tmp_path), stills()
    library.store([first, second])
    read.clear()
    library.store([third])
    assert [file.stem for file in read] == [third.SOPInstanceUID]
    first.StudyDescription = "changed in its place"
    write(first, tmp_path / first.StudyInstanceUID / f"{first.SOPInstanceUID}.dcm")
    assert library.instance(first.SOPInstanceUID).header.StudyDescription == "changed in its place"
    (tmp_path / second.StudyInstanceUID / f"{second.SOPInstanceUID}.dcm").unlink()
    assert {one.header.SOPInstanceUID for one in library.studies()[0].instances} == {
        first.SOPInstanceUID,
        third.SOPInstanceUID,
    }
