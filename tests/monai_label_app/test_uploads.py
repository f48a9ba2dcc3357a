"""What is sent to the studies: every kind of file, good and bad, and what a sender may do in the midst of it."""

from __future__ import annotations

import io
import shutil
import struct
import threading
import zlib
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import MPEG4HP41, CTImageStorage, DeflatedExplicitVRLittleEndian
from werkzeug.test import TestResponse

from monai_label_app import library as library_module
from monai_label_app import uploads as uploads_module
from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.reading import convert_pictures
from monai_label_app.uploads import LIMIT_VARIABLE, BusyError, Uploads
from monai_label_app.viewers.ohif import Viewer
from report.endoscopic_image import Examination
from tests.dicom_files import by_pillow, encapsulated, image
from tests.fuzz.damage import examples

NOISE = np.random.default_rng(3).integers(0, 255, (64, 80, 3), dtype=np.uint8)

MARK = b"\0" * 128 + b"DICM"


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files lie until they are stored."""
    folder = tmp_path / "staged"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    return tmp_path / "studies"


@pytest.fixture
def client(studies: Path, staged: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    return web.create_app(FolderLibrary(studies), lambda: classifier, Viewer(), pacs=False).test_client()


class Sender:
    """A browser with an upload open."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.address = f"/api/v1/uploads/{client.post('/api/v1/uploads').get_json()['key']}"

    def send(self, content: bytes | Dataset, name: str = "a.dcm") -> TestResponse:
        data = content if isinstance(content, bytes) else file_of(content)
        length = {"CONTENT_LENGTH": str(len(data))}
        return self.client.post(
            f"{self.address}/files",
            query_string={"name": name},
            input_stream=io.BytesIO(data),
            environ_overrides=length,
        )

    def store(self, **examination: str) -> list[dict[str, str]]:
        answer = self.client.post(f"{self.address}/store", json=examination)
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()["files"]

    def outcome(self, *contents: bytes | Dataset, **examination: str) -> list[tuple[str, str]]:
        for number, content in enumerate(contents):
            assert self.send(content, f"{number}").status_code == 201
        return [(one["state"], one["reason"]) for one in self.store(**examination)]


def file_of(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def as_file(dataset: Dataset) -> Dataset:
    return dcmread(io.BytesIO(file_of(dataset)))


def picture(kind: str = "PNG", pixels: np.ndarray = NOISE) -> bytes:
    return by_pillow(pixels, kind)


def files(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.is_file()]


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that announces side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )


def test_pictures_become_the_study_that_dicomize_makes_of_them(client, studies, staged, tmp_path) -> None:
    given_files = {"b.png": picture(), "a.jpg": picture("JPEG", NOISE[:50]), "c.tif": picture("TIFF", NOISE[:, :50])}
    sender = Sender(client)
    for name, content in given_files.items():
        answer = sender.send(content, f"C:\\films\\{name}")
        assert (answer.status_code, answer.get_json()["name"], answer.get_json()["kind"]) == (201, name, "picture")
        (tmp_path / name).write_bytes(content)
    assert not files(studies)
    said = {"patient_id": "4711", "patient_name": "Doe^Åse", "patient_birth_date": "19500102", "study_date": "20260203"}
    outcomes = sender.store(**said)
    assert [one["state"] for one in outcomes] == ["stored"] * 3
    expected, _ = convert_pictures(sorted(tmp_path / name for name in given_files), Examination(**said))
    made = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, files(studies))}
    assert made == {one.header.SOPInstanceUID: as_file(one.read()) for one in expected}
    (study,) = client.get("/api/v1/studies").get_json()
    assert (study["patient"], study["patient_id"], study["state"], len(study["images"])) == (
        "Doe Åse",
        "4711",
        "new",
        3,
    )
    assert {one["study"] for one in outcomes} == {study["uid"]}
    assert not files(staged)
    assert sender.client.post(f"{sender.address}/store", json={}).status_code == 404


def test_sent_again_nothing_is_there_twice(client, studies) -> None:
    dicom, said = image(NOISE), {"patient_id": "1"}
    assert Sender(client).outcome(dicom, dicom, picture(), picture(), **said) == [
        ("stored", ""),
        ("present", "1 is there already"),
        ("stored", ""),
        ("present", "3 is the same picture as 2"),
    ]
    again = Sender(client).outcome(dicom, picture(), **said)
    assert [state for state, _ in again] == ["present", "present"]
    assert len(files(studies)) == 2


def test_dicom_is_stored_as_it_is_and_refused_where_it_would_hurt(client, studies) -> None:
    first = image(NOISE, InstitutionName="Clinic")
    same_study = {"StudyInstanceUID": first.StudyInstanceUID, "SeriesInstanceUID": first.SeriesInstanceUID}
    beside = image(NOISE[:40], **same_study)
    impostor = image(NOISE[:48], SOPInstanceUID=first.SOPInstanceUID, **same_study)
    stranger = image(NOISE, PatientID="4712", **same_study)
    assert Sender(client).outcome(first) == [("stored", "")]
    outcomes = Sender(client).outcome(impostor, stranger, beside)
    assert [state for state, _ in outcomes] == ["refused", "refused", "stored"]
    assert "other content; nothing is overwritten" in outcomes[0][1]
    assert "names another patient" in outcomes[1][1]
    kept = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, files(studies))}
    assert kept == {one.SOPInstanceUID: as_file(one) for one in (first, beside)}


def test_two_patients_in_one_study_that_is_new_are_refused_too(client) -> None:
    first = image(NOISE)
    stranger = image(NOISE, PatientID="4712", StudyInstanceUID=first.StudyInstanceUID)
    assert [state for state, _ in Sender(client).outcome(first, stranger)] == ["stored", "refused"]


def own_result() -> Dataset:
    return image(NOISE, Manufacturer="EndoLens")


def cut_off() -> bytes:
    return file_of(image(NOISE))[:-400]


def deflated() -> bytes:
    dataset = image(NOISE)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return file_of(dataset)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"hello", "a.jpg", "a.jpg is not a JPEG, PNG, TIFF or BMP picture"),
        (b"", "a.png", "a.png is not a JPEG, PNG, TIFF or BMP picture"),
        (picture("JPEG")[:-600], "a.jpg", "a.jpg cannot be read"),
        (huge_png(50_000), "a.png", "a.png has more pixels than can be read"),
        (huge_png(8_000), "a.png", "a.png cannot be read"),
        (picture(pixels=NOISE[:20]), "a.png", "a.png has a frame of 80 x 20 pixels; a side needs 32"),
        (picture("GIF"), "a.png", "a.png is not a JPEG, PNG, TIFF or BMP picture"),
        (b"\0\0\0\x18ftypmp42", "a.mp4", "a.mp4 is no video that can be read"),
        (MARK, "a.dcm", "a.dcm is damaged DICOM"),
        (MARK + b"\xff" * 400, "a.dcm", "a.dcm is damaged DICOM"),
        (cut_off(), "a.dcm", "a.dcm is truncated"),
        (deflated(), "a.dcm", "a.dcm is deflated as a whole"),
        (image(NOISE, CTImageStorage), "a.dcm", "is a CT Image Storage, not an endoscopic image"),
        (own_result(), "a.dcm", "a.dcm is a result of EndoLens, not a source image"),
        (encapsulated(NOISE, MPEG4HP41, [b"\0\0\0\x18ftypmp42"]), "a.dcm", "a.dcm is no video that can be read"),
        (image(NOISE, StudyInstanceUID="../../etc"), "a.dcm", "its StudyInstanceUID is no UID"),
        (image(NOISE, PixelData=None), "a.dcm", "a.dcm has no pixels"),
        (image(NOISE, NumberOfFrames="9"), "a.dcm", "a.dcm is truncated: it announces 9 frames and holds 1"),
    ],
)
def test_a_file_that_is_no_image_is_refused_in_a_sentence_and_the_others_are_kept(
    client, studies, staged, content, name, said
) -> None:
    sender = Sender(client)
    sender.send(picture(), "good.png")
    before = files(staged)
    answer = sender.send(content, f"../{name}")
    assert answer.status_code == answer.get_json()["status"] == 422
    assert said in answer.get_json()["detail"]
    assert str(staged) not in answer.get_json()["detail"]
    assert files(staged) == before
    assert [one["state"] for one in sender.store()] == ["stored"]
    assert len(files(studies)) == 1


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "..", "\0", "a" * 900, "a\nb", "<b>x</b>", "\u202e"]
)
def test_a_name_is_text_and_no_path(client, studies, staged, tmp_path, name) -> None:
    sender = Sender(client)
    shown = sender.send(picture(), name).get_json()["name"]
    assert shown.isprintable() and 0 < len(shown) <= 120
    sender.store()
    (made,) = files(studies)
    assert made.name == f"{dcmread(made).SOPInstanceUID}.dcm"
    assert {one.name for one in tmp_path.iterdir()} == {"studies", "staged"}


def test_a_file_above_the_limit_is_refused_at_once_and_a_longer_one_than_announced_is_cut_off(
    studies, classifier, monkeypatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    client = web.create_app(FolderLibrary(studies), lambda: classifier, Viewer(), pacs=False).test_client()
    sender = Sender(client)

    class Unread(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("it was read")

    length = {"CONTENT_LENGTH": str(10 * 2**30)}
    answer = client.post(f"{sender.address}/files?name=a", input_stream=Unread(), environ_overrides=length)
    assert answer.status_code == 413
    assert answer.headers["Connection"] == "close"
    assert "10,240.0 MB, and a file may have 1.0 MB" in answer.get_json()["detail"]
    endless = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(f"{sender.address}/files?name=a", input_stream=Unread(), environ_overrides=endless)
    assert answer.status_code == 411
    uploads = Uploads(FolderLibrary(studies))
    key = uploads.begin()
    with pytest.raises(uploads_module.TooLargeError):
        uploads.receive(key, "a", 10, io.BytesIO(b"x" * 2**21))


def test_a_file_larger_than_what_pages_send_is_taken(client, studies) -> None:
    large = np.random.default_rng(4).integers(0, 255, (900, 1000, 3), dtype=np.uint8)
    assert len(picture(pixels=large)) > 2 * web.MOST_JSON
    assert Sender(client).outcome(picture(pixels=large)) == [("stored", "")]
    answer = client.post("/api/v1/uploads/x/store", json={"patient_id": "x" * 2 * web.MOST_JSON})
    assert answer.status_code == 413


def test_a_limit_that_is_no_number_is_said_at_the_start(studies, monkeypatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "10 GB")
    with pytest.raises(ValueError, match="ENDOLENS_UPLOAD_MEGABYTES is '10 GB'"):
        Uploads(FolderLibrary(studies))


def test_a_sender_who_leaves_in_the_midst_leaves_nothing(client, studies, staged) -> None:
    sender = Sender(client)
    content = picture()
    answer = client.post(
        f"{sender.address}/files?name=a.png",
        input_stream=io.BytesIO(content[:500]),
        environ_overrides={"CONTENT_LENGTH": str(len(content))},
    )
    assert answer.status_code == 400
    assert files(staged) == files(studies) == []
    sender.send(content)
    assert client.delete(sender.address).status_code == 204
    assert files(staged) == files(studies) == []
    assert client.delete(sender.address).status_code == sender.send(content).status_code == 404


def test_a_full_disk_is_said_and_nothing_is_half_there(client, studies, staged, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, uploads_module.RESERVE))
    sender = Sender(client)
    answer = sender.send(picture(), "a.png")
    assert answer.status_code == 507
    assert "no room for a.png" in answer.get_json()["detail"]
    monkeypatch.undo()
    assert files(staged) == files(studies) == []


def test_what_could_not_be_stored_can_be_stored_again(client, studies) -> None:
    sender = Sender(client)
    sender.send(picture())
    studies.rename(studies.with_name("away"))
    studies.write_text("not a folder")
    answer = client.post(f"{sender.address}/store", json={})
    assert answer.status_code == 507
    assert "The server cannot keep it" in answer.get_json()["detail"]
    assert str(studies) not in answer.get_json()["detail"]
    studies.unlink()
    studies.mkdir()
    assert [one["state"] for one in sender.store()] == ["stored"]


def test_too_many_who_send_at_once_are_told_to_wait(studies) -> None:
    uploads = Uploads(FolderLibrary(studies))
    key, started, go_on = uploads.begin(), threading.Semaphore(0), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            started.release()
            go_on.wait(60)
            return super().read(size)

    senders = [
        threading.Thread(target=uploads.receive, args=(key, f"{number}", 9, Slow(picture(pixels=NOISE[: 40 + number]))))
        for number in range(uploads_module.AT_ONCE)
    ]
    for sender in senders:
        sender.start()
    for _ in senders:
        assert started.acquire(timeout=60)
    with pytest.raises(BusyError, match="again in a moment"):
        uploads.receive(key, "late", 9, io.BytesIO(picture()))
    go_on.set()
    for sender in senders:
        sender.join()
    uploads.receive(key, "late", 9, io.BytesIO(picture()))
    assert [one.state for one in uploads.store(key, Examination())] == ["stored"] * (len(senders) + 1)


def test_forgotten_uploads_end_and_open_ones_are_limited(client, staged, monkeypatch) -> None:
    monkeypatch.setattr(uploads_module, "MOST_UPLOADS", 2)
    senders = [Sender(client), Sender(client)]
    senders[0].send(picture())
    answer = client.post("/api/v1/uploads")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    monkeypatch.setattr(uploads_module, "KEPT_SECONDS", -1)
    assert client.post("/api/v1/uploads").status_code == 201
    assert files(staged) == []


@pytest.mark.parametrize(
    ("examination", "said"),
    [
        ({"patient_birth_date": "1950-01-02"}, "patient_birth_date: Not YYYYMMDD."),
        ({"patient_birth_date": "19501399"}, "is not a date"),
        ({"patient_name": "a=b=c=d"}, "is not a person name"),
        ({"patient_id": "a\\b"}, "a backslash"),
        ({"patient_name": "\ud800"}, "a control character"),
        ({"patient_sex": "W"}, "patient_sex"),
        ({"patient_id": "x" * 65}, "patient_id"),
        ({"colour": "red"}, "colour: Unknown field."),
    ],
)
def test_patient_data_with_a_mistake_are_refused_and_can_be_mended(client, studies, examination, said) -> None:
    sender = Sender(client)
    sender.send(picture())
    answer = client.post(f"{sender.address}/store", json=examination)
    assert answer.status_code == 422
    assert said in answer.get_json()["detail"]
    assert files(studies) == []
    assert [one["state"] for one in sender.store()] == ["stored"]


GOOD = [file_of(image(NOISE)), picture("PNG"), picture("JPEG"), picture("TIFF")]
damaged = st.builds(
    lambda good, start, length, other: good[: start % len(good)] + other + good[start % len(good) + length :],
    st.sampled_from(GOOD),
    st.integers(0, 5000) | st.integers(0, 10**6),
    st.integers(0, 300),
    st.binary(max_size=300),
)


@pytest.mark.slow
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=2000) | st.binary(max_size=600).map(lambda end: b"\0" * 128 + b"DICM" + end) | damaged
)
def test_any_bytes_are_an_image_that_can_be_read_or_a_sentence(client, studies, staged, content) -> None:
    sender = Sender(client)
    answer = sender.send(content, "x")
    assert answer.status_code in (201, 422), answer.get_json()
    if answer.status_code == 422:
        assert "\n" not in answer.get_json()["detail"]
        assert client.delete(sender.address).status_code == 204
    else:
        (outcome,) = sender.store(patient_id="1")
        assert outcome["state"] in ("stored", "present", "refused")
        if outcome["state"] == "stored":
            study = client.get(f"/api/v1/studies/{outcome['study']}").get_json()
            for one in study["images"]:
                shown = client.get(f"/api/v1/images/{one['sop_instance_uid']}/frames/1/picture.jpg")
                assert Image.open(io.BytesIO(shown.data)).size
    assert files(staged) == []
