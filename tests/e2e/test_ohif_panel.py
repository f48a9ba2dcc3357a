"""The EndoLens panel in OHIF: in the one that comes with MONAI Label, and in a hospital's own from another origin."""

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from playwright.sync_api import Page, Route, expect
from scipy.ndimage import center_of_mass

from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.network import KVASIR_CLASSES, build
from tests.e2e.conftest import Orthanc, endolens, largest
from tests.e2e.ohif import Ohif

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUIET = 60_000
"""Milliseconds that a busy machine may take."""

BLOB, RADIUS = (0.58, 0.44), 0.06
"""Where a blue disc is planted on a frame, as shares of its width and height; its radius, as a share of the width."""


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of which every map is known: it sees what is bluer than it is red and green, and calls that polyps."""
    network = build("vgg11", width=1 / 64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        convolutions = [module for module in network.features if isinstance(module, torch.nn.Conv2d)]
        for convolution in convolutions:
            convolution.weight[0, 0, 1, 1] = 1
        convolutions[0].weight[0, :, 1, 1] = torch.tensor([-1.0, -1.0, 1.0])
        convolutions[0].bias[0] = -0.2
        hidden, between, scores = (module for module in network.classifier if isinstance(module, torch.nn.Linear))
        hidden.weight[0, :49] = 1
        between.weight[0, 0] = 1
        scores.weight[KVASIR_CLASSES.index("polyps"), 0] = 5
    card = Card(
        name="blue",
        version="1.0",
        architecture="vgg11",
        width=1 / 64,
        input_size=128,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        target_layer="block1_conv1",
        notice="test model, not for clinical use",
    )
    path = tmp_path_factory.mktemp("model") / "blue.safetensors"
    save(path, network, card)
    return path


def test_the_map_lies_on_what_it_explains_and_a_region_drawn_in_the_viewer_is_a_correction(
    blue: Path,
    real_images: Path,
    hospital: Callable[[str, bool], str],
    serve: Callable[..., str],
    new_page: Callable[[], Page],
    tmp_path: Path,
) -> None:
    planted, other = tmp_path / "planted.png", tmp_path / "other.png"
    shutil.copy(largest(real_images / "kvasir-8" / "normal-cecum"), other)
    with Image.open(largest(real_images / "kvasir-8" / "polyps")) as image:
        picture = image.convert("RGB")
    (x, y), radius = np.multiply(BLOB, picture.size), RADIUS * picture.width
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), (0, 0, 255))
    picture.save(planted)
    endolens("dicomize", planted, other, "--out", tmp_path / "studies" / "a")
    first, second = _stills(tmp_path / "studies")
    ours = serve("--studies", str(tmp_path / "studies"), "--model", str(blue))
    manifest = f"/endolens/dicomjson/{first.StudyInstanceUID}"
    theirs = hospital(ours, False)
    held: list[Route] = []
    for viewer, server in ((f"{ours}/ohif", ""), (theirs, ours)):
        page = new_page()
        ohif = Ohif(page, f"{viewer}/viewer/dicomjson?url={server}{manifest}", (ours,))
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url.removeprefix(ours)))
        ohif.open("Stills")
        assert [one for one in asked if one.startswith(("/endolens/ohif/", "/endolens/api/", "/endolens/static/"))] == [
            "/endolens/ohif/extension.js"
        ], "opening OHIF loads more than the extension's entry"
        panel = ohif.open_panel()
        expect(panel.locator(".notice")).to_have_text("test model, not for clinical use")
        expect(panel.locator(".sentence")).to_contain_text("takes this frame for polyps", timeout=QUIET)
        for choice in ("regions", "artifacts"):
            panel.locator(f"[name={choice}]").uncheck()
        panel.locator("[name=opacity]").fill("1")

        for keys in ("", "++", "++"):
            for key in keys:
                page.keyboard.press(key)
            _check_overlay(ohif)
        asked.clear()
        for key in "hr":
            page.keyboard.press(key)
        page.mouse.move(700, 450)
        page.mouse.down(button="middle")
        page.mouse.move(760, 400, steps=8)
        page.mouse.up(button="middle")
        _check_overlay(ohif)
        assert not asked, "moving the picture asks the server"
        page.keyboard.press("Space")

        held.clear()
        page.route("**/explanation.png?*normal-cecum*", lambda route: held.append(route))
        panel.locator(".classes button", has_text="normal-cecum").click()
        for name in ("Save view", "Add to report"):
            # The class that is marked is not yet the one that is seen.
            expect(panel.get_by_role("button", name=name)).to_be_disabled()
        _go_on(page, held)
        expect(panel.locator(".sentence")).to_contain_text("gives normal-cecum", timeout=QUIET)
        expect(panel.get_by_role("button", name="Save view")).to_be_enabled()
        panel.locator(".stages button").nth(1).click()
        expect(panel.locator(".sentence")).to_contain_text("in block2_conv1", timeout=QUIET)
        panel.locator(".classes button", has_text="polyps").first.click()

        _draw_rectangle_around_blob(ohif)
        panel.get_by_role("button", name="Correct …").click()
        panel.get_by_label("It shows").select_option("dyed-lifted-polyps")
        panel.get_by_label("Your name").fill("Dr. Example")
        panel.get_by_role("button", name="Save", exact=True).click()
        expect(panel.get_by_text("Saved.")).to_be_visible(timeout=QUIET)
        page.keyboard.press("Escape")
        label = httpx.get(f"{ours}/datastore/label", params={"label": first.SOPInstanceUID, "tag": "final"}).json()
        said = label["corrections"][-1]
        assert (said["label"], said["by"]) == ("dyed-lifted-polyps", "Dr. Example")
        region = np.array(said["region"])
        assert np.abs(region.mean(axis=0) - (x, y)).max() < 3
        assert np.abs(np.ptp(region, axis=0) - 2 * radius).max() < 12

        held.clear()
        page.route(f"**/images/{second.SOPInstanceUID}/**", lambda route: held.append(route))
        panel.get_by_role("button", name="Next to review:").click()
        expect(panel.locator("endolens-explain")).to_have_attribute("image", second.SOPInstanceUID, timeout=QUIET)
        # Whoever corrects meanwhile would say it of the frame before.
        expect(panel.get_by_role("button", name="Correct …")).to_be_disabled()
        _go_on(page, held)
        expect(panel.get_by_role("button", name="Correct …")).to_be_enabled(timeout=QUIET)
        assert not ohif.errors
        assert not ohif.foreign
        httpx.delete(f"{ours}/datastore/label", params={"id": first.SOPInstanceUID, "tag": "final"}).raise_for_status()
        page.close()


def test_a_study_of_the_pacs_is_analysed_and_its_views_are_saved_and_reported_without_reloading(
    orthanc: Orthanc,
    real_images: Path,
    hospital: Callable[[str, bool], str],
    serve: Callable[..., str],
    new_page: Callable[[], Page],
    tmp_path: Path,
) -> None:
    for label in ("polyps", "ulcerative-colitis"):
        endolens("dicomize", largest(real_images / "kvasir-8" / label), "--out", tmp_path / label)
        orthanc.store(tmp_path / label)
    ours = serve("--studies", orthanc.dicomweb)
    for viewer, label in ((f"{ours}/ohif", "polyps"), (hospital(ours, True), "ulcerative-colitis")):
        (still,) = _stills(tmp_path / label)
        study = f"{ours}/endolens/api/v1/studies/{still.StudyInstanceUID}"
        page = new_page()
        ohif = Ohif(page, f"{viewer}/viewer?StudyInstanceUIDs={still.StudyInstanceUID}", (ours,))
        ohif.open("Stills")
        panel = ohif.open_panel()
        expect(panel.locator(".sentence")).to_contain_text("The network takes this frame for", timeout=QUIET)

        panel.get_by_role("button", name="Analyse").click()
        expect(panel.get_by_text("2 results stored.")).to_be_visible(timeout=QUIET)
        expect(page.get_by_text("EndoLens findings").first).to_be_visible(timeout=QUIET)
        panel.locator(".classes button").nth(1).click()
        chosen = panel.locator(".classes button").nth(1).get_attribute("value")
        expect(panel.locator(".sentence")).to_contain_text(f"gives {chosen}", timeout=QUIET)
        panel.get_by_role("button", name="Save view").click()
        expect(panel.get_by_text("Saved with the study")).to_be_visible(timeout=QUIET)
        folder = tmp_path / f"stored-{label}"
        folder.mkdir()
        objects = map(pydicom.dcmread, orthanc.download(folder))
        stored = [one for one in objects if one.StudyInstanceUID == still.StudyInstanceUID]
        (view,) = (one for one in stored if one.SeriesNumber == 907)
        assert chosen in view.DerivationDescription
        ohif.expect_thumbnail("EndoLens saved views", [view.pixel_array])
        ohif.expect_thumbnail("EndoLens Grad-CAM", [one.pixel_array for one in stored if one.SeriesNumber == 901])

        panel.get_by_role("button", name="Add to report").click()
        expect(panel.get_by_text(f"Added to the report under {chosen}")).to_be_visible(timeout=QUIET)
        report = httpx.get(f"{study}/report", timeout=60).json()["report"]
        (finding,) = (one for one in report["observations"] if one["label"] == chosen)
        assert finding["probability"] is None, "a class that the reader chose is not the machine's"
        assert [one["sop_instance_uid"] for one in finding["evidence"]] == [still.SOPInstanceUID, view.SOPInstanceUID]

        page.get_by_text("EndoLens saved views").first.dblclick()
        expect(panel.get_by_text("This picture is none that EndoLens looks at")).to_be_visible(timeout=QUIET)
        assert not ohif.errors
        assert not ohif.foreign

        # The server is away, and comes back.
        page.context.set_offline(True)
        panel.get_by_role("button", name="Next to review:").click()
        expect(panel.get_by_text("the server does not answer")).to_be_visible(timeout=QUIET)
        page.context.set_offline(False)
        panel.get_by_role("button", name="Next to review:").click()
        expect(panel.get_by_text("the server does not answer")).to_be_hidden(timeout=QUIET)
        page.close()


def _go_on(page: Page, held: list[Route]) -> None:
    for route in held:
        route.continue_()
    page.unroute_all()


def _stills(folder: Path) -> list[pydicom.Dataset]:
    return sorted(map(pydicom.dcmread, folder.rglob("*.dcm")), key=lambda one: int(one.InstanceNumber))


def _check_overlay(ohif: Ohif) -> None:
    """What the map changes on the screen is the blue disc, wherever that is."""
    overlay = ohif.page.locator(".endolens-overlay")
    expect(overlay).to_be_visible(timeout=QUIET)
    ohif.page.mouse.move(5, 5)
    ohif.page.wait_for_timeout(300)
    mapped = ohif.screen().astype(int)
    ohif.page.keyboard.press("o")
    expect(overlay).to_be_hidden()
    ohif.page.wait_for_timeout(100)
    plain = ohif.screen().astype(int)
    ohif.page.keyboard.press("o")
    expect(overlay).to_be_visible()
    disc, changed = _blue(plain), _in_viewport(np.abs(mapped - plain).max(axis=2) > 100)
    assert disc.sum() > 1000
    distance = np.abs(np.subtract(center_of_mass(disc), center_of_mass(changed))).max()
    diameter = 2 * np.sqrt(disc.sum() / np.pi)
    assert distance < 0.04 * diameter + 1, f"the map is {distance:.1f} pixels beside the disc of {diameter:.0f}"
    common = (disc & changed).sum() / (disc | changed).sum()
    assert common > 0.75, f"map and disc have {common:.0%} in common"


def _blue(screen: NDArray[np.int_]) -> NDArray[np.bool_]:
    red, green, blue = (screen[..., channel] for channel in range(3))
    return _in_viewport((blue > 180) & (red < 60) & (green < 60))


def _in_viewport(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = mask.copy()
    mask[:, :300] = mask[:, 1300:] = mask[:60] = False
    return mask


def _draw_rectangle_around_blob(ohif: Ohif) -> None:
    page = ohif.page
    page.keyboard.press("o")
    page.wait_for_timeout(300)
    rows, columns = np.nonzero(_blue(ohif.screen().astype(int)))
    page.keyboard.press("o")
    page.locator("[data-cy=MeasurementTools-split-button-secondary]").click()
    page.locator("[data-cy=RectangleROI]").first.click()
    page.mouse.move(int(columns.min()), int(rows.min()))
    page.mouse.down()
    page.mouse.move(int(columns.mean()), int(rows.mean()), steps=4)
    page.mouse.move(int(columns.max()), int(rows.max()), steps=4)
    page.mouse.up()
