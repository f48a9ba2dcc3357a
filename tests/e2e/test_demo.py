"""`endolens demo`: what a newcomer sees first."""

import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Page, expect

from monai_label_app.sample.frames import study_frames
from tests.e2e.conftest import ENDOLENS, free_port, running
from tests.e2e.ohif import Ohif

pytestmark = pytest.mark.e2e


def test_demo_prints_two_addresses_that_answer(tmp_path: Path, page: Page, depict: Callable[[Page, str], None]) -> None:
    port = free_port()
    command = [ENDOLENS, "demo", "--folder", str(tmp_path / "demo"), "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}/endolens/", tmp_path / "log"):
        printed = (tmp_path / "log").read_text()
        (viewer,) = re.findall(r"^OHIF: +(\S+)$", printed, re.MULTILINE)
        (home,) = re.findall(r"^EndoLens: +(\S+)$", printed, re.MULTILINE)
        assert "not for clinical use" in printed

        ohif = Ohif(page, viewer)
        ohif.open("Stills", "EndoLens findings")
        captures = (tmp_path / "demo" / "results").rglob("heatmaps/*.dcm")
        ohif.expect_thumbnail("EndoLens Grad-CAM", [pydicom.dcmread(file).pixel_array for file in captures])
        ohif.open_findings()
        depict(page, "ohif.jpg")
        assert not ohif.foreign

        page.goto(home)
        expect(page.get_by_role("note")).to_have_text(
            "demonstration model for research and education, not for clinical use"
        )
        page.get_by_role("link", name="Sample Synthetic").first.click()
        cards = page.locator(".frames button")
        expect(cards).to_have_count(8)
        frames = json.loads((tmp_path / "demo" / "results" / "summary.json").read_text())["frames"]
        for card, frame in zip(cards.all(), frames, strict=True):
            card.scroll_into_view_if_needed()
            expect(card.locator(".prediction")).to_have_text(frame["predicted"], timeout=30_000)
            chance = float(card.get_attribute("data-certainty") or 0)
            assert abs(chance - frame["probabilities"][frame["predicted"]]) < 1e-4
        page.keyboard.press("n")
        expect(page.locator("figure")).to_have_count(2, timeout=30_000)
        expect(page.locator("endolens-explain:not([aria-busy])")).to_have_count(1, timeout=30_000)
        depict(page, "dissect.jpg")
        page.get_by_role("link", name="Report", exact=True).first.click()
        expect(page.locator("#state")).to_have_attribute("data-state", "saved", timeout=60_000)
        expect(page.locator(".observation").first).to_contain_text("proposed by AI")
        depict(page, "report.jpg")
        still = f"{home}api/v1/images/{frames[0]['sop_instance_uid']}/frames/1"
        capture = pydicom.dcmread(io.BytesIO(httpx.get(f"{still}/explanation.dcm", timeout=60).content))
        analysed = pydicom.dcmread(frames[0]["outputs"][0])
        assert capture.SOPInstanceUID == analysed.SOPInstanceUID
        assert np.abs(capture.pixel_array.astype(int) - analysed.pixel_array).mean() < 3


def test_demo_model_is_right_for_the_right_reason(tmp_path: Path) -> None:
    """Every still of the sample study is recognised, and most regions lie on what makes the class."""
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([ENDOLENS, "analyze", str(_study()), "--out", str(tmp_path / "out")], check=True, stderr=log)
    frames = json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]
    hits = []
    for frame, (label, _, mask) in zip(frames, study_frames(), strict=True):
        assert frame["predicted"] == label
        x0, y0, x1, y1 = frame["regions"][0]["box"]
        ys, xs = np.nonzero(mask)
        hits.append(x0 <= xs.mean() <= x1 and y0 <= ys.mean() <= y1 and (x1 - x0) * (y1 - y0) < 0.6 * mask.size)
    assert np.mean(hits) >= 0.75


def _study() -> Path:
    from monai_label_app.sample import STUDY

    return STUDY
