"""The page and the manifest, over a folder, without a browser."""

import re
import shutil
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient

from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from monai_label_app.viewers.ohif import Viewer, mended
from monai_label_app.viewers.ohif.viewer import naturalised
from tests.dicom_files import image, write

STILLS = sorted(STUDY.iterdir())[:2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for still in STILLS:
        shutil.copy(still, tmp_path)
    return tmp_path


@pytest.fixture
def client(folder: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    app = web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False)
    return app.test_client()


@pytest.fixture
def uid() -> str:
    return str(pydicom.dcmread(STILLS[0]).SOPInstanceUID)


def test_script_in_a_patient_name_is_text(client: FlaskClient, folder: Path) -> None:
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "<script>alert(1)</script>"
        dataset.StudyDescription = "<img src=x onerror=alert(1)>"
        dataset.save_as(file)
    study = str(pydicom.dcmread(next(folder.glob("*.dcm"))).StudyInstanceUID)
    for page in ("/", f"/studies/{study}"):
        answer = client.get(page)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        html = answer.get_data(as_text=True)
        assert "&lt;script&gt;" in html
        assert "<script>alert" not in html and "<img src=x" not in html


def test_of_very_many_frames_some_are_shown_and_it_is_said(client: FlaskClient, folder: Path) -> None:
    long = image(np.zeros((1, 64, 64, 3), np.uint8), NumberOfFrames=5000)
    write(long, folder / "long.dcm")
    html = client.get(f"/studies/{long.StudyInstanceUID}").get_data(as_text=True)
    numbers = [int(number) for number in re.findall(r'data-frame="(\d+)"', html)]
    assert numbers == list(range(1, 5001, 3))
    assert "One of 3 of the 5000 frames." in html


def test_what_is_removed_is_gone_at_once(client: FlaskClient, folder: Path, uid: str) -> None:
    assert client.get(f"/instances/{uid}.dcm").status_code == 200
    (folder / STILLS[0].name).unlink()
    answer = client.get(f"/instances/{uid}.dcm")
    assert answer.status_code == 404
    assert "There is no such study, image or frame here." in answer.get_data(as_text=True)


def test_damaged_still_is_one_sentence(client: FlaskClient, folder: Path, uid: str) -> None:
    content = (folder / STILLS[0].name).read_bytes()
    time.sleep(0.01)
    (folder / STILLS[0].name).write_bytes(content[: len(content) - 2000])
    answer = client.get(f"/api/v1/images/{uid}/frames/1/picture.jpg")
    assert answer.status_code == 422
    assert "Traceback" not in answer.get_data(as_text=True)


def test_manifest_says_what_the_files_say(client: FlaskClient, uid: str) -> None:
    source = pydicom.dcmread(STILLS[0])
    manifest = client.get(f"/dicomjson/{source.StudyInstanceUID}", base_url="http://viewer.example:8000").get_json()
    (study,) = manifest["studies"]
    (series,) = study["series"]
    entry = next(one for one in series["instances"] if one["metadata"]["SOPInstanceUID"] == uid)
    assert entry["url"] == f"dicomweb:http://viewer.example:8000/endolens/instances/{uid}.dcm"
    for keyword in ("Rows", "Columns", "PhotometricInterpretation", "SOPClassUID", "StudyDate", "InstanceNumber"):
        assert entry["metadata"][keyword] == source[keyword].value
    assert entry["metadata"]["PatientName"]["Alphabetic"] == str(source.PatientName)
    assert "" not in (*study.values(), *entry["metadata"].values()), "for OHIF '' and null are two patients"
    assert "PixelData" not in entry["metadata"]
    assert client.get(f"/instances/{uid}.dcm").data == STILLS[0].read_bytes()


def test_manifest_names_each_frame_of_an_image_of_several(client: FlaskClient, folder: Path) -> None:
    loop = image(np.zeros((3, 64, 64, 3), np.uint8), NumberOfFrames=3)
    write(loop, folder / "loop.dcm")
    (study,) = client.get(f"/dicomjson/{loop.StudyInstanceUID}").get_json()["studies"]
    (series,) = study["series"]
    place = f"dicomweb:http://localhost/endolens/instances/{loop.SOPInstanceUID}.dcm"
    assert [one["url"] for one in series["instances"]] == [f"{place}?frame={number}" for number in (1, 2, 3)]
    assert {one["metadata"]["SOPInstanceUID"] for one in series["instances"]} == {loop.SOPInstanceUID}


def test_who_signed_a_report_is_told_as_ohif_reads_it() -> None:
    item = pydicom.Dataset()
    item.PersonName = "Doe^Jane"
    assert naturalised(item) == {"PersonName": [{"Alphabetic": "Doe^Jane"}]}


def test_viewer_keeps_to_its_folder_and_asks_no_other_server() -> None:
    viewer = Viewer()
    index = viewer.folder / "index.html"
    for path in ("../../../../../../../../etc/passwd", "/etc/passwd", "viewer/dicomjson", "..", "."):
        assert viewer.file(path) == index
    asset = viewer.file("manifest.json")
    assert asset == viewer.folder / "manifest.json"
    assert "https://fonts" in index.read_text(), "the build itself asks another server"
    for text in [index, *viewer.folder.glob("*.css")]:
        assert "https://fonts" not in str(mended(text))


def test_folder_that_is_no_viewer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a built OHIF"):
        Viewer(tmp_path)


def test_viewer_built_for_the_root_keeps_clear_of_the_other_routes(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script>window.PUBLIC_URL="/"</script>')
    (tmp_path / "assets").mkdir()
    viewer = Viewer(tmp_path)
    assert viewer.base == "/"
    assert viewer.paths() == ["/", "/viewer", "/viewer/{path:path}", "/assets/{path:path}", "/index.html"]
