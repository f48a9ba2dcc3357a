"""The page "Dissect" in a real browser, on a study of real images and on a long one."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from explainers import heatmap
from monai_label_app.classifier.classifier import Classifier, open_classifier
from tests.dicom_files import by_pillow, encapsulated, write
from tests.e2e.conftest import REPOSITORY, endolens
from tests.validators import missing

pytestmark = pytest.mark.e2e

FRAMES = 500
QUIET = 60_000
"""Milliseconds that a busy machine may take."""


@pytest.fixture
def demonstration() -> Classifier:
    return open_classifier()


@pytest.fixture
def heard(page: Page) -> list[str]:
    """What must not happen on a page: errors, and requests to other servers."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    own = ("http://127.0.0.1:", "blob:http://127.0.0.1:")
    page.on("request", lambda request: None if request.url.startswith(own) else found.append(request.url))
    return found


def settled(page: Page) -> None:
    """Wait until the explorer shows what was asked for."""
    expect(page.locator("endolens-explain .sentence")).not_to_be_empty(timeout=QUIET)
    expect(page.locator("endolens-explain:not([aria-busy])")).to_have_count(1, timeout=QUIET)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        settled(page)


def shown(page: Page) -> dict[str, str]:
    """The query of the map that is shown."""
    return dict(httpx.QueryParams(page.locator("figure .map").last.get_attribute("data-shown")))


def screen(stage: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB")).astype(float)


def overlay(classifier: Classifier, pixels: np.ndarray, layer: str, label: str) -> np.ndarray:
    """A Grad-CAM over its frame, by the library alone."""
    seen, (geometry,) = classifier.dissect([pixels], classifier.layers)
    saliency = geometry.to_source(seen.grad_cam(layer, classifier.card.classes.index(label))[0])
    return heatmap.overlay(pixels, heatmap.normalise(saliency))


def test_a_doctor_looks_into_a_study_of_real_images_by_keyboard(
    real_study: Path, serve: Callable[..., str], page: Page, heard: list[str], demonstration: Classifier, tmp_path: Path
) -> None:
    shutil.copytree(real_study, tmp_path / "studies")
    read = sorted(map(pydicom.dcmread, (tmp_path / "studies").iterdir()), key=lambda one: one.InstanceNumber)
    stills = {one.SOPInstanceUID: one for one in read}
    page.goto(f"{serve('--studies', str(tmp_path / 'studies'))}/endolens/")
    page.get_by_role("link", name="Test Real", exact=True).click()
    settled(page)

    # The gallery says of every frame what the network says.
    cards = page.locator(".frames button")
    expect(cards).to_have_count(4)
    for card in cards.all():
        expect(card.locator(".certainty")).not_to_be_empty(timeout=QUIET)
        pixels = stills[card.get_attribute("data-image")].pixel_array
        chances = demonstration.scores([pixels])[0].softmax(dim=0)
        assert card.locator(".prediction").inner_text() == demonstration.card.classes[int(chances.argmax())]
        assert float(card.get_attribute("data-certainty") or 0) == pytest.approx(float(chances.max()), abs=1e-4)

    # The next frame, its most probable class, and its map at the right place in the right colours.
    press(page, "ArrowRight", "o", "a")
    card = page.locator(".frames button[aria-current]")
    assert card.get_attribute("data-image") == list(stills)[1]
    query, pixels = shown(page), stills[card.get_attribute("data-image")].pixel_array
    assert query["class"] == card.locator(".prediction").inner_text()
    assert query["layer"] == demonstration.card.target_layer
    picture = screen(page.locator(".stage"))
    laid_over = overlay(demonstration, pixels, query["layer"], query["class"])
    expected, plain = (
        np.asarray(Image.fromarray(one).resize(picture.shape[1::-1])).astype(float) for one in (laid_over, pixels)
    )
    assert np.abs(picture - expected).mean() < 6
    coloured = np.abs(expected - plain).max(axis=2) > 30
    assert np.abs(picture - expected)[coloured].mean() < 0.3 * np.abs(picture - plain)[coloured].mean()

    # Another class, another layer, another method.
    press(page, "ArrowDown")
    buttons = page.locator(".classes button")
    assert shown(page)["class"] == buttons.nth(1).get_attribute("value")
    expect(page.locator(".sentence")).to_contain_text(f"gives {shown(page)['class']}")
    press(page, "2")
    assert shown(page)["layer"] == demonstration.stages[1]
    press(page, ".")
    assert shown(page)["layer"] == demonstration.layers[demonstration.layers.index(demonstration.stages[1]) + 1]
    press(page, "m")
    assert shown(page)["method"] != "grad-cam"

    # Walking shows every block, the last one in the end.
    page.evaluate(
        "window.walked = []; document.querySelector('endolens-explain')"
        ".addEventListener('endolens-shown', ({ detail }) => walked.push(detail.layer))"
    )
    page.keyboard.press("w")
    walk = page.get_by_role("button", name="Walk the layers")
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=QUIET)
    expect(walk).to_be_visible(timeout=QUIET)
    assert page.evaluate("walked") == demonstration.stages

    # Why not? Both maps share one scale, and it is said.
    page.get_by_role("button", name="Grad-CAM", exact=True).click()
    press(page, "n")
    figures = page.locator("figure")
    expect(figures).to_have_count(2, timeout=QUIET)
    expect(figures.first).to_contain_text("Taken for")
    expect(figures.last).to_contain_text("Why not")
    expect(page.locator(".scale")).to_contain_text("one scale for both maps")
    first, last = (dict(httpx.QueryParams(one.get_attribute("data-shown"))) for one in page.locator(".map").all())
    assert (first["class"], first["compared_with"]) == (last["compared_with"], last["class"])
    assert not heard


def test_a_navigation_box_is_drawn_and_said_and_frames_can_be_filtered(
    real_images: Path, serve: Callable[..., str], page: Page, heard: list[str], tmp_path: Path
) -> None:
    folder = real_images / "kvasir-seg"
    boxes = json.loads((folder / "navigation_boxes.json").read_text())
    names = [*sorted(boxes)[:2], *sorted({file.name for file in (folder / "images").iterdir()} - {*boxes})[:2]]
    endolens("dicomize", *(folder / "images" / name for name in names), "--out", tmp_path / "studies")
    page.goto(f"{serve('--studies', str(tmp_path / 'studies'))}/endolens/")
    page.locator("table a").first.click()
    for name in names:
        settled(page)
        drawn = page.locator(".artifacts g", has_text="navigation box").locator("polygon")
        expect(drawn).to_have_count(int(name in boxes), timeout=QUIET)
        if name in boxes:
            expect(page.locator(".found")).to_contain_text("navigation box")
            points = np.array([pair.split(",") for pair in drawn.get_attribute("points").split()], dtype=float)
            assert np.abs([*points.min(axis=0), *points.max(axis=0)] - np.array(boxes[name])).max() <= 6
        page.keyboard.press("ArrowRight")

    # A filter looks at every frame, and leaves those that fit.
    cards = page.locator(".frames button")
    label = cards.first.locator(".prediction").inner_text()
    page.keyboard.press("f")
    page.keyboard.type(label)
    choice = page.get_by_role("combobox", name="Class")
    expect(choice).to_have_value(label)
    expect(page.locator("output[name=count]")).not_to_contain_text("looked at", timeout=QUIET)
    said = {card: card.locator(".prediction").inner_text() for card in cards.all()}
    assert [card.is_visible() for card in said] == [text == label for text in said.values()]
    choice.select_option("")
    page.get_by_label("only with warnings").check()
    warned = [card.locator(".warned").get_attribute("hidden") is None for card in cards.all()]
    assert [card.is_visible() for card in cards.all()] == warned
    assert not heard


def test_a_gallery_of_many_frames_loads_what_is_in_view(
    serve: Callable[..., str], page: Page, heard: list[str], tmp_path: Path
) -> None:
    grey = np.linspace(40, 200, FRAMES).astype(np.uint8)
    pixels = np.broadcast_to(grey[:, None, None, None], (FRAMES, 64, 64, 3))
    streams = [by_pillow(frame, "JPEG") for frame in pixels]
    long = encapsulated(pixels, "1.2.840.10008.1.2.4.50", streams, PhotometricInterpretation="YBR_FULL_422")
    write(long, tmp_path / "long.dcm")
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url) if "width=" in request.url else None)
    page.goto(f"{serve('--studies', str(tmp_path))}/endolens/studies/{long.StudyInstanceUID}")
    settled(page)
    expect(page.locator(".frames button")).to_have_count(FRAMES)
    assert 0 < len(asked) < FRAMES / 4
    press(page, "End")
    last = page.locator(".frames button").last
    expect(last).to_be_in_viewport(timeout=QUIET)
    expect(last.locator(".certainty")).not_to_be_empty(timeout=QUIET)
    thumbnail = last.locator("img")
    expect(thumbnail).to_have_js_property("naturalWidth", 64, timeout=QUIET)
    assert abs(screen(thumbnail)[..., 0].max() - 200) < 4, "the last frame is the brightest"
    assert len(asked) < FRAMES / 2
    assert page.locator("figure .picture").get_attribute("src").endswith(f"/frames/{FRAMES}/picture.jpg")
    assert not heard


def test_pages_have_no_serious_accessibility_fault(
    real_study: Path, serve: Callable[..., str], browser: Browser, tmp_path: Path
) -> None:
    builds = sorted((REPOSITORY / ".cache").glob("axe-core-*/axe.min.js"))
    if not builds:
        missing("npm's axe-core")
    shutil.copytree(real_study, tmp_path / "studies")
    last = max((tmp_path / "studies").iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)
    last.write_bytes(last.read_bytes()[:5000])
    address = serve("--studies", str(tmp_path / "studies"))
    for width in (1280, 1920):
        # The page's own policy would not let the test's script in.
        context = browser.new_context(viewport={"width": width, "height": 720}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{address}/endolens/")
        assert faults(page, builds[-1]) == []
        page.get_by_role("link", name="Test Real", exact=True).click()
        settled(page)
        assert faults(page, builds[-1]) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        # Of a frame that cannot be read it is said, and the numbers of the one before do not stand beside it.
        expect(page.locator(".classes")).to_contain_text("%")
        page.keyboard.press("End")
        expect(page.locator(".sentence")).to_contain_text("Not shown", timeout=QUIET)
        expect(page.locator(".classes")).not_to_contain_text("%")
        assert faults(page, builds[-1]) == []
        press(page, "Home", "n")
        assert faults(page, builds[-1]) == []
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert faults(page, builds[-1]) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.goto(f"{address}/endolens/studies/1.2.3")
        assert faults(page, builds[-1]) == []
        context.close()


def faults(page: Page, axe: Path) -> list[tuple[str, list[Any]]]:
    """What axe-core finds serious or critical, with the elements."""
    page.add_script_tag(path=axe)
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    grave = (one for one in found if one["impact"] in ("serious", "critical"))
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave]
