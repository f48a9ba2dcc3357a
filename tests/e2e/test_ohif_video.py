"""Videos in OHIF: in the one that comes with MONAI Label, and in a hospital's own from another origin."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from pydicom.uid import MPEG2MPML, MPEG4HP41

from tests.e2e.conftest import Orthanc, endolens
from tests.e2e.ohif import VIDEO, Ohif
from tests.video_files import encode, pan, wrapped

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUIET = 60_000
"""Milliseconds that a busy machine may take."""

RATE = 25


@dataclass(frozen=True)
class Filmed:
    """A study with a recording in MPEG-2 and the clip in H.264 that an analysis cut from it, and their frames."""

    folder: Path
    study: str
    recording: str
    clip: str
    frames: list[NDArray[np.uint8]]
    clip_frames: list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def filmed(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Filmed:
    folder = tmp_path_factory.mktemp("filmed")
    (polyp, *_) = sorted((real_images / "kvasir-seg" / "images").glob("*.jpg"))
    file = encode(folder / "a.mpg", pan(polyp, 60, (320, 240), 1), "mpeg2video", RATE, container="mpeg")
    video = wrapped(file, MPEG2MPML, 60, RATE)
    video.SeriesDescription = "Recording"
    (folder / "study").mkdir()
    video.save_as(folder / "study" / "video.dcm", enforce_file_format=True)
    endolens("analyze", folder / "study", "--out", folder / "study" / "results")
    (segment, *_) = json.loads((folder / "study" / "results" / "summary.json").read_text())["segments"]
    clip = str(pydicom.dcmread(segment["clip_dicom"]).SOPInstanceUID)
    study, recording = str(video.StudyInstanceUID), str(video.SOPInstanceUID)
    return Filmed(folder / "study", study, recording, clip, _decoded(file), _decoded(Path(segment["clip"])))


def test_videos_of_a_pacs_play(
    orthanc: Orthanc,
    filmed: Filmed,
    hospital: Callable[[str, bool], str],
    serve: Callable[..., str],
    new_page: Callable[[], Page],
) -> None:
    orthanc.store(filmed.folder)
    ours = serve("--studies", orthanc.dicomweb)
    root = f"{ours}/endolens/dicomweb/studies/{filmed.study}"
    metadata = {one["00080018"]["Value"][0]: one for one in httpx.get(f"{root}/metadata", timeout=60).json()}
    assert metadata[filmed.recording]["00083002"]["Value"] == [MPEG4HP41]
    place = f"{root}/series/{metadata[filmed.clip]['0020000E']['Value'][0]}/instances/{filmed.clip}"
    _check_ranges(f"{place}/rendered", filmed.folder)
    assert httpx.get(f"{place}/thumbnail", timeout=60).headers["content-type"] == "image/jpeg"
    for viewer in (f"{ours}/ohif", hospital(ours, True)):
        _check_player(Ohif(new_page(), f"{viewer}/viewer?StudyInstanceUIDs={filmed.study}", (ours,)), filmed)


def test_videos_of_a_folder_play(
    filmed: Filmed,
    hospital: Callable[[str, bool], str],
    serve: Callable[..., str],
    new_page: Callable[[], Page],
    tmp_path: Path,
) -> None:
    shutil.copytree(filmed.folder, tmp_path / "studies")
    ours = serve("--studies", str(tmp_path / "studies"))
    _check_ranges(f"{ours}/endolens/instances/{filmed.clip}.mp4", filmed.folder)
    assert httpx.get(f"{ours}/endolens/instances/1.2.3.mp4", timeout=60).status_code == 404
    manifest = f"/endolens/dicomjson/{filmed.study}"
    for viewer, server in ((f"{ours}/ohif", ""), (hospital(ours, False), ours)):
        _check_player(Ohif(new_page(), f"{viewer}/viewer/dicomjson?url={server}{manifest}", (ours,)), filmed)
    report = httpx.get(f"{ours}/endolens/api/v1/studies/{filmed.study}/report", timeout=60).json()["report"]
    added = {one["sop_instance_uid"] for finding in report["observations"] for one in finding["evidence"]}
    assert added and not added & {filmed.clip, filmed.recording}, "a frame goes in as a still"


def _check_ranges(address: str, folder: Path) -> None:
    """The clip is answered whole, in parts, and by its size alone."""
    whole = httpx.get(address, timeout=60)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    part = httpx.get(address, headers={"range": "bytes=100-199"}, timeout=60)
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert httpx.get(address, headers={"range": f"bytes={len(whole.content)}-"}, timeout=60).status_code == 416
    head = httpx.head(address, timeout=60)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(whole.content)), b"")


def _check_player(ohif: Ohif, filmed: Filmed) -> None:
    """Both videos have thumbnails and are shown frame by frame; the clip plays, and its paused frame is explained."""
    page = ohif.page
    ohif.open("Recording", "Clip")
    ohif.expect_thumbnail("Recording", [filmed.frames[30]])
    ohif.expect_thumbnail("Clip", [filmed.clip_frames[len(filmed.clip_frames) // 2]])
    ohif.open_video("Recording")
    ohif.seek(30.5 / RATE)
    assert _check_frame(ohif, filmed.frames) == 30

    ohif.open_video("Clip")
    before = ohif.video()
    assert (before["width"], before["height"]) == (320, 240)
    assert before["duration"] == pytest.approx(len(filmed.clip_frames) / RATE, abs=0.001)
    ohif.toggle_playing()
    page.wait_for_function(f"(start) => ({VIDEO})().time > start + 0.5", arg=before["time"], timeout=QUIET)
    ohif.toggle_playing()
    page.wait_for_function(f"() => ({VIDEO})().paused", timeout=QUIET)
    panel = ohif.open_panel()
    # The panel puts the video to its frame; a busy browser may have drawn another one as it was paused.
    settled = f"() => Math.abs((({VIDEO})().time * {RATE}) % 1 - 0.25) < 0.02"
    page.wait_for_function(settled, timeout=QUIET)
    expect(panel.locator(".sentence")).to_contain_text("The network takes this frame for", timeout=QUIET)
    expect(page.locator(".endolens-overlay")).to_be_visible(timeout=QUIET)
    explained = panel.locator("endolens-explain")
    assert explained.get_attribute("image") == filmed.clip
    assert int(explained.get_attribute("frame") or 0) == _check_frame(ohif, filmed.clip_frames) + 1
    panel.locator("[name=add]").click()
    expect(panel).to_contain_text("Added to the report under", timeout=QUIET)
    assert not ohif.errors
    assert not ohif.foreign
    page.close()


def _check_frame(ohif: Ohif, frames: list[NDArray[np.uint8]]) -> int:
    """The viewport shows the frame of the video's time, and no other; its number, from 0."""
    time = ohif.video()["time"]
    number = int(time * RATE + 0.01)
    height, width = frames[0].shape[:2]
    shown = ohif.video_pixels(width, height)
    likeness = [float(np.corrcoef(shown.ravel(), frame.astype(float).ravel())[0, 1]) for frame in frames]
    assert likeness[number] > 0.99, (time, likeness)
    assert int(np.argmax(likeness)) == number, (time, likeness)
    return number


def _decoded(file: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
