"""The page "Video" in a real browser: it shows the frame that it names, and the map of that frame over it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pydicom.uid import MPEG4HP41

from explainers import heatmap
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.pictures import read_picture
from tests.dicom_files import write
from tests.e2e.conftest import REPOSITORY
from tests.e2e.test_dissect import faults
from tests.validators import missing
from tests.video_files import encode, pan, wrapped

pytestmark = pytest.mark.e2e

PLAYS = "v => new Promise((done) => v.addEventListener('timeupdate', () => v.currentTime > 0.4 && done()))"
QUIET = 60_000
SIZE = (320, 240)
SCENES = {"normal-pylorus": 60, "polyps": 50, "ulcerative-colitis": 60}

CANVAS = """video => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


@pytest.fixture(scope="module")
def recording(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving cameras over three real pictures that the demonstration model is right about."""
    classifier = open_classifier()
    frames: list[np.ndarray] = []
    for label, count in SCENES.items():
        for file in sorted((real_images / "kvasir-8" / label).glob("*.*g")):
            if min(read_picture(file).pixels.shape[:2]) < SIZE[1]:
                continue
            scene = pan(file, count, SIZE, len(label))
            chances = classifier.scores(scene[:: count - 1], half=True).softmax(1)
            if chances[:, classifier.card.classes.index(label)].min() > 0.9:
                frames += scene
                break
    assert len(frames) == sum(SCENES.values())
    path = tmp_path_factory.mktemp("recording") / "colonoscopy.mp4"
    return encode(path, frames, options={"g": "25", "bf": "3"}, sound=True)


@pytest.fixture(scope="module")
def decoded(recording: Path) -> list[np.ndarray]:
    """Its frames, by FFmpeg alone."""
    with av.open(str(recording)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_doctor_plays_a_video_jumps_to_a_finding_and_sees_the_map_of_the_paused_frame(
    recording: Path, decoded: list[np.ndarray], serve: Callable[..., str], page: Page, browser: Browser, tmp_path: Path
) -> None:
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    (tmp_path / "studies").mkdir()
    video = wrapped(recording, MPEG4HP41, len(decoded), 25)
    write(video, tmp_path / "studies" / "video.dcm")
    home = f"{serve('--studies', str(tmp_path / 'studies'))}/endolens"
    page.goto(f"{home}/")
    page.locator("td a").first.click()

    # It plays, and no map lies over a moving picture.
    settled(page)
    assert page.locator("video").evaluate("v => v.readyState") >= 2
    page.keyboard.press("Space")
    page.locator("video").evaluate(PLAYS)
    expect(page.locator(".over")).to_be_hidden()
    page.keyboard.press("Space")
    settled(page)
    assert_shown(page, decoded)

    # Analysed from here, it says what was seen when.
    expect(page.locator(".findings")).to_contain_text("has not been analysed")
    page.get_by_role("button", name="Analyse: Doe Jane").click()
    expect(page.locator(".findings li")).to_have_count(len(SCENES), timeout=QUIET)
    segments = httpx.get(f"{home}/api/v1/images/{video.SOPInstanceUID}/video").json()["segments"]
    assert [one["class"] for one in segments] == list(SCENES)

    # A finding, a key and a click on the timeline lead to frames of it; the map is theirs and lies where it belongs.
    page.get_by_role("button", name="jump to polyps").click()
    settled(page)
    number = assert_shown(page, decoded)
    assert segments[1]["start"] <= (number - 1) / 25 < segments[1]["end"]
    assert_map(page, decoded[number - 1], "polyps")
    page.keyboard.press(".")
    settled(page)
    assert assert_shown(page, decoded) == number + 1
    page.keyboard.press("j")
    settled(page)
    assert 110 < assert_shown(page, decoded) <= 170
    box = page.locator(".tracks").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 30.5 / 170, box["y"] + 5)
    settled(page)
    assert assert_shown(page, decoded) == 31

    # It is put into the report, as an image of the study.
    page.keyboard.press("r")
    expect(page.locator(".added")).to_contain_text("Added to the report under normal-pylorus", timeout=QUIET)
    report = httpx.get(f"{home}/api/v1/studies/{video.StudyInstanceUID}/report").json()["report"]
    (finding,) = [one for one in report["observations"] if one["label"] == "normal-pylorus"]
    still = finding["evidence"][-2]["sop_instance_uid"]
    picture = httpx.get(f"{home}/api/v1/images/{still}/frames/1/picture.jpg").content
    assert closest(np.asarray(Image.open(io.BytesIO(picture))), decoded) == 31
    assert heard == []

    # The clips that were cut can be chosen, in their order; and the page is for everyone.
    builds = sorted((REPOSITORY / ".cache").glob("axe-core-*/axe.min.js"))
    if not builds:
        missing("npm's axe-core")
    # The page's own policy would not let the test's script in.
    context = browser.new_context(viewport={"width": 1280, "height": 720}, bypass_csp=True)
    open_page = context.new_page()
    open_page.goto(page.url)
    settled(open_page)
    assert assert_shown(open_page, decoded) == 31, "as the address says"
    titles = open_page.locator("select[name=video] option").all_text_contents()
    assert [title.rpartition(": ")[2] for title in titles] == ["Video", *SCENES]
    assert faults(open_page, builds[-1]) == []
    context.close()


def settled(page: Page) -> None:
    """Wait until the video is paused on a frame, and its map is shown."""
    expect(page.locator(".clock")).to_contain_text("frame", timeout=QUIET)
    expect(page.locator(".over")).to_be_visible(timeout=QUIET)
    expect(page.locator("endolens-explain:not([aria-busy])")).to_have_count(1, timeout=QUIET)
    expect(page.locator("endolens-explain .sentence")).not_to_be_empty(timeout=QUIET)


def closest(pixels: np.ndarray, decoded: list[np.ndarray]) -> int:
    """The number of the frame that a picture shows."""
    return 1 + int(np.argmin([np.abs(pixels.astype(float) - frame).mean() for frame in decoded]))


def assert_shown(page: Page, decoded: list[np.ndarray]) -> int:
    """The frame that the browser shows is the one that the page names, and that the map is of; its number."""
    drawn = base64.b64decode(page.locator("video").evaluate(CANVAS))
    number = closest(np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")), decoded)
    named = re.search(r"frame (\d+) of 170", page.locator(".clock").text_content() or "")
    assert named and int(named[1]) == number
    assert page.locator("endolens-explain").get_attribute("frame") == str(number)
    return number


def assert_map(page: Page, pixels: np.ndarray, label: str) -> None:
    """What is on the screen is the frame with the map that the library alone makes of it."""
    for box in ("regions", "artifacts"):
        page.locator(f"endolens-explain input[name={box}]").uncheck()
    settled(page)
    classifier = open_classifier()
    seen, (geometry,) = classifier.dissect([pixels], classifier.layers)
    layer = classifier.card.target_layer
    saliency = geometry.to_source(seen.grad_cam(layer, classifier.card.classes.index(label))[0])
    place = page.locator(".screen")
    screen = Image.open(io.BytesIO(place.screenshot())).convert("RGB")
    expected = Image.fromarray(heatmap.overlay(pixels, heatmap.normalise(saliency))).resize(screen.size)
    plain = Image.fromarray(pixels).resize(screen.size)
    shown, with_map, without = (np.asarray(one).astype(float) for one in (screen, expected, plain))
    assert np.abs(shown - with_map).mean() < 5
    assert np.abs(shown - without).mean() > 10
    assert np.corrcoef((shown - without).ravel(), (with_map - without).ravel())[0, 1] > 0.95
