"""Reports by REST: filled from what was seen, kept version by version, signed once, and stored with the study."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.analysis import analyze
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.reading import read_instances
from monai_label_app.results import Wanted
from monai_label_app.sample import STUDY
from monai_label_app.study import group
from monai_label_app.viewers.ohif import Viewer
from tests.validators import dciodvfy, dsrdump, pdftotext

STILLS = sorted(STUDY.iterdir())[:4]
HEADERS = [pydicom.dcmread(still, stop_before_pixels=True) for still in STILLS]
UID = str(HEADERS[0].StudyInstanceUID)
REPORT = f"/api/v1/studies/{UID}/report"
DOCTOR = {"name": "Doe^Jane", "role": "Endoscopist", "organization": "St. Elsewhere", "incomplete": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for still in STILLS:
        shutil.copy(still, tmp_path)
    return tmp_path


@pytest.fixture
def client(folder: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    return web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False).test_client()


def begin(client: FlaskClient, **options: str) -> TestResponse:
    answer = client.post(REPORT, json=options)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer


def save(client: FlaskClient, etag: str | None, report: dict[str, Any], author: str = "") -> TestResponse:
    headers = {} if etag is None else {"If-Match": etag}
    return client.put(REPORT, json={"report": report, "author": author}, headers=headers)


def sign(client: FlaskClient, etag: str, **changed: Any) -> TestResponse:
    return client.post(f"{REPORT}/signature", json={**DOCTOR, **changed}, headers={"If-Match": etag})


def documents(folder: Path) -> list[pydicom.Dataset]:
    read = [pydicom.dcmread(file) for file in sorted(folder.rglob("*.dcm"))]
    return [one for one in read if one.Modality in ("SR", "DOC", "KO")]


def images(report: dict[str, Any]) -> list[str]:
    return [image["sop_instance_uid"] for one in report["observations"] for image in one["evidence"]]


def test_a_draft_proposes_of_each_class_the_frame_that_the_network_is_surest_of(client):
    predicted = {
        str(one.SOPInstanceUID): client.get(f"/api/v1/images/{one.SOPInstanceUID}/frames/1/prediction").get_json()
        for one in HEADERS
    }
    answer = begin(client)
    version, report = answer.get_json(), answer.get_json()["report"]
    assert (version["number"], version["signature"], answer.headers["ETag"]) == (1, None, '"1"')
    assert {one["label"] for one in report["observations"]} == {one["predicted"] for one in predicted.values()}
    for one in report["observations"]:
        (shown,) = one["evidence"]
        chances = [two["probabilities"][one["label"]] for two in predicted.values() if two["predicted"] == one["label"]]
        assert one["probability"] == pytest.approx(max(chances))
        assert one["probability"] == pytest.approx(predicted[shown["sop_instance_uid"]]["probabilities"][one["label"]])
        assert one["label"] in shown["reason"]
    assert (report["procedure"], report["kind"]) == (str(HEADERS[0].StudyDescription), "colonoscopy")
    assert "classified 4 of 4 frames" in report["ai_involvement"]
    assert {"indication", "sedation", "impression"} <= set(version["missing"])
    assert begin(client).get_json() == version, "asked for again it is the same"
    assert client.get(REPORT).get_json() == version


def test_a_frame_is_added_to_the_finding_of_a_class_once(client, classifier):
    first, second = (str(one.SOPInstanceUID) for one in HEADERS[:2])
    taken_for = [
        client.get(f"/api/v1/images/{one.SOPInstanceUID}/frames/1/prediction").get_json()["predicted"]
        for one in HEADERS
    ]
    predicted, other = taken_for[0], next(one for one in classifier.card.classes if one not in taken_for)
    view = client.post(f"/api/v1/images/{first}/frames/1/captures", json={"class": other}).get_json()[
        "sop_instance_uid"
    ]

    def add(image: str, label: str, **more: str) -> TestResponse:
        return client.post(
            f"{REPORT}/evidence",
            json={"image": image, "class": label, "author": "Dr. Example", "language": "fr", **more},
        )

    for label, uid, more in ((predicted, first, {}), (other, first, {"capture": view}), (other, second, {})):
        answer = add(uid, label, **more)
        assert answer.status_code == 200, answer.get_data(as_text=True)
    version = answer.get_json()
    assert version["author"] == "Dr. Example"
    found = {one["label"]: one for one in version["report"]["observations"]}
    assert first in images({"observations": [found[predicted]]})
    assert found[predicted]["probability"] is not None
    assert images({"observations": [found[other]]}) == [first, view, second]
    assert found[other]["text"]
    assert found[other]["probability"] is None, "a class that the reader chose is not the machine's"
    again = add(second, other).get_json()
    assert again["number"] == version["number"], "what is there is not added again"
    for refused, status in (
        (add(first, "warts"), 422),
        (add("1.2.3", other), 404),
        (add(first, other, capture="1.2.3"), 422),
    ):
        assert refused.status_code == status
        assert refused.mimetype == "application/problem+json"
    assert client.get(REPORT).get_json()["number"] == version["number"]


@pytest.mark.slow
def test_a_draft_of_an_analysed_study_is_what_the_analysis_found(client, folder, classifier):
    (study,) = group(read_instances(STILLS)[0])
    (folder / "results").mkdir()
    result = analyze(study, classifier, folder / "results", wanted=Wanted(report=True))
    (drafted,) = (one for one in map(pydicom.dcmread, result.objects) if one.SeriesNumber == 910)
    earlier = deepcopy(drafted)
    earlier.ContentDate = "20200102"
    earlier.file_meta.MediaStorageSOPInstanceUID = earlier.SOPInstanceUID = f"{UID}.910.1"
    earlier.SeriesInstanceUID = f"{UID}.910"
    earlier.save_as(folder / "z.dcm")
    report = begin(client, language="de").get_json()["report"]
    surest = {}
    for frame in result.frames:
        chance = frame.probabilities[frame.predicted]
        surest[frame.predicted] = max(surest.get(frame.predicted, (0, "")), (chance, frame.sop_instance_uid))
    assert len(report["observations"]) == len(surest)
    offered = client.get(f"/studies/{UID}/report").get_data(as_text=True)
    assert [f'"name">Heatmap of frame {place}<' in offered for place in (1, 2, 3, 4, 5)] == [True] * 4 + [False]
    for one in report["observations"]:
        chance, uid = surest[one["label"]]
        assert one["probability"] == pytest.approx(chance, abs=1e-4)
        source, heatmap = one["evidence"]
        assert source["sop_instance_uid"] == uid
        capture = client.get(f"{REPORT}/pictures/{heatmap['sop_instance_uid']}/1.jpg?width=200")
        assert (capture.status_code, capture.mimetype) == (200, "image/jpeg")
    assert "hat 4 von 4 Bildern klassifiziert" in report["ai_involvement"]
    assert classifier.version in report["ai_involvement"]
    signed = sign(client, '"1"').get_json()
    made = pydicom.dcmread(io.BytesIO(client.get(f"{REPORT}.dcm").data))
    before = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert before.ReferencedSOPInstanceUID == drafted.SOPInstanceUID, "the newest draft"
    assert made.SOPInstanceUID == signed["documents"][0]


@pytest.mark.slow
def test_what_an_analysis_finds_later_is_proposed_and_what_was_taken_out_stays_out(folder, monkeypatch):
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    classifier = open_classifier()
    client = web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False).test_client()
    for still in STILLS[2:]:
        (folder / still.name).unlink()
    begun = begin(client)
    report = begun.get_json()["report"]
    taken_out, kept = report["observations"]
    kept["text"] = "Seen by the doctor."
    before = {kept["label"], taken_out["label"]}
    saved = save(client, begun.headers["ETag"], {**report, "observations": [kept]})
    nothing = client.get(f"{REPORT}/proposals").get_json()
    assert (nothing["findings"], nothing["images"], nothing["report"]["observations"]) == (0, 0, [kept])
    for still in STILLS[2:]:
        shutil.copy(still, folder)
    (study,) = group(read_instances(STILLS)[0])
    (folder / "results").mkdir()
    seen = {one.predicted for one in analyze(study, classifier, folder / "results").frames}
    proposed = client.get(f"{REPORT}/proposals").get_json()
    first, *others = proposed["report"]["observations"]
    assert {one["label"] for one in others} == seen - before
    assert others and proposed["findings"] == len(others)
    assert {**first, "evidence": first["evidence"][:1]} == kept
    assert [image["caption"] for image in first["evidence"]] == ["", "Grad-CAM"]
    assert proposed["images"] == 1 + 2 * len(others)
    assert "4 of 4 frames" in proposed["report"]["ai_involvement"]
    taken_up = save(client, saved.headers["ETag"], proposed["report"])
    assert taken_up.status_code == 200
    again = client.get(f"{REPORT}/proposals").get_json()
    assert (again["findings"], again["images"], again["report"]) == (0, 0, proposed["report"])


@pytest.mark.slow
def test_an_analysis_by_another_machine_proposes_nothing_to_a_report_that_names_the_first(client, folder, classifier):
    begin(client)
    (study,) = group(read_instances(STILLS)[0])
    (folder / "results").mkdir()
    other = replace(classifier, card=replace(classifier.card, version="99.0"))
    analyze(study, other, folder / "results")
    proposed = client.get(f"{REPORT}/proposals").get_json()
    assert (proposed["findings"], proposed["images"]) == (0, 0)


def test_null_is_no_request_for_a_draft(client):
    refused = client.post(REPORT, data="null", content_type="application/json")
    assert (refused.status_code, refused.mimetype) == (422, "application/problem+json")
    assert client.get(REPORT).status_code == 404


def test_a_frame_that_cannot_be_read_does_not_keep_the_others_from_being_proposed(client, folder):
    content = (folder / STILLS[0].name).read_bytes()
    (folder / STILLS[0].name).write_bytes(content[: len(content) - 2000])
    report = begin(client).get_json()["report"]
    assert "classified 3 of 4 frames" in report["ai_involvement"]
    assert str(HEADERS[0].SOPInstanceUID) not in images(report)


def test_every_save_is_a_version_and_a_stale_one_is_told_what_counts(client):
    begun = begin(client)
    report = begun.get_json()["report"]
    theirs = save(client, begun.headers["ETag"], {**report, "impression": "theirs"}, "Dr. A")
    assert (theirs.status_code, theirs.headers["ETag"]) == (200, '"2"')
    assert "impression" not in theirs.get_json()["missing"]
    mine = save(client, begun.headers["ETag"], {**report, "impression": "mine"}, "Dr. B")
    assert (mine.status_code, mine.mimetype) == (412, "application/problem+json")
    problem = mine.get_json()
    assert problem["current"] == theirs.get_json()
    kept = client.get(f"{REPORT}?version={problem['set_aside']}").get_json()
    assert (kept["report"]["impression"], kept["author"], kept["set_aside"]) == ("mine", "Dr. B", True)
    assert save(client, mine.headers["ETag"], {**report, "impression": "mine"}).get_json()["number"] == 4
    listed = client.get(f"{REPORT}/versions").get_json()["versions"]
    assert [one["number"] for one in listed] == [1, 2, 3, 4]
    for etag, status in ((None, 428), ("", 428), ('"x"', 422), ('"1"', 412), ('"99"', 412)):
        assert save(client, etag, {**report, "impression": "other"}).status_code == status, etag


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"impresion": "x"}, "impresion"),
        ({"impression": 7}, "impression"),
        ({"kind": "autopsy"}, "there is no kind 'autopsy'"),
        ({"language": "tlh"}, "there is no language 'tlh'"),
        (
            {"observations": [{"label": "", "text": "x", "evidence": [{"sop_instance_uid": "1.2.3"}]}]},
            "1.2.3 is no image of this study",
        ),
        (
            {"observations": [{"label": "", "text": "", "evidence": [
                {"sop_instance_uid": str(HEADERS[0].SOPInstanceUID), "frame_number": 2}
            ]}]},
            "has no frame 2",
        ),
        ({"impression": "x" * 20_001}, "at most 20000"),
    ],
)  # fmt: skip
def test_what_cannot_be_saved_is_refused_in_a_sentence_and_saves_nothing(client, changed, said):
    begun = begin(client)
    answer = save(client, begun.headers["ETag"], {**begun.get_json()["report"], **changed})
    assert answer.status_code == answer.get_json()["status"] == 422
    assert said in answer.get_json()["detail"]
    assert len(client.get(f"{REPORT}/versions").get_json()["versions"]) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 500_000, 422),
        (b'{"report": {"impression": "\\ud800"}}', 422),
        (b"[]", 422),
        (b" " * 10_000_000, 413),
    ],
)
def test_a_body_that_is_no_report_is_refused(client, body, status):
    begin(client)
    answer = client.put(REPORT, data=body, headers={"If-Match": '"1"', "Content-Type": "application/json"})
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_what_there_is_not_is_not_found(client):
    for path in (REPORT, f"{REPORT}/versions", f"{REPORT}.pdf", f"{REPORT}/pictures/1.2.3/1.jpg"):
        assert client.get(path).status_code == 404, path
    assert client.post("/api/v1/studies/1.2.3/report", json={}).status_code == 404
    assert client.get("/studies/1.2.3/report").status_code == 404
    assert client.post(f"{REPORT}/addendum").status_code == 404
    assert sign(client, '"1"').status_code == 404
    begin(client)
    assert client.get(f"{REPORT}?version=2").status_code == 404
    assert client.get(f"{REPORT}/pictures/{HEADERS[0].SOPInstanceUID}/2.jpg").status_code == 404


def test_an_incomplete_report_is_signed_only_by_who_knows_that_it_is(client):
    begun = begin(client)
    refused = sign(client, begun.headers["ETag"], incomplete=False)
    assert refused.status_code == 422
    assert refused.get_json()["missing"] == begun.get_json()["missing"]
    assert client.get(REPORT).get_json()["signature"] is None
    assert sign(client, begun.headers["ETag"]).status_code == 200


@pytest.mark.parametrize(
    "changed", [{"name": ""}, {"name": "a\\b"}, {"role": " "}, {"organization": "x" * 65}, {"age": 7}]
)
def test_who_signs_without_saying_who_is_refused(client, changed):
    begin(client)
    assert sign(client, '"1"', **changed).status_code == 422
    assert client.get(REPORT).get_json()["signature"] is None


@pytest.mark.slow
def test_a_signature_makes_three_documents_once_however_often_it_is_asked_for(client, folder, classifier):
    begun = begin(client)
    report = {**begun.get_json()["report"], "impression": "<script>alert(1)</script>", "adverse_events": "keine"}
    etag = save(client, begun.headers["ETag"], report).headers["ETag"]
    app = client.application
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: sign(app.test_client(), etag), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.get_json() == answers[0].get_json() for answer in answers)
    made = {one.SOPInstanceUID: one for one in documents(folder)}
    assert sorted(made) == sorted(answers[0].get_json()["documents"])
    for file in folder.rglob("2.25.*.dcm"):
        assert dciodvfy(file) == []
    by_modality = {one.Modality: one for one in made.values()}
    assert sorted(by_modality) == ["DOC", "KO", "SR"]
    assert by_modality["SR"].VerificationFlag == by_modality["DOC"].VerificationFlag == "VERIFIED"
    shown = [item for item in by_modality["KO"].ContentSequence if item.ValueType == "IMAGE"]
    assert [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in shown] == list(
        dict.fromkeys(images(report))
    )
    document = by_modality["DOC"]
    pdf = client.get(f"{REPORT}.pdf").data
    assert pdf == document.EncapsulatedDocument[: document.EncapsulatedDocumentLength]
    said = " ".join(pdftotext(pdf).split())
    assert "Signed by Jane Doe, Endoscopist, St. Elsewhere" in said
    assert "<script>alert(1)</script>" in said
    assert "<script>" not in client.get(f"{REPORT}.html").get_data(as_text=True)
    other = sign(client, etag, name="Roe^Rita")
    assert (other.status_code, "signed by Doe, Jane" in other.get_json()["detail"]) == (409, True)
    late = save(client, etag, {**report, "impression": "late"})
    assert (late.status_code, "begin an addendum" in late.get_json()["detail"]) == (409, True)


@pytest.mark.slow
def test_letters_that_the_pdf_cannot_show_are_named_and_not_signed(client, folder):
    report = begin(client).get_json()["report"]
    saved = save(client, '"1"', {**report, "impression": "of private use: \ue123"})
    refused = sign(client, saved.headers["ETag"])
    assert (refused.status_code, "no font on the server has \ue123" in refused.get_json()["detail"]) == (422, True)
    assert client.get(REPORT).get_json()["signature"] is None
    assert documents(folder) == []
    assert client.get(f"{REPORT}.pdf").data.startswith(b"%PDF"), "a draft is shown as it is"
    mended = save(client, saved.headers["ETag"], report)
    assert sign(client, mended.headers["ETag"]).status_code == 200


@pytest.mark.slow
def test_what_could_not_be_stored_is_signed_and_stored_when_it_is_signed_again(client, folder):
    begin(client)
    (folder / UID).write_bytes(b"in the way of the study's folder")
    failed = sign(client, '"1"')
    assert failed.status_code == 503
    assert "cannot be stored now" in failed.get_json()["detail"]
    assert documents(folder) == []
    assert state(client) == "signed, not stored"
    left = client.get(REPORT)
    assert (left.headers["ETag"], left.get_json()["documents"]) == ('"1-signed"', [])
    assert client.post(f"{REPORT}/addendum").status_code == 409
    (folder / UID).unlink()
    signed = sign(client, left.headers["ETag"])
    assert (signed.status_code, signed.headers["ETag"]) == (200, '"1-stored"')
    assert signed.get_json()["signature"] == left.get_json()["signature"], "signed when it was signed first"
    assert sorted(one.SOPInstanceUID for one in documents(folder)) == sorted(signed.get_json()["documents"])


def state(client: FlaskClient) -> str:
    said = client.get(f"/api/v1/studies/{UID}").get_json()["state"]
    assert [said] == [one["state"] for one in client.get("/api/v1/studies").get_json()]
    assert f'data-state="{said}"' in client.get("/").get_data(as_text=True)
    return str(said)


@pytest.mark.slow
def test_an_addendum_begins_as_the_signed_report_and_names_it(client, folder):
    assert state(client) == "new"
    begin(client)
    assert state(client) == "report draft"
    first = sign(client, '"1"').get_json()
    assert state(client) == "signed"
    begun = client.post(f"{REPORT}/addendum")
    assert state(client) == "report draft"
    assert begun.get_json()["report"] == first["report"]
    assert (begun.get_json()["predecessor"], begun.get_json()["missing"][0]) == (1, "addendum")
    added = save(client, begun.headers["ETag"], {**first["report"], "addendum": "Histology: adenoma"})
    second = sign(client, added.headers["ETag"]).get_json()
    made = {one.SOPInstanceUID: one for one in documents(folder)}
    assert len(made) == 6
    report = made[second["documents"][0]]
    (series,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    before = made[first["documents"][0]]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert series.SeriesInstanceUID == before.SeriesInstanceUID != report.SeriesInstanceUID
    assert "Histology: adenoma" in dsrdump(folder / UID / f"{report.SOPInstanceUID}.dcm")
    assert client.get(f"{REPORT}?version=1").get_json() == first, "the first stays as it was signed"
    manifest = client.get(f"/dicomjson/{UID}").get_data(as_text=True)
    assert manifest.replace(" ", "").count('"PersonName":[{"Alphabetic":"Doe^Jane"}]') == 4, "as OHIF reads it"


@pytest.mark.slow
def test_a_long_report_of_12_findings_and_30_images_is_shown_whole(client):
    begun = begin(client).get_json()["report"]
    uids = [str(one.SOPInstanceUID) for one in HEADERS]
    shown = [[{"sop_instance_uid": uid} for uid in uids[: 2 + (number % 2)]] for number in range(12)]
    long = [{"label": "", "text": f"Finding {n} of twelve", "evidence": one} for n, one in enumerate(shown)]
    assert save(client, '"1"', {**begun, "observations": long}).status_code == 200
    html = client.get(f"{REPORT}.html").get_data(as_text=True)
    assert html.count("<img src=") == sum(map(len, shown)) == 30
    said = " ".join(pdftotext(client.get(f"{REPORT}.pdf").data).split())
    assert all(f"Finding {number} of twelve" in said for number in range(12))


@pytest.mark.slow
def test_an_image_that_is_gone_is_named_and_can_be_detached(client, folder):
    begun = begin(client).get_json()["report"]
    gone = images(begun)[0]
    for file, header in zip(STILLS, HEADERS, strict=True):
        if header.SOPInstanceUID == gone:
            (folder / file.name).unlink()
    for answer in (client.get(f"{REPORT}.pdf"), sign(client, '"1"')):
        assert (answer.status_code, gone in answer.get_json()["detail"]) == (422, True)
    kept = [{**one, "evidence": []} for one in begun["observations"]]
    assert save(client, '"1"', {**begun, "observations": kept}).status_code == 200
    assert sign(client, '"2"').status_code == 200
    assert sorted(one.Modality for one in documents(folder)) == ["DOC", "SR"]


def test_a_database_that_is_broken_is_one_sentence(client, folder):
    begin(client)
    for file in (folder / ".endolens").glob("reports.sqlite*"):
        file.write_bytes(b"no database" * 1000)
    answer = client.get(REPORT)
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")


def test_the_page_shows_names_as_text_and_brings_all_words(client, folder):
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "</script><script>alert(1)</script>"
        dataset.save_as(file)
    html = client.get(f"/studies/{UID}/report").get_data(as_text=True)
    assert "<script>alert" not in html
    assert "Endoskopiebefund" in html
    assert html.count("data-uid=") == len(STILLS)
