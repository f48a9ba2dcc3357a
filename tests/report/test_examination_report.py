"""The examination's report as Structured Report, PDF and FHIR: valid, complete, and honest about who answers for it."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread

from report.choices import KINDS, SEDATIONS, SITES
from report.examination import BowelPreparation, Choice, Evidence, ExaminationReport, Observation, Signature
from report.examination_report import examination_report
from report.fhir import fhir_bundle
from report.findings import GRAD_CAM, Algorithm, Explanation, Finding
from report.language import LANGUAGES
from report.render import encapsulated_pdf, page, patient_data, pdf
from report.suggest import draft, examined, suggest
from report.terms import TERMS
from tests.dicom_files import image, write
from tests.validators import dciodvfy, dsrdump, pdftotext

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model, not for clinical use")
PIXELS = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
STILL = image(PIXELS, PatientName="Müller^Zoë", StudyDescription="Koloskopie")
LOOP = image(np.stack([PIXELS] * 3), PatientName="Müller^Zoë", StudyInstanceUID=STILL.StudyInstanceUID)
IMAGES = [STILL, LOOP]
SIGNED = Signature("Doe^Jane", "Endoscopist", "St. Elsewhere", datetime.datetime(2026, 1, 2, 15, 4, 5))
REPORT = ExaminationReport(
    procedure="Colonoscopy to the cecum",
    kind="colonoscopy",
    indication="Screening",
    sedation=Choice("moderate", "Midazolam 3 mg"),
    extent=Choice("ascending-colon", "Stool"),
    preparation=BowelPreparation(1, 2, 3),
    observations=(
        Observation(
            "polyps",
            "Polyp of 5 mm, größer als zuvor",
            (Evidence(STILL.SOPInstanceUID, caption="best"), Evidence(LOOP.SOPInstanceUID, 2, reason="the surest")),
            0.93,
            "sigmoid-colon",
        ),
        Observation("", "Diverticula of the sigmoid"),
    ),
    interventions="Cold snare",
    adverse_events="None seen",
    impression="One polyp <b>removed</b>",
    recommendation="Control in three years",
    ai_involvement="tiny took part",
)
BLANK = "\N{NO-BREAK SPACE}"
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=120)
LABEL = st.sampled_from(["", *TERMS]) | TEXT.map(lambda text: text[:64].strip())
EVIDENCE = st.sampled_from([Evidence(STILL.SOPInstanceUID), Evidence(LOOP.SOPInstanceUID, 3, "größer")])
KEYS = {name: st.sampled_from(["", *known]) for name, known in (("site", SITES), ("sedation", SEDATIONS))}
SCORE = st.none() | st.integers(0, 3)
REPORTS = st.builds(
    ExaminationReport,
    procedure=TEXT.filter(str.strip),
    kind=st.sampled_from(["", *KINDS]),
    indication=TEXT,
    sedation=st.builds(Choice, KEYS["sedation"], TEXT),
    extent=st.builds(Choice, KEYS["site"], TEXT),
    preparation=st.builds(BowelPreparation, SCORE, SCORE, SCORE),
    observations=st.lists(
        st.builds(
            Observation,
            LABEL,
            TEXT.filter(str.strip),
            st.lists(EVIDENCE, max_size=3).map(tuple),
            st.none() | st.floats(0, 1),
            KEYS["site"],
        ),
        max_size=3,
    ).map(tuple),
    interventions=TEXT,
    adverse_events=TEXT,
    impression=TEXT,
    recommendation=TEXT,
    ai_involvement=TEXT,
    addendum=TEXT,
    language=st.sampled_from(list(LANGUAGES)),
)


def texts(dataset: Dataset) -> list[str]:
    found = []
    for item in dataset.get("ContentSequence", []):
        found += [item.TextValue] if item.ValueType == "TEXT" else []
        found += texts(item)
    return found


@pytest.mark.slow
@given(report=REPORTS, signed=st.booleans())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_report_is_a_valid_document_that_says_all_of_it(tmp_path, report, signed):
    made = examination_report(report, IMAGES, ALGORITHM, SIGNED if signed else None)
    path = write(made, tmp_path / "report.dcm")
    assert dciodvfy(path) == []
    said = " ".join(texts(dcmread(path)))
    fields = ("procedure", "indication", "interventions", "adverse_events", "impression", "recommendation", "addendum")
    written = [getattr(report, name) for name in fields] + [report.sedation.remark, report.extent.remark]
    for text in (*written, *(one.text for one in report.observations)):
        assert text.strip() in said


@pytest.mark.slow
@given(report=REPORTS, signed=st.booleans())
@example(
    report=ExaminationReport("x", impression="\N{NO-BREAK SPACE}", sedation=Choice(remark="\N{NO-BREAK SPACE}")),
    signed=False,
)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_report_is_valid_fhir_without_a_loose_end(report, signed):
    made = fhir_bundle(report, IMAGES, ALGORITHM, SIGNED if signed else None)
    content = json.loads(made.model_dump_json())
    Bundle.model_validate(content)
    there = [entry["fullUrl"] for entry in content["entry"]]
    assert len(set(there)) == len(there)
    assert _references(content) <= set(there)
    by_kind: dict[str, list[dict]] = {}
    for entry in content["entry"]:
        by_kind.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    seen = [one for one in by_kind.get("Observation", []) if "partOf" not in one]
    assert len(seen) == len(report.observations)
    assert {one["status"] for one in by_kind.get("Observation", [])} <= {"final" if signed else "preliminary"}
    said = ("appended" if report.addendum.strip() else "final") if signed else "preliminary"
    assert by_kind["DiagnosticReport"][0]["status"] == said


def _references(content: object) -> set[str]:
    if isinstance(content, dict):
        own = {content["reference"]} if "reference" in content else set()
        return own.union(*map(_references, content.values()))
    return set().union(*map(_references, content)) if isinstance(content, list) else set()


def test_fhir_carries_patient_codes_probability_and_machine():
    content = json.loads(fhir_bundle(REPORT, IMAGES, ALGORITHM, pdf=b"%PDF").model_dump_json())
    patient, device, *_, first, second, document = (entry["resource"] for entry in content["entry"])
    assert patient["name"] == [{"family": "Müller", "given": ["Zoë"]}]
    assert device["version"] == [{"value": ALGORITHM.version}]
    assert device["note"] == [{"text": ALGORITHM.notice}]
    assert first["valueCodeableConcept"]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "68496003",
        "display": "Polyp of colon",
    }
    assert first["component"][0]["valueQuantity"]["value"] == 93
    assert "device" in first
    assert "device" not in second, "a person found it"
    assert document["presentedForm"][0]["data"] == "JVBERg=="


def fhir(report: ExaminationReport, images: list[Dataset], signature: Signature | None = None) -> dict[str, list[dict]]:
    """The resources of a bundle by their kind, each entry of which has a name of its own."""
    entries = json.loads(fhir_bundle(report, images, ALGORITHM, signature).model_dump_json())["entry"]
    assert len({entry["fullUrl"] for entry in entries}) == len(entries)
    found: dict[str, list[dict]] = {}
    for entry in entries:
        found.setdefault(entry["resource"]["resourceType"], []).append(entry["resource"])
    return found


def test_fhir_names_the_document_that_dicom_holds():
    for signature in (None, SIGNED):
        uid = examination_report(REPORT, IMAGES, ALGORITHM, signature).SOPInstanceUID
        (document,) = fhir(REPORT, IMAGES, signature)["DiagnosticReport"]
        assert document["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]


def test_a_signed_addendum_is_appended_and_a_draft_of_one_is_none():
    more = replace(REPORT, addendum="Histology: adenoma")
    for report, signature, said in ((more, SIGNED, "appended"), (more, None, "preliminary"), (REPORT, SIGNED, "final")):
        assert fhir(report, IMAGES, signature)["DiagnosticReport"][0]["status"] == said


def test_an_image_of_two_findings_with_the_same_caption_is_one_media():
    shown = [Evidence(STILL.SOPInstanceUID, caption="best", reason=reason) for reason in ("first", "second")]
    two = replace(
        REPORT, observations=tuple(Observation("", text, (one,)) for text, one in zip("ab", shown, strict=True))
    )
    found = fhir(two, IMAGES)
    assert len(found["Media"]) == len(found["DiagnosticReport"][0]["media"]) == 1
    first, second = (one for one in found["Observation"] if "partOf" not in one)
    assert first["derivedFrom"] == second["derivedFrom"]


def test_fhir_names_the_frame_of_every_image_of_several():
    shown = (Evidence(STILL.SOPInstanceUID), *(Evidence(LOOP.SOPInstanceUID, *which) for which in ((1,), (2, "best"))))
    found = fhir(replace(REPORT, observations=(Observation("", "Polyp", shown),)), IMAGES)
    assert [one["content"]["title"] for one in found["Media"]] == ["image", "image, frame 1", "best, frame 2"]


IDEOGRAPHIC = {
    "url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation",
    "valueCode": "IDE",
}


@pytest.mark.parametrize(
    ("name", "names", "read"),
    [
        (
            "Doe^Jane^Marie^Dr.^III",
            [{"family": "Doe", "given": ["Jane", "Marie"], "prefix": ["Dr."], "suffix": ["III"]}],
            "Jane Marie Doe",
        ),
        ("=山田^太郎", [{"extension": [IDEOGRAPHIC], "family": "山田", "given": ["太郎"]}], "山田 太郎"),
        (
            "Yamada^Tarou=山田^太郎",
            [
                {"family": "Yamada", "given": ["Tarou"]},
                {"extension": [IDEOGRAPHIC], "family": "山田", "given": ["太郎"]},
            ],
            "Tarou Yamada",
        ),
        ("", None, ""),
    ],
)
def test_a_patient_s_name_is_kept_whole(name, names, read):
    still = image(PIXELS, PatientName=name)
    assert fhir(ExaminationReport("x"), [still])["Patient"][0].get("name") == names
    assert dict(patient_data(still))["name"] == read


def test_values_of_several_parts_are_no_python_lists():
    still = image(PIXELS, PatientID="1\\2", AccessionNumber="A\\B", StudyDescription="Colonoscopy\\Polypectomy")
    still.IssuerOfPatientID = "HOSPITAL"
    found = fhir(examined(still), [still])
    assert found["Patient"][0]["identifier"] == [{"value": "1\\2", "assigner": {"display": "HOSPITAL"}}]
    assert found["Procedure"][0]["code"]["text"] == "Colonoscopy, Polypectomy"
    said = dict(patient_data(still))
    assert (said["id"], said["accession"]) == ("1\\2", "A\\B")


def test_a_draft_is_unverified_and_a_signature_makes_a_new_version_of_it(tmp_path):
    made = examination_report(REPORT, IMAGES, ALGORITHM)
    signed = examination_report(REPORT, IMAGES, ALGORITHM, SIGNED, predecessor=made)
    for one in (made, signed):
        assert dciodvfy(write(one, tmp_path / "report.dcm")) == []
    assert (made.VerificationFlag, made.CompletionFlag, made.PreliminaryFlag) == (
        "UNVERIFIED",
        "PARTIAL",
        "PRELIMINARY",
    )
    assert (signed.VerificationFlag, signed.CompletionFlag, signed.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "FINAL")
    (observer,) = signed.VerifyingObserverSequence
    assert (observer.VerifyingObserverName, observer.VerifyingOrganization) == ("Doe^Jane", "St. Elsewhere")
    assert str(observer.VerificationDateTime) == "20260102150405"
    before = signed.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert before.ReferencedSOPInstanceUID == made.SOPInstanceUID != signed.SOPInstanceUID
    addendum = examination_report(replace(REPORT, addendum="Adenoma"), IMAGES, ALGORITHM, SIGNED, predecessor=signed)
    other = replace(ALGORITHM, version="9")
    another = examination_report(REPORT, IMAGES, other)
    series = {one.SeriesInstanceUID for one in (made, another, signed, addendum)}
    assert len(series) == 4, "of several reports in a series OHIF shows the first"
    scope, machine, *_ = signed.ContributingEquipmentSequence
    assert "ContributionDateTime" not in scope, "the scope took no part in the signature"
    assert str(machine.ContributionDateTime) == "20260102150405"
    pdfs = [encapsulated_pdf(b"%PDF", REPORT, IMAGES, ALGORITHM, one) for one in (None, SIGNED)]
    another = encapsulated_pdf(b"%PDF", REPORT, IMAGES, other)
    assert len({one.SeriesInstanceUID for one in (*pdfs, another)}) == 3
    for unsigned, final in ((made, signed), pdfs):
        assert unsigned.SeriesDescription == "EndoLens report, draft"
        assert final.SeriesDescription == "Signed 2026-01-02 15:04, EndoLens report"


def test_dcmtk_reads_the_report(tmp_path):
    shown = dsrdump(write(examination_report(REPORT, IMAGES, ALGORITHM, SIGNED), tmp_path / "report.dcm"))
    for words in (
        "Polyp of colon",
        "Diverticula",
        "Doe^Jane",
        "VERIFIED",
        "Best illustration of finding",
        "AI involvement",
    ):
        assert words in shown, words
    assert shown.count("=SEPARATE>") == 8, "a root and seven sections; of a continuous one OHIF hides the items' names"
    assert "=CONTINUOUS>" not in shown


def test_what_a_machine_found_is_marked_and_what_a_person_found_is_not():
    found = [text for text in texts(examination_report(REPORT, IMAGES, ALGORITHM)) if text.startswith("(")]
    assert found == [
        "(1) Polyp of 5 mm, größer als zuvor [proposed by AI, probability 93.0 %]",
        "(2) Diverticula of the sigmoid",
    ]


def test_other_words_make_another_instance_and_the_same_words_the_same():
    other = replace(REPORT, impression="Nothing")
    made = [examination_report(one, IMAGES, ALGORITHM).SOPInstanceUID for one in (REPORT, REPORT, other)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("make", [examination_report, fhir_bundle])
def test_evidence_that_is_not_there_and_images_of_two_studies_are_refused(make):
    with pytest.raises(ValueError, match="not among the images"):
        make(REPORT, [STILL], ALGORITHM)
    with pytest.raises(ValueError, match="one study"):
        make(REPORT, [STILL, image(PIXELS)], ALGORITHM)
    with pytest.raises(ValueError, match="needs images"):
        make(REPORT, [], ALGORITHM)


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("signature", [None, SIGNED])
def test_the_pdf_says_it_all_and_who_answers_for_it(tmp_path: Path, signature):
    pictures = {(STILL.SOPInstanceUID, 1): _jpeg()}
    content = pdf(page(REPORT, STILL, ALGORITHM, pictures, signature))
    made = encapsulated_pdf(content, REPORT, IMAGES, ALGORITHM, signature)
    path = write(made, tmp_path / "pdf.dcm")
    assert dciodvfy(path) == []
    read = dcmread(path)
    inside = read.EncapsulatedDocument[: read.EncapsulatedDocumentLength]
    assert inside == content
    said = " ".join(pdftotext(inside).split())
    for words in (
        "Zoë Müller",
        "4711",
        "größer als zuvor",
        "Diverticula",
        "One polyp <b>removed</b>",
        "Control in three",
    ):
        assert words in said, words
    assert "proposed by AI, probability 93.0 %" in said
    assert ("Signed by Jane Doe, Endoscopist, St. Elsewhere, 2026-01-02 15:04" in said) == bool(signature)
    assert ("Draft, not verified by a person: test model, not for clinical use" in said) == (signature is None)
    assert read.VerificationFlag == ("VERIFIED" if signature else "UNVERIFIED")
    assert read.BurnedInAnnotation == "YES"


def test_markup_in_a_report_is_shown_as_text():
    evil = "<script>alert(1)</script><img src=http://elsewhere/x>"
    patient = image(PIXELS, PatientName=evil.replace("=", " "))
    html = page(replace(REPORT, impression=evil, indication=evil), patient, ALGORITHM, {})
    assert "<script" not in html
    assert "<img" not in html


def test_a_pdf_fetches_nothing(tmp_path):
    secret = tmp_path / "secret.svg"
    secret.write_text('<svg xmlns="http://www.w3.org/2000/svg"><text y="20">secret</text></svg>')
    assert "secret" not in pdftotext(pdf(f'<p>shown</p><img src="{secret.as_uri()}">'))


def test_a_pdf_does_not_make_cut_off_pictures_readable():
    pdf("<p>shown</p>")
    cut = _jpeg()[:-40]
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(cut)).load()


def finding(label: str, chance: float, uid: str = "1.2", frame: int = 1, number: int = 1) -> Finding:
    return Finding(Explanation(GRAD_CAM, "l", label, chance), uid, frame, (), number=number, captures=(f"{uid}.9",))


def test_of_every_class_the_surest_frame_is_proposed_with_its_reason():
    found = [
        finding("polyps", 0.6),
        finding("polyps", 0.6, number=2),
        finding("polyps", 0.9, frame=2),
        finding("polyps", 0.7, uid="1.3"),
        finding("normal-cecum", 0.5, uid="1.3"),
    ]
    proposed = suggest(found)
    assert [one.finding for one in proposed] == [found[2], found[4]]
    assert [one.reason for one in proposed] == [
        "the surest of 3 frames taken for polyps, 90.0 %",
        "the only frame taken for normal-cecum, 50.0 %",
    ]
    report = draft(proposed, ALGORITHM, examined(STILL), 4, 9)
    assert [one.text for one in report.observations] == ["Polyp", "Cecum of normal appearance"]
    assert report.observations[0].evidence[1].sop_instance_uid == "1.2.9"
    assert "classified 4 of 9 frames" in report.ai_involvement
    assert ALGORITHM.notice in report.ai_involvement
    assert not suggest([])
