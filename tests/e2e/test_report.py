"""From a study to a signed report, in a real browser: filled, edited, contested, signed, stored, and then only read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.conftest import REPOSITORY, Orthanc
from tests.validators import dciodvfy, missing, pdftotext

pytestmark = pytest.mark.e2e

SLOWLY = 60_000
SCRIPT = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"


@pytest.fixture
def studies(real_study: Path, tmp_path: Path) -> Path:
    """A folder with the real study, to which results are added."""
    return Path(shutil.copytree(real_study, tmp_path / "studies" / "stills")).parent


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page in a browser of its own, which must neither fail nor ask other servers."""
    contexts, faults = [], []

    def opened(address: str, width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, locale="en-US", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        own = re.match(r"https?://[^/]+", address)[0]
        page.on("request", lambda one: None if one.url.startswith((own, "blob:")) else faults.append(one.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def uid_of(studies: Path) -> str:
    return str(pydicom.dcmread(next(studies.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)


def state(page: Page, name: str) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", name, timeout=SLOWLY)


def findings(page: Page) -> Locator:
    return page.locator(".observation")


def chosen(page: Page, name: str, words: str) -> None:
    page.locator(f"select[name='{name}']").select_option(words)


def fill_in(page: Page) -> None:
    """All that an endoscopist says, by keyboard from field to field."""
    chosen(page, "kind", "Colonoscopy")
    page.get_by_label("Indication").fill("Screening")
    chosen(page, "sedation.key", "Moderate sedation")
    page.get_by_label("Drugs and doses").fill("Midazolam 3 mg")
    chosen(page, "extent.key", "Cecum")
    for segment, score in (("right", "2"), ("transverse", "3"), ("left", "2")):
        chosen(page, f"preparation.{segment}", score)
    expect(page.locator("#total")).to_have_text("7")
    for field in ("interventions", "adverse_events", "recommendation"):
        page.locator(f"[data-none={field}]").press("Enter")
    page.get_by_label("Diagnosis").fill(f"Größer als zuvor. {SCRIPT}")


def sign(page: Page) -> None:
    page.get_by_role("button", name="Sign …").press("Enter")
    dialog = page.get_by_role("dialog")
    for label, text in (("Family name", "Doe"), ("Given name", "Jane"), ("Role", "Endoscopist")):
        dialog.get_by_label(label).fill(text)
    dialog.get_by_label("Organization").fill("St. Elsewhere")
    # Clicked twice, it is signed once.
    dialog.get_by_role("button", name="Sign and store").dblclick()
    state(page, "signed")
    expect(dialog).to_be_hidden(timeout=SLOWLY)


def documents(folder: Path) -> dict[str, pydicom.Dataset]:
    """Modality → document; there is one of each."""
    files = [file for file in folder.rglob("*.dcm") if pydicom.dcmread(file).Modality in ("SR", "DOC", "KO")]
    found = [pydicom.dcmread(file) for file in files]
    assert len({one.Modality for one in found}) == len(found) == 3, [one.Modality for one in found]
    for file in files:
        assert dciodvfy(file) == [], file
    return {str(one.Modality): one for one in found}


def check_signed(found: dict[str, pydicom.Dataset], attached: set[str]) -> None:
    report, document, selection = found["SR"], found["DOC"], found["KO"]
    assert (report.VerificationFlag, report.CompletionFlag) == ("VERIFIED", "COMPLETE")
    assert report.VerifyingObserverSequence[0].VerifyingObserverName == "Doe^Jane"
    said = " ".join(pdftotext(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]).split())
    for words in ("Signed by Jane Doe, Endoscopist, St. Elsewhere", "Screening", "Midazolam 3 mg", "Größer als zuvor"):
        assert words in said, words
    assert "<script>document" in said.replace(" ", ""), "what was typed is text"
    assert "proposed by AI, probability" in said
    shown = [item for item in selection.ContentSequence if item.ValueType == "IMAGE"]
    assert {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in shown} == attached


def test_a_doctor_goes_from_a_study_to_a_signed_report(
    studies: Path, serve: Callable[..., str], tabs: Callable[..., Page], tmp_path: Path
) -> None:
    uid = uid_of(studies)
    address = f"{serve('--studies', str(studies))}/endolens/studies/{uid}/report"
    page = tabs(address)
    state(page, "saved")
    proposed = findings(page).count()
    assert proposed >= 1
    expect(findings(page).first.locator(".machine").first).to_contain_text("proposed by AI, probability")
    expect(findings(page).first.locator(".reason")).to_contain_text("frame")
    expect(page.get_by_role("link", name="Indication: why it was done")).to_be_visible()

    # In another language and back, nothing of what a machine wrote is left behind.
    rest = address.replace("/studies", "/api/v1/studies")
    english = httpx.get(rest).json()["report"]
    page.get_by_label("Language").select_option("de")
    expect(page.get_by_role("link", name="Indikation: warum untersucht wurde")).to_be_visible()
    expect(findings(page).first.locator(".reason")).to_contain_text(re.compile(r"Bild.* \d+,\d %"))
    expect(page.locator("#ai_involvement")).to_have_value(re.compile("hat 4 von 4 Bildern klassifiziert .* kalibriert"))
    page.get_by_label("Language").select_option("en")
    state(page, "saved")
    assert httpx.get(rest).json()["report"] == english

    fill_in(page)
    # By keyboard alone: to the images, to the last of them, to the first finding and back, and there again.
    page.get_by_label("Diagnosis").blur()
    page.keyboard.press("g")
    for _ in range(3):
        page.keyboard.press("j")
    last = page.locator("#gallery button").nth(3)
    expect(last).to_be_focused()
    images = findings(page).first.locator(".evidence li")
    before = images.count()
    already = "1" in last.locator(".attached").inner_text()
    for count in (-1, 0, -1) if already else (1, 0, 1):
        page.keyboard.press("1")
        expect(images).to_have_count(before + count)
    state(page, "saved")
    expect(page.locator("#missing")).to_have_text("Everything is said.")

    other = tabs(address)
    state(other, "saved")
    expect(other.get_by_label("Indication")).to_have_value("Screening")
    other.get_by_label("Editor").fill("Dr. Other")
    other.get_by_label("Indication").fill("Bleeding")
    other.get_by_label("Adverse events").fill("Perforation")
    state(other, "saved")
    page.get_by_label("Indication").fill("Screening, family history")
    conflict = page.get_by_role("dialog")
    expect(conflict).to_contain_text("Dr. Other", timeout=SLOWLY)
    expect(conflict.get_by_role("row").nth(1)).to_contain_text("Bleeding")
    expect(conflict.get_by_role("row").nth(1)).to_contain_text("Screening, family history")
    for _ in range(3):
        page.keyboard.press("Escape")
    conflict.get_by_role("button", name="Save what is chosen").press("Enter")
    state(page, "saved")
    expect(page.get_by_label("Indication")).to_have_value("Screening, family history")
    expect(page.get_by_label("Adverse events")).to_have_value("Perforation")  # the other's, for it was not touched here
    kept = httpx.get(f"{address.replace('/studies', '/api/v1/studies')}/versions").json()["versions"]
    assert [one["author"] for one in kept if one["author"]] == ["Dr. Other"]
    assert sum(one["set_aside"] for one in kept) == 1

    attached = {
        image["sop_instance_uid"]
        for one in httpx.get(address.replace("/studies", "/api/v1/studies")).json()["report"]["observations"]
        for image in one["evidence"]
    }
    sign(page)
    check_signed(documents(studies), attached)
    expect(page.locator("#signed-by")).to_contain_text("Jane Doe, Endoscopist, St. Elsewhere")
    expect(page.frame_locator("#signed iframe").get_by_text("Screening, family history")).to_be_visible()
    expect(page.get_by_label("Indication")).to_be_hidden()
    assert page.title() != "pwned"

    # The other tab does not know yet, and cannot change it.
    other.get_by_label("Indication").fill("Too late")
    state(other, "refused")
    expect(other.locator("#state")).to_contain_text(re.compile("signed by Doe, Jane.* kept as version"))
    expect(other.locator("#signed-by")).to_be_visible()
    assert "Too late" not in httpx.get(rest).text

    page.get_by_role("button", name="Addendum").press("Enter")
    state(page, "saved")
    expect(page.get_by_role("link", name="Addendum: what it adds")).to_be_visible()
    expect(page.get_by_label("Indication")).to_have_value("Screening, family history")


def test_a_report_that_is_signed_is_stored_in_the_pacs_once(
    orthanc: Orthanc, real_study: Path, serve: Callable[..., str], tabs: Callable[..., Page], tmp_path: Path
) -> None:
    orthanc.store(real_study)
    before, uid = orthanc.instances(), uid_of(real_study)
    address = f"{serve('--studies', orthanc.dicomweb)}/endolens/studies/{uid}/report"
    page = tabs(address)
    state(page, "saved")
    fill_in(page)
    state(page, "saved")
    sign(page)
    stored = orthanc.instances()
    assert len(stored - before) == 3
    rest = address.replace("/studies", "/api/v1/studies")
    signed = httpx.get(rest, timeout=60)
    attached = {
        image["sop_instance_uid"] for one in signed.json()["report"]["observations"] for image in one["evidence"]
    }
    folder = tmp_path / "downloaded"
    folder.mkdir()
    orthanc.download(folder)
    check_signed(documents(folder), attached)
    doctor = {"name": "Doe^Jane", "role": "Endoscopist", "organization": "St. Elsewhere"}
    again = httpx.post(f"{rest}/signature", json=doctor, headers={"If-Match": signed.headers["ETag"]}, timeout=60)
    assert again.json() == signed.json()
    assert orthanc.instances() == stored


def test_what_cannot_be_saved_is_kept_and_said_and_saved_later(
    studies: Path, serve: Callable[..., str], tabs: Callable[..., Page]
) -> None:
    address = f"{serve('--studies', str(studies))}/endolens/studies/{uid_of(studies)}/report"
    rest = address.replace("/studies", "/api/v1/studies")
    page = tabs(address)
    state(page, "saved")
    page.context.set_offline(True)
    page.get_by_label("Indication").fill("Written offline")
    state(page, "away")
    expect(page.locator("#state")).to_contain_text("kept in this tab")
    assert httpx.get(rest).json()["report"]["indication"] == ""
    page.context.set_offline(False)
    state(page, "saved")
    assert httpx.get(rest).json()["report"]["indication"] == "Written offline"

    # A tab that is loaded anew while its text is not saved has it still.
    page.route("**/report", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    page.get_by_label("Indication").fill("Written before a reload")
    state(page, "away")
    page.on("dialog", lambda dialog: dialog.accept())
    page.unroute_all()
    page.reload()
    expect(page.get_by_label("Indication")).to_have_value("Written before a reload", timeout=SLOWLY)
    state(page, "saved")
    assert httpx.get(rest).json()["report"]["indication"] == "Written before a reload"


def test_the_report_has_no_serious_accessibility_fault(
    studies: Path, serve: Callable[..., str], tabs: Callable[..., Page]
) -> None:
    builds = sorted((REPOSITORY / ".cache").glob("axe-core-*/axe.min.js"))
    if not builds:
        missing("npm's axe-core")
    address = f"{serve('--studies', str(studies))}/endolens/studies/{uid_of(studies)}/report"
    # The page's own policy would not let the test's script in.
    page = tabs(address, bypass_csp=True)

    def check() -> None:
        page.add_script_tag(path=builds[-1])
        found = page.evaluate("axe.run({ iframes: false }).then(({ violations }) => violations)")
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave] == []

    state(page, "saved")
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        check()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.get_by_role("button", name="Versions").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sign …").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check()
    page.get_by_label("Sign it all the same").check()
    for label, text in (("Family name", "Doe"), ("Role", "Endoscopist"), ("Organization", "St. Elsewhere")):
        page.get_by_role("dialog").get_by_label(label).fill(text)
    page.get_by_role("button", name="Sign and store").click()
    state(page, "signed")
    check()
