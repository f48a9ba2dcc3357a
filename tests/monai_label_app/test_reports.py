"""Reports by REST: filled from what was seen, kept version by version, signed once, and stored with the study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from monai_label_app.viewers.ohif import Viewer

STILLS = sorted(STUDY.iterdir())[:4]
HEADERS = [pydicom.dcmread(still, stop_before_pixels=True) for still in STILLS]
UID = str(HEADERS[0].StudyInstanceUID)
REPORT = f"/api/v1/studies/{UID}/report"
DOCTOR = {"name": "Doe^Jane", "role": "Endoscopist", "organization": "St. Elsewhere", "incomplete": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for still in STILLS:
        shutil.copy(still, tmp_path)
    return tmp_path


@pytest.fixture
def client(folder: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    return web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False).test_client()


def begin(client: FlaskClient, **options: str) -> TestResponse:
    answer = client.post(REPORT, json=options)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer


def save(client: FlaskClient, etag: str | None, report: dict[str, Any], author: str = "") -> TestResponse:
    headers = {} if etag is None else {"If-Match": etag}
    return client.put(REPORT, json={"report": report, "author": author}, headers=headers)


def sign(client: FlaskClient, etag: str, **changed: Any) -> TestResponse:
    return client.post(f"{REPORT}/signature", json={**DOCTOR, **changed}, headers={"If-Match": etag})


def documents(folder: Path) -> list[pydicom.Dataset]:
    read = [pydicom.dcmread(file) for file in sorted(folder.rglob("*.dcm"))]
    return [one for one in read if one.Modality in ("SR", "DOC", "KO")]


def test_x(client, folder):
    a = begin(client)
    print(a.headers["ETag"], a.get_json())
    r = a.get_json()["report"]
    r["impression"] = "x"
    b = save(client, a.headers["ETag"], r)
    print(b.status_code, b.headers["ETag"], b.get_json()["missing"])
    c = save(client, a.headers["ETag"], {**r, "impression": "y"})
    print(c.status_code, c.get_json())
    d = sign(client, b.headers["ETag"])
    print(d.status_code, d.get_json())
    print([(x.Modality, x.SOPInstanceUID) for x in documents(folder)])
    for k in ("html", "pdf", "dcm"):
        e = client.get(f"{REPORT}.{k}")
        print(k, e.status_code, len(e.data), e.headers)
    print(client.get(f"{REPORT}/versions").get_json())
    for bad in (
        b"[" * 500000,
        b"x",
        b'{"report": {"impression": "\\ud800"}}',
        b'{"report": {"impresion": 1}}',
        b'{"report": {"observations": [{"label": "", "text": 7}]}}',
    ):
        e = client.put(REPORT, data=bad, headers={"If-Match": a.headers["ETag"], "Content-Type": "application/json"})
        print(e.status_code, e.get_data(as_text=True)[:200])
    assert 0
