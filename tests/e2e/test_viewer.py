"""A study of real images goes in; OHIF shows heatmaps and contours at the right place."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pydicom.uid import KeyObjectSelectionDocumentStorage, generate_uid
from scipy.ndimage import binary_dilation

from tests.e2e.conftest import Orthanc, endolens
from tests.e2e.ohif import CONTENT, SHOWS, Ohif, annotated, drawn
from tests.validators import dciodvfy, pdftotext

pytestmark = pytest.mark.e2e

EVERYTHING = ("--guided", "--layer-walk", "--segmentation", "--key-images", "--report")


def _study_uid(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.glob("*.dcm"))).StudyInstanceUID)


def _check_ohif(ohif: Ohif, summary: Path, stills: Path, heatmaps: list[np.ndarray]) -> None:
    """Thumbnails are shown, and the report's contours lie where summary.json says."""
    frame = json.loads(summary.read_text())["frames"][0]
    sources = {(ds := pydicom.dcmread(file)).SOPInstanceUID: ds for file in stills.rglob("*.dcm")}
    still = sources[frame["sop_instance_uid"]].pixel_array
    height, width = still.shape[:2]

    ohif.open("Stills", "EndoLens findings")
    ohif.expect_thumbnail("Stills", [source.pixel_array for source in sources.values()])
    ohif.expect_thumbnail("EndoLens Grad-CAM", heatmaps)

    ohif.open_findings()
    screen = ohif.screen()
    (left, top), (right, bottom) = ohif.image_corners(width, height)
    scale = np.array([(right - left) / width, (bottom - top) / height])
    assert abs(scale[0] / scale[1] - 1) < 0.02, "the still is distorted"
    _check_still_is_there(screen, still, (left, top, right, bottom))

    assert not ohif.errors
    assert not ohif.page.get_by_text("Something went wrong").count()
    _check_contours(screen, frame["regions"], (left, top, right, bottom), scale)


def _check_contours(
    screen: np.ndarray, regions: list[dict[str, Any]], box: tuple[float, float, float, float], scale: np.ndarray
) -> None:
    left, top, right, bottom = box
    contours = [np.array(region["contour"]) * scale + (left, top) for region in regions]
    shown = annotated(screen)
    inside = np.zeros(shown.shape, bool)
    # Beside the picture OHIF writes labels in the same green, and at its edge a segment has no outline.
    inside[max(0, round(top) + 4) : round(bottom) - 4, max(0, round(left) + 4) : round(right) - 4] = True
    expected = drawn(contours, shown.shape, thickness=1) & inside
    near_expected = drawn(contours, shown.shape, thickness=4)
    # Contours are dashed, and at the viewport's edge cut off.
    found = (binary_dilation(shown, iterations=6) & expected).sum() / expected.sum()
    assert found > 0.9, f"only {found:.0%} of the contour is drawn where it belongs"
    outline = shown & inside & near_expected
    assert outline.sum() > 0.2 * expected.sum()


def _check_segmentations(ohif: Ohif, summary: Path, stills: Path, one_colour: bool) -> None:
    """The last frame's regions, and those of the frame with most, lie on their own picture.

    OHIF 3.10 draws the first region alone in the colour that the object recommends (not ``one_colour``).
    """
    sources = {(ds := pydicom.dcmread(file)).SOPInstanceUID: ds for file in stills.rglob("*.dcm")}
    *frames, last = json.loads(summary.read_text())["frames"]
    several = max(frames, key=lambda frame: len(frame["regions"]))
    still = sources[several["sop_instance_uid"]]
    assert len(several["regions"]) > 1
    assert still.Rows * still.Columns % 8
    for frame in (last, several):
        still = sources[frame["sop_instance_uid"]]
        ohif.open_series("SEG", f"EndoLens regions of image {still.InstanceNumber}")
        ohif.page.get_by_text("Yes", exact=True).click(timeout=60_000)
        expect(ohif.page.get_by_text("Do you want to open this Segmentation?")).to_be_hidden(timeout=60_000)
        ohif.page.wait_for_timeout(2000)
        (left, top), (right, bottom) = ohif.image_corners(still.Columns, still.Rows)
        scale = np.array([(right - left) / still.Columns, (bottom - top) / still.Rows])
        regions = frame["regions"] if one_colour else frame["regions"][:1]
        _check_contours(ohif.screen(), regions, (left, top, right, bottom), scale)


def _check_still_is_there(screen: np.ndarray, still: np.ndarray, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = (round(value) for value in box)
    resized = np.array(Image.fromarray(still).resize((right - left, bottom - top)))
    visible = np.s_[max(top, 0) : min(bottom, screen.shape[0]), max(left, 0) : min(right, screen.shape[1])]
    part = resized[visible[0].start - top : visible[0].stop - top, visible[1].start - left : visible[1].stop - left]
    correlation = np.corrcoef(screen[visible].ravel(), part.ravel())[0, 1]
    assert correlation > 0.9, f"the screen does not show the still where it should be (correlation {correlation:.2f})"


def _check_documents(ohif: Ohif) -> None:
    """The report is read as text and as PDF."""
    ohif.open_series("SR", "EndoLens report")
    expect(ohif.page.get_by_text("AI involvement").first).to_be_visible(timeout=60_000)
    assert ohif.page.get_by_text("[proposed by AI, probability").count()
    ohif.open_series("DOC", "EndoLens report")
    document = ohif.page.locator("object[type='application/pdf']")
    expect(document).to_have_attribute("data", re.compile("."), timeout=60_000)
    address = document.get_attribute("data")
    content = bytes(ohif.page.evaluate(CONTENT, address))
    assert content.startswith(b"%PDF"), (address, content[:200])
    assert "Draft, not verified by a person" in pdftotext(content)
    assert not ohif.errors


def _check_key_objects(ohif: Ohif, objects: list[pydicom.Dataset]) -> None:
    """The images that the machine proposes are a series of their own."""
    (selection,) = (one for one in objects if one.SOPClassUID == KeyObjectSelectionDocumentStorage)
    items = [item for item in selection.ContentSequence if item.ValueType == "IMAGE"]
    assert len(items) > 1
    ohif.open_series("KO", "EndoLens proposed images")
    shown = sorted(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items)
    ohif.page.wait_for_function(SHOWS, arg=shown, timeout=60_000)
    assert not ohif.errors


def test_study_from_pacs(
    orthanc: Orthanc,
    real_study: Path,
    tmp_path: Path,
    serve: Callable[..., str],
    ohif_options: list[str],
    page: Page,
) -> None:
    orthanc.store(real_study)
    uid = _study_uid(real_study)
    analyze = ("analyze", "--pacs", orthanc.dicomweb, "--study", uid, "--out", tmp_path / "out", *EVERYTHING)
    endolens(*analyze)
    stored = orthanc.instances()
    maps_of_a_frame = 1 + 1 + 5
    assert len(stored) >= 4 + 4 * maps_of_a_frame + len(["findings", "report", "PDF", "key objects"])
    endolens(*analyze)
    assert orthanc.instances() == stored, "analysing twice changed what is stored"

    frames = json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]
    files = orthanc.download(tmp_path)
    objects = [pydicom.dcmread(file) for file in files]
    assert {output for frame in frames for output in frame["outputs"]} <= {one.SOPInstanceUID for one in objects}
    for file in files:
        assert dciodvfy(file) == [], file
    orthanc.store_by_dimse(objects)
    assert orthanc.instances() == stored, "stored by C-STORE they are others"

    address = serve("--studies", orthanc.dicomweb, *ohif_options)
    path = "viewer" if ohif_options else "ohif/viewer"
    ohif = Ohif(page, f"{address}/{path}?StudyInstanceUIDs={uid}")
    captures = [one.pixel_array for one in objects if "DerivationDescription" in one]
    _check_ohif(ohif, tmp_path / "out" / "summary.json", real_study, captures)
    _check_segmentations(ohif, tmp_path / "out" / "summary.json", real_study, bool(ohif_options))
    _check_documents(ohif)
    _check_key_objects(ohif, objects)
    assert not ohif.foreign, f"asked other servers: {ohif.foreign}"


def test_study_from_folder(
    real_study: Path, tmp_path: Path, serve: Callable[..., str], ohif_options: list[str], page: Page
) -> None:
    for still in real_study.iterdir():
        target = tmp_path / "studies" / "stills" / still.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(still.read_bytes())
    endolens("analyze", tmp_path / "studies", "--out", tmp_path / "studies" / "results", *EVERYTHING)
    results = tmp_path / "studies" / "results"
    (selection,) = results.rglob("key-objects/*.dcm")
    another = pydicom.dcmread(selection)  # of the same series, as that of an addendum
    another.SOPInstanceUID = another.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    another.save_as(selection.with_name("another.dcm"))
    address = serve("--studies", str(tmp_path / "studies"), *ohif_options)
    path = "viewer" if ohif_options else "ohif/viewer"
    manifest = f"/endolens/dicomjson/{_study_uid(real_study)}"
    ohif = Ohif(page, f"{address}/{path}/dicomjson?url={manifest}")
    captures = [pydicom.dcmread(file).pixel_array for file in results.rglob("heatmaps/*.dcm")]
    _check_ohif(ohif, results / "summary.json", real_study, captures)
    _check_segmentations(ohif, results / "summary.json", real_study, bool(ohif_options))
    _check_documents(ohif)
    _check_key_objects(ohif, [another])
    assert not ohif.foreign, f"asked other servers: {ohif.foreign}"


def test_pacs_that_stops_is_one_sentence_and_stores_nothing(
    orthanc: Orthanc, real_study: Path, tmp_path: Path, serve: Callable[..., str]
) -> None:
    orthanc.store(real_study)
    uid = _study_uid(real_study)
    address = serve("--studies", orthanc.dicomweb)
    assert httpx.get(f"{address}/endolens/studies/{uid}", timeout=60).status_code == 200
    assert httpx.get(f"{address}/endolens/dicomweb/studies/{uid}/metadata", timeout=60).status_code == 200
    for beyond in ("..%2fsystem", "studies/%252e%252e/%252e%252e/system", "studies%3Flimit=1", "studiesx", "instances"):
        assert httpx.get(f"{address}/endolens/dicomweb/{beyond}", timeout=60).status_code == 404
    renamed = httpx.get(f"{address}/info/", headers={"Host": "evil.example"}, timeout=60)
    assert renamed.status_code == 403
    orthanc.process.terminate()
    orthanc.process.wait(20)
    out = tmp_path / "out"
    result = endolens("analyze", "--pacs", orthanc.dicomweb, "--study", uid, "--out", out, check=False)
    assert result.returncode != 0
    assert result.stderr.strip() == f"Error: no PACS answers at {orthanc.dicomweb}; is it running?"
    assert not out.exists()
    for route in ("endolens/", f"endolens/dicomweb/studies/{uid}/metadata"):
        answer = httpx.get(f"{address}/{route}", timeout=60)
        assert answer.status_code == 502
        assert "no PACS answers" in answer.text
