"""A video over the REST interface: played in pieces, and every frame of it looked into, over a folder."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from pydicom import Dataset
from pydicom.uid import MPEG2MPML, MPEG4HP41

from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.files import read_dicom
from monai_label_app.frames import UnreadableError
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from monai_label_app.study import Instance
from monai_label_app.video import player as player_module
from monai_label_app.video.player import Player, PreparingError
from monai_label_app.viewers.ohif import Viewer
from monai_label_app.web.api import videos
from tests.dicom_files import write
from tests.validators import dciodvfy
from tests.video_files import encode, number_of, numbered, wrapped

COUNT = 80
STILL = sorted(STUDY.iterdir())[0]


@pytest.fixture(scope="module")
def h264(tmp_path_factory) -> Path:
    frames = map(numbered, range(COUNT))
    return encode(tmp_path_factory.mktemp("video") / "a.mp4", frames, options={"g": "25", "bf": "3"}, sound=True)


@pytest.fixture(scope="module")
def decoded(h264) -> list[np.ndarray]:
    """Its frames, by FFmpeg alone."""
    with av.open(str(h264)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def video(h264) -> Dataset:
    return wrapped(h264, MPEG4HP41, COUNT, 25, parts=3)


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Dataset:
    """The same frames as an older scope codes them."""
    file = encode(tmp_path_factory.mktemp("video") / "a.mpg", map(numbered, range(COUNT)), codec="mpeg2video")
    return wrapped(file, MPEG2MPML, COUNT, 25)


@pytest.fixture(scope="module")
def folder(video, older, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write(video, folder / "video.dcm")
    write(older, folder / "older.dcm")
    shutil.copy(STILL, folder)
    return folder


@pytest.fixture(scope="module")
def client(folder, classifier: Classifier) -> FlaskClient:
    return web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False).test_client()


def of(dataset: Dataset, rest: str) -> str:
    return f"/api/v1/images/{dataset.SOPInstanceUID}/{rest}"


def picture(client: FlaskClient, dataset: Dataset, number: int) -> np.ndarray:
    answer = client.get(of(dataset, f"frames/{number}/picture.jpg"))
    return np.asarray(Image.open(io.BytesIO(answer.data)))


def test_a_video_is_played_in_pieces_that_together_are_the_file(client, video, monkeypatch):
    monkeypatch.setattr(videos, "PIECE", 1000)
    whole = client.get(of(video, "video.mp4"))
    assert (whole.status_code, whole.mimetype, whole.headers["Accept-Ranges"]) == (200, "video/mp4", "bytes")
    size = len(whole.data)
    assert size > 3000
    pieces = b""
    while len(pieces) < size:
        answer = client.get(of(video, "video.mp4"), headers={"Range": f"bytes={len(pieces)}-"})
        assert answer.status_code == 206
        end = len(pieces) + len(answer.data) - 1
        assert answer.headers["Content-Range"] == f"bytes {len(pieces)}-{end}/{size}"
        assert len(answer.data) <= 1000
        pieces += answer.data
    assert pieces == whole.data
    with av.open(io.BytesIO(pieces)) as container:
        shown = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert shown == list(range(COUNT))
    known = {"If-None-Match": whole.headers["ETag"]}
    assert client.get(of(video, "video.mp4"), headers=known).status_code == 304


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=10-19", slice(10, 20)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=0-0", slice(0, 1)),
        ("bytes=-99999999", slice(None)),
    ],
)
def test_any_range_is_answered_with_its_bytes(client, video, asked, expected):
    answer = client.get(of(video, "video.mp4"), headers={"Range": asked})
    assert (answer.status_code, answer.data) == (206, client.get(of(video, "video.mp4")).data[expected])


@pytest.mark.parametrize("asked", ["bytes=99999999-", "nonsense", "bytes=9-5", "bytes=-0"])
def test_a_range_that_is_none_is_refused_in_a_sentence(client, video, asked):
    answer = client.get(of(video, "video.mp4"), headers={"Range": asked})
    assert (answer.status_code, answer.mimetype) == (416, "application/problem+json")
    assert answer.headers["Content-Range"].startswith("bytes */")


@pytest.mark.parametrize("which", ["video", "older"])
def test_the_frame_of_a_moment_is_decoded_exactly(client, video, older, which, decoded):
    dataset = {"video": video, "older": older}[which]
    about = client.get(of(dataset, "video")).get_json()
    assert (about["frames"], about["seconds"], about["copied"]) == (COUNT, pytest.approx(COUNT / 25), which == "video")
    for time in (0, 0.0395, 0.04, 1.23, 2.0, 3.19):
        moment = client.get(of(dataset, f"frames?time={time}")).get_json()
        assert moment["number"] == int(time * 25 + 1e-3) + 1
        assert (moment["start"], moment["end"]) == pytest.approx(((moment["number"] - 1) / 25, moment["number"] / 25))
        shown = picture(client, dataset, moment["number"])
        assert number_of(shown) == moment["number"] - 1
        if which == "video":
            assert np.abs(shown.astype(float) - decoded[moment["number"] - 1]).mean() < 3
    seen = client.get(of(dataset, "frames/31/evidence")).get_json()
    chances = client.get(of(dataset, "frames/31/prediction")).get_json()["probabilities"]
    assert seen["probability"] == pytest.approx(chances[seen["class"]])
    assert client.get(of(dataset, "frames/31/explanation.png")).mimetype == "image/png"


@pytest.mark.parametrize(
    ("rest", "status", "said"),
    [
        ("frames?time=3.2", 422, "the video is shown from 0 to 3.200 s, and nothing at 3.200 s"),
        ("frames?time=-1", 422, "time: Must be greater than or equal to 0"),
        ("frames?time=soon", 422, "time: Not a valid number."),
        ("frames", 422, "time: Missing data for required field."),
        ("frames/0/prediction", 404, "There is no such study, image or frame here."),
        (f"frames/{COUNT + 1}/picture.jpg", 404, "There is no such study, image or frame here."),
    ],
)
def test_a_frame_that_is_not_there_is_refused_in_a_sentence(client, video, rest, status, said):
    answer = client.get(of(video, rest))
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert said in answer.get_json()["detail"]


@pytest.mark.parametrize("rest", ["video", "video.mp4", "frames?time=0"])
def test_an_image_that_is_no_video_is_refused_in_a_sentence(client, rest):
    still = read_dicom(STILL)
    answer = client.get(of(still, rest))
    assert (answer.status_code, answer.get_json()["detail"]) == (422, f"{still.SOPInstanceUID} is no video")


def test_a_study_lists_its_videos_and_its_page_offers_them(client, video):
    (listed,) = client.get(f"/api/v1/studies/{video.StudyInstanceUID}/videos").get_json()
    assert listed == {"sop_instance_uid": video.SOPInstanceUID, "title": "Video", "seconds": 3.2, "clip": False}
    assert client.get(f"/api/v1/studies/{video.StudyInstanceUID}").get_json()["videos"] == 1
    for page in (f"/studies/{video.StudyInstanceUID}/video", f"/studies/{video.StudyInstanceUID}", "/"):
        assert f"/studies/{video.StudyInstanceUID}/video" in client.get(page).get_data(as_text=True)
    assert "no video" in client.get(f"/studies/{read_dicom(STILL).StudyInstanceUID}/video").get_data(as_text=True)


def test_videos_of_one_name_are_numbered(video):
    several = [Instance(name, video, lambda: video) for name in "ab"]
    assert [one["title"] for one in videos.summaries(several)] == ["Video (1)", "Video (2)"]


def test_a_frame_becomes_an_image_of_the_study_once(client, video, folder, decoded):
    first, again = (client.post(of(video, "frames/42/still")).get_json() for _ in range(2))
    assert (first["stored"], again["stored"]) == (True, False)
    assert first["sop_instance_uid"] == again["sop_instance_uid"]
    (path,) = folder.rglob(f"{first['sop_instance_uid']}.dcm")
    assert dciodvfy(path) == []
    still = read_dicom(path)
    assert np.abs(still.pixel_array.astype(int) - decoded[41]).max() <= 4
    assert (still.PatientID, still.StudyInstanceUID) == (video.PatientID, video.StudyInstanceUID)
    source = still.SourceImageSequence[0]
    assert (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber) == (video.SOPInstanceUID, 42)
    assert client.post(of(video, "frames/0/still")).status_code == 404


def test_a_video_that_is_not_ready_says_how_far_it_is_and_is_ready_then(folder, older, classifier):
    class Hurried(Player):
        def open(self, uid, patience=0.0):
            return super().open(uid, patience)

    player = Hurried(FolderLibrary(folder))
    app = web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False, player=player).test_client()
    for rest in ("video", "frames/1/picture.jpg"):
        answer = app.get(of(older, rest))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.get_json()["detail"].startswith("The video is being made ready for the browser:")
    assert len(player.open(older.SOPInstanceUID, 60).playable.times) == COUNT
    assert app.get(of(older, "video")).status_code == 200
    player.close()


def test_files_of_videos_that_nobody_looks_at_any_more_go_and_a_damaged_one_is_tried_again(
    folder, video, older, tmp_path, monkeypatch
):
    monkeypatch.setattr(player_module, "KEPT", 1)
    shutil.copytree(folder, tmp_path / "studies")
    player = Player(FolderLibrary(tmp_path / "studies"))
    first = player.open(video.SOPInstanceUID).playable.path
    second = player.open(older.SOPInstanceUID, 60).playable.path
    assert (first.exists(), second.exists()) == (False, True)
    content = (tmp_path / "studies" / "video.dcm").read_bytes()
    (tmp_path / "studies" / "video.dcm").write_bytes(content[:3000])
    with pytest.raises(UnreadableError, match=rf"^{video.SOPInstanceUID} (is no video|has no pixels)"):
        player.open(video.SOPInstanceUID)
    (tmp_path / "studies" / "video.dcm").write_bytes(content)
    assert number_of(player.open(video.SOPInstanceUID).frame(42)) == 41
    with pytest.raises(LookupError):
        player.open(video.SOPInstanceUID).frame(COUNT + 1)
    player.close()
    assert not second.parent.exists()


def test_an_end_of_the_server_does_not_wait_for_a_video(folder, older):
    player = Player(FolderLibrary(folder))
    with pytest.raises(PreparingError):
        player.open(older.SOPInstanceUID, 0)
    player.close()
    assert not Path(player._folder.name).exists()
