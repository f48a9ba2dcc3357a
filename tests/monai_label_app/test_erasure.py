"""What is erased is gone from every file, and of the other study nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from click.testing import CliRunner

from monai_label_app import web
from monai_label_app.access.trail import TRAIL, accesses
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.cli import main
from monai_label_app.datastore import open_datastore
from monai_label_app.library import open_library
from monai_label_app.sample import STUDY
from monai_label_app.viewers.ohif import Viewer

SECRETS = {"1.2.3": ("Doctor Erased", "a polyp to be forgotten"), "1.2.3.4": ("Doctor Kept", "a polyp to be kept")}


@pytest.fixture
def studies(tmp_path: Path, classifier: Classifier) -> Path:
    """Two studies, the UIDs of one beginning as the other's, each with a report, a label and a copy of its image."""
    for uid in SECRETS:
        still = pydicom.dcmread(min(STUDY.iterdir()))
        still.StudyInstanceUID, still.SOPInstanceUID = uid, f"{uid}.5"
        still.file_meta.MediaStorageSOPInstanceUID = f"{uid}.5"
        still.save_as(tmp_path / f"{uid}.dcm")
    library = open_library(str(tmp_path))
    datastore = open_datastore(library, str(tmp_path), lambda: classifier.card.classes)
    client = web.create_app(library, lambda: classifier, Viewer(), False, datastore=lambda: datastore).test_client()
    for uid, (name, text) in SECRETS.items():
        label = {"class": classifier.card.classes[0], "by": name, "comment": text}
        assert client.post(f"/api/v1/images/{uid}.5/frames/1/labels", json=label).status_code == 201
        opened = client.post(f"/api/v1/studies/{uid}/report", json={})
        report = {**opened.get_json()["report"], "indication": text}
        saved = client.put(f"/api/v1/studies/{uid}/report", json={"report": report, "author": name},
                           headers={"If-Match": opened.headers["ETag"]})  # fmt: skip
        assert saved.status_code == 200
    return tmp_path


def test_label_files_of_any_name_are_erased_and_of_each_image_its_own_alone(studies: Path) -> None:
    labels = studies / "labels" / "original"
    erased = ["1.2.3.5.2024.nrrd", "1.2.3.5.1", "1.2.3.5.nii-old", "1.2.3.5", ".1.2.3.5.nrrd.partial"]
    # The last is of an image that has been asked for and has left the folder since.
    kept = ["1.2.3.4.5.nrrd", "1.2.3.50.nrrd", "1.2.3.5-nrrd", "1.2.3.5.6.nrrd"]
    for name in [*erased, *kept]:
        (labels / name).write_text(name)
    index = json.loads((studies / "datastore_v2.json").read_text())
    index["objects"]["1.2.3.5.6"] = index["objects"]["1.2.3.4.5"]
    (studies / "datastore_v2.json").write_text(json.dumps(index))
    result = CliRunner().invoke(main, ["erase", "--studies", str(studies), "1.2.3", "--yes"])
    assert "6 label files" in result.output, "those, and the correction"
    assert sorted(file.name for file in labels.iterdir()) == sorted(kept)


def test_a_damaged_list_of_labels_is_named_before_anything_is_erased(studies: Path) -> None:
    before = {file: file.read_bytes() for file in (studies / "labels").rglob("*.json")}
    (studies / "datastore_v2.json").write_text('{"name": "cut o')
    result = CliRunner().invoke(main, ["erase", "--studies", str(studies), "1.2.3", "--yes"])
    assert result.exit_code == 1 and "datastore_v2.json" in result.output and "is damaged" in result.output
    assert {file: file.read_bytes() for file in (studies / "labels").rglob("*.json")} == before


def test_what_is_erased_is_in_no_file_and_the_other_study_is_whole(studies: Path) -> None:
    def holding(text: str) -> set[str]:
        files = [file for file in studies.rglob("*") if file.is_file()]
        found = {str(file.relative_to(studies)) for file in files if text.encode() in file.read_bytes()}
        return {name.removesuffix("-wal") for name in found}  # SQLite moves it from there when it likes

    before = {uid: [holding(text) for text in SECRETS[uid]] for uid in SECRETS}
    assert all(len(places) >= 3 for found in before.values() for places in found)
    asked = CliRunner().invoke(main, ["erase", "--studies", str(studies), "1.2.3"], input="n\n")
    assert asked.exit_code == 1 and holding(SECRETS["1.2.3"][0]) == before["1.2.3"][0]
    result = CliRunner().invoke(main, ["erase", "--studies", str(studies), "1.2.3", "--yes"])
    assert result.exit_code == 0, result.output
    assert "2 versions of its report, 1 corrections, 1 label files, 1 copies of images" in result.output
    assert [holding(text) for text in SECRETS["1.2.3"]] == [set(), set()]
    assert all(after for after in (holding(text) for text in SECRETS["1.2.3.4"]))
    assert (studies / "1.2.3.dcm").is_file(), "a link to an image was removed, not the image"
    assert set(json.loads((studies / "datastore_v2.json").read_text())["objects"]) == {"1.2.3.4.5"}
    assert [(one["action"], one["objects"]) for one in accesses(studies / TRAIL)] == [("erased", ["1.2.3"])]
    missing = CliRunner().invoke(main, ["erase", "--studies", str(studies), "9.9.9", "--yes"])
    assert missing.exit_code == 1 and "there is no study 9.9.9" in missing.output
