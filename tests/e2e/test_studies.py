"""From files on a desk to a corrected label: dropped, analysed, looked at, corrected; in a folder and in a PACS."""

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pydicom
import pytest
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from monai_label_app import compatibility  # noqa: F401
from monai_label_app.sample import STUDY
from tests.e2e.conftest import REPOSITORY, Orthanc
from tests.e2e.test_dissect import faults
from tests.validators import missing

pytestmark = pytest.mark.e2e

QUIET = 90_000
"""Milliseconds that a busy machine may take for what is quick."""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    # The page's own policy would not let axe-core in.
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    context.set_default_timeout(QUIET)
    yield context.new_page()
    context.close()


@pytest.fixture(params=["folder", "pacs"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Callable]:
    """An empty folder or a PACS: what `--studies` takes, and a function that fetches all objects that are in it."""
    if request.param == "folder":
        folder = tmp_path / "studies"
        folder.mkdir()
        return str(folder), lambda: [pydicom.dcmread(file) for file in folder.glob("*/*.dcm")]
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    orthanc: Orthanc = request.getfixturevalue("orthanc")
    (tmp_path / "download").mkdir()
    return orthanc.dicomweb, lambda: [pydicom.dcmread(file) for file in orthanc.download(tmp_path / "download")]


@pytest.fixture
def axe() -> Path:
    builds = sorted((REPOSITORY / ".cache").glob("axe-core-*/axe.min.js"))
    if not builds:
        missing("npm's axe-core")
    return builds[-1]


def drop(page: Page, files: Sequence[Path]) -> None:
    """Drag files from the desktop onto the page, as the browser gets them from the system."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for event in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": event, "x": 300, "y": 400, "data": data})


def study(page: Page, name: str) -> Locator:
    return page.locator("#studies tbody tr", has_text=name)


def test_the_connection_of_a_reader_who_looks_for_a_while_is_kept(serve: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    connection = http.client.HTTPConnection(serve("--studies", str(tmp_path / "studies")).removeprefix("http://"))
    connection.auto_open = 0  # no other in its place
    connection.connect()
    for pause in (6, 0):
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        time.sleep(pause)


def test_from_dropped_files_to_a_corrected_label(
    place: tuple[str, Callable],
    serve: Callable[..., str],
    page: Page,
    axe: Path,
    polyp_files: list[Path],
    tmp_path: Path,
) -> None:
    from monailabel.client import MONAILabelClient

    studies, objects = place
    address = serve("--studies", studies)
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto(f"{address}/endolens/")
    expect(page.get_by_text("There is no endoscopy study here yet.")).to_be_visible()
    assert faults(page, axe) == []

    (tmp_path / "letter.jpg").write_text("Dear colleague")
    drop(page, [*polyp_files, tmp_path / "letter.jpg"])
    expect(page.get_by_text("letter.jpg is not a JPEG, PNG, TIFF or BMP picture")).to_be_visible(timeout=QUIET)
    page.get_by_label("Patient ID").fill("4711")
    page.get_by_label("Family name").fill("Doe")
    page.get_by_label("Given name").fill("<b>Jane</b>")
    page.get_by_label("Born").fill("1950-01-02")
    page.get_by_label("Examined", exact=True).fill("2026-02-03")
    assert faults(page, axe) == []
    page.get_by_role("button", name="Add 3 files to the studies").click()
    expect(page.get_by_text("3 of 3 files added.")).to_be_visible(timeout=QUIET)
    pictures = study(page, "Doe <b>Jane</b>")
    for text in ("4711", "2026-02-03", "3", "new"):
        expect(pictures.get_by_role("cell", name=text, exact=True)).to_be_visible()

    drop(page, sorted(STUDY.iterdir())[:2])
    expect(page.get_by_text("2 of 2 files added.")).to_be_visible(timeout=QUIET)
    sample = study(page, "Sample Synthetic")
    expect(sample).to_have_count(1)
    stored = objects()
    assert len(stored) == 5
    assert {str(one.PatientBirthDate) for one in stored if one.PatientID == "4711"} == {"19500102"}
    lists: list[tuple[Route, APIResponse]] = []
    page.route(f"{address}/endolens/", lambda route: lists.append((route, route.fetch())), times=1)
    drop(page, sorted(STUDY.iterdir())[:2])
    expect(page.get_by_text("0 of 2 files added. 2 were there already.")).to_be_visible(timeout=QUIET)

    page.get_by_label("Find").fill("doe 4711")
    expect(sample).to_be_hidden()
    page.get_by_label("Find").fill("")
    pictures.get_by_role("button", name="Analyse").click()
    expect(pictures.get_by_text(re.compile("[1-3] of 3 frames|storing|stored"))).to_be_visible(timeout=QUIET)
    page.get_by_role("button", name="Description").click()  # sorting moves its row
    expect(pictures.get_by_text("4 results stored.")).to_be_visible(timeout=QUIET)
    ((route, before),) = lists  # the list as it was before, late
    with page.expect_request(f"{address}/endolens/"):  # which the page asks for again
        route.fulfill(response=before)
    expect(pictures.get_by_text("4 results stored.")).to_be_visible()
    expect(pictures.locator(".state")).to_have_text("analysed")
    assert faults(page, axe) == []
    results = [one for one in objects() if one.get("Manufacturer") == "EndoLens"]
    assert sorted(one.Modality for one in results)[-1] == "SR" and len(results) == 4
    assert {one.PatientID for one in results} == {"4711"}
    page.reload()
    expect(pictures.locator(".state")).to_have_text("analysed")
    expect(sample.locator(".state")).to_have_text("new")

    pictures.get_by_role("link", name="Doe <b>Jane</b>", exact=True).click()
    page.get_by_role("button", name="Correct …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("The network says")).to_be_visible(timeout=QUIET)
    dialog.get_by_label("It shows").select_option("esophagitis")
    dialog.get_by_label("Your name").fill("Dr. Åse Example")
    dialog.get_by_role("button", name="Rectangle").click()
    frame = dialog.locator(".drawing img")
    box, size = frame.bounding_box(), frame.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert box
    corners = [(0.25, 0.25), (0.5, 0.75)]
    (x0, y0), (x1, y1) = [
        (box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in corners
    ]
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=3)
    page.mouse.up()
    assert faults(page, axe) == []
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Saved.")).to_be_visible(timeout=QUIET)
    expect(dialog.get_by_role("listitem")).to_contain_text("esophagitis, of a region – Dr. Åse Example")

    client = MONAILabelClient(address, str(tmp_path))
    assert client.info()["datastore"]["total"] == 5
    assert client.info()["datastore"]["completed"] == 1
    image = page.locator("endolens-correct").get_attribute("image")
    label = httpx.get(f"{address}/datastore/label", params={"label": image, "tag": "final"}).raise_for_status()
    (kept,) = json.loads(label.content)["corrections"]
    assert (kept["image"], kept["label"], kept["by"]) == (image, "esophagitis", "Dr. Åse Example")
    (left, top), _, (right, bottom), _ = kept["region"]
    width, height = size
    expected = (0.25 * width, 0.25 * height, 0.5 * width, 0.75 * height)
    assert (left, top, right, bottom) == pytest.approx(expected, abs=0.01 * max(size) + 1)
    assert not heard


def test_keys_discard_and_what_another_site_may_not(
    serve: Callable[..., str], page: Page, tmp_path: Path, polyp_files: list[Path]
) -> None:
    (tmp_path / "studies").mkdir()
    address = serve("--studies", str(tmp_path / "studies"))
    # Playwright begins to intercept choosers some time after it is asked to: a key would be quicker.
    page.on("filechooser", lambda chooser: None)
    page.goto(f"{address}/endolens/")
    page.locator("h1").click()  # a browser opens no chooser for a page that nobody has touched
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("u")
    chosen.value.set_files([polyp_files[0]])
    expect(page.get_by_text("Whose pictures are these?")).to_be_visible(timeout=QUIET)
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_text("Whose pictures are these?")).to_be_hidden()
    drop(page, sorted(STUDY.iterdir())[:1])
    expect(page.get_by_text("1 of 1 files added.")).to_be_visible(timeout=QUIET)
    added = page.get_by_role("link", name="Sample Synthetic", exact=True)
    expect(added).to_be_visible(timeout=QUIET)
    page.locator("main").focus()
    page.keyboard.press("j")
    expect(added).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Find")).to_be_focused()
    (still,) = (tmp_path / "studies").glob("*/*.dcm")
    foreign = {"Origin": "http://evil.example"}
    api = f"{address}/endolens/api/v1"
    for method, route in (
        ("POST", "uploads"),
        ("POST", f"studies/{still.parent.name}/analysis"),
        ("POST", f"images/{still.stem}/frames/1/labels"),
        ("DELETE", "jobs/x"),
        ("DELETE", "uploads/x"),
    ):
        assert httpx.request(method, f"{api}/{route}", headers=foreign).status_code == 403
    assert list((tmp_path / "studies").glob("*/*.dcm")) == [still]
