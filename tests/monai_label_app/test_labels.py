"""What a doctor says on the page is what MONAI Label's datastore holds, and the other way round."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient

from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.corrections import Correction
from monai_label_app.datastore import LabelNotFoundException, MONAILabelException, StudyDatastore
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import MODEL, STUDY
from monai_label_app.strategies import Diversity
from monai_label_app.viewers.ohif import Viewer
from tests.dicom_files import image, write

STILL = sorted(STUDY.iterdir())[0]
UID = str(pydicom.dcmread(STILL, stop_before_pixels=True).SOPInstanceUID)
LABELS = f"/api/v1/images/{UID}/frames/1/labels"


@pytest.fixture
def datastore(tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> StudyDatastore:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    shutil.copy(STILL, tmp_path)
    return StudyDatastore(FolderLibrary(tmp_path), tmp_path, lambda: classifier.card.classes)


@pytest.fixture
def client(tmp_path: Path, datastore: StudyDatastore, classifier: Classifier) -> FlaskClient:
    library = FolderLibrary(tmp_path)
    return web.create_app(library, lambda: classifier, Viewer(), False, datastore=lambda: datastore).test_client()


def test_the_page_and_monai_label_keep_one_history(client, datastore, tmp_path) -> None:
    assert client.get(LABELS).get_json() == []
    region = [[10, 10.5], [100, 10], [100, 90]]
    said = {"class": "polyps", "by": "Dr. Åse", "region": region, "comment": "flat <b>4 mm</b>", "model": "tiny 0.1.0"}
    answer = client.post(LABELS, json=said)
    assert answer.status_code == 201
    (first,) = answer.get_json()
    assert {key: first[key] for key in said} == said
    assert (first["frame"], first["current"], first["at"].endswith("+00:00")) == (1, True, True)
    (tmp_path / "label.json").write_text(json.dumps({"class": "normal-cecum", "by": "Dr. Bo"}))
    datastore.save_label(UID, str(tmp_path / "label.json"), "final", {})
    listed = client.get(LABELS).get_json()
    assert [(one["class"], one["by"], one["current"]) for one in listed] == [
        ("polyps", "Dr. Åse", False),
        ("normal-cecum", "Dr. Bo", True),
    ]
    stored = json.loads(Path(datastore.get_label_uri(UID, "final")).read_text())
    assert [one["label"] for one in stored["corrections"]] == ["polyps", "normal-cecum"]
    assert datastore.get_label_info(UID, "final")["class"] == "normal-cecum"
    assert datastore.get_unlabeled_images() == []
    datastore.remove_label(UID, "final")
    datastore.corrections.add(Correction(UID, "polyps", "Ada"))  # as where a disk was full before its label was kept
    datastore.remove_label(UID, "final")
    assert datastore.corrections.current() == []
    for gone in (UID, "1.2.3"):
        with pytest.raises(LabelNotFoundException):
            datastore.remove_label(gone, "final")
    assert [one["current"] for one in client.get(LABELS).get_json()] == [False] * 3


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"class": "cancer", "by": "x"}, "there is no class 'cancer'"),
        ({"class": "polyps"}, "by: Missing data for required field."),
        ({"class": "polyps", "by": " "}, "the reader's name ('by') is missing"),
        ({"class": "polyps", "by": "x" * 501}, "at most 500 characters"),
        ({"class": "polyps", "by": "x", "region": [[1, 1], [2, 2]]}, "2 points"),
        ({"class": "polyps", "by": "x", "region": [[1, 1], [2, 2], [9999, 1]]}, "outside the image"),
        ({"class": "polyps", "by": "x", "region": [[1], [2], [3]]}, "'region' must be a list of [x, y]"),
        ({"class": "polyps", "by": "x", "at": "1999"}, "at: Unknown field."),
    ],
)
def test_a_label_with_a_mistake_is_refused_in_a_sentence_and_not_kept(client, datastore, said, reason) -> None:
    answer = client.post(LABELS, json=said)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert reason in answer.get_json()["detail"]
    assert datastore.corrections.all() == []


def test_a_study_that_is_moved_keeps_its_labels_and_a_lost_one_stops_nobody(datastore, classifier, tmp_path) -> None:
    still = image(np.full((64, 64, 3), 90, np.uint8))
    write(still, tmp_path / "other.dcm")
    for uid in (UID, str(still.SOPInstanceUID)):
        datastore.keep(Correction(uid, "polyps", "Dr. Åse"))
    (tmp_path / "moved").mkdir()
    (tmp_path / STILL.name).rename(tmp_path / "moved" / STILL.name)
    (tmp_path / "other.dcm").unlink()
    for now in (datastore, StudyDatastore(FolderLibrary(tmp_path), tmp_path, lambda: classifier.card.classes)):
        (one,) = now.corrected()
        assert one.read().shape == (480, 576, 3)
        assert UID in now.get_labeled_images()
        shutil.copy(sorted(STUDY.iterdir())[1], tmp_path)
        chosen = Diversity(str(MODEL))({}, now)
        assert chosen and chosen["id"] != UID


@pytest.mark.parametrize("name", ["blob", "x.JSON", "label.txt"])
def test_a_correction_is_known_whatever_its_file_is_called_and_nothing_else_takes_its_place(datastore, tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"class": "polyps", "by": "Dr. Åse"}))
    datastore.save_label(UID, str(tmp_path / name), "final", {})
    assert [one.by for one in datastore.corrections.current()] == ["Dr. Åse"]
    before = Path(datastore.get_label_uri(UID, "final")).read_text()
    (tmp_path / "other.nii.gz").write_bytes(b"any")
    with pytest.raises(MONAILabelException) as error:
        datastore.save_label(UID, str(tmp_path / "other.nii.gz"), "final", {})
    assert "what doctors said of this image is its final label" in error.value.msg
    assert Path(datastore.get_label_uri(UID, "final")).read_text() == before


def test_half_a_character_never_comes_into_the_list_of_labels(client, datastore, classifier, tmp_path):
    sent = tmp_path / "sent.json"
    sent.write_text(json.dumps({"class": "polyps", "by": "Dr. Åse"}))
    assert client.post(LABELS, json={"class": "polyps", "by": "Dr. \ud83d"}).status_code in (400, 422)
    for keep in (
        lambda info: datastore.save_label(UID, str(sent), "final", info),
        lambda info: datastore.update_image_info(UID, {"strategy": info}),
    ):
        with pytest.raises(UnicodeEncodeError):
            keep({"client_id": "\ud83d"})
    again = StudyDatastore(FolderLibrary(tmp_path), tmp_path, lambda: classifier.card.classes)
    assert again.corrections.current() == []


def test_without_a_label_there_is_no_archive(datastore) -> None:
    with pytest.raises(LabelNotFoundException, match="there is no labelled image yet"):
        datastore.get_dataset_archive(None)


def test_a_frame_that_is_not_there_has_no_label(client) -> None:
    said = {"class": "polyps", "by": "x"}
    assert client.post(LABELS.replace("/1/labels", "/7/labels"), json=said).status_code == 422
    for answer in (client.post(LABELS.replace(UID, "1.2.3"), json=said), client.get(LABELS.replace(UID, "1.2.3"))):
        assert answer.status_code == 404
