"""Which studies of an archive are asked for, and what is remembered of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_label_app.archive.ledger import DONE, FAILED, Ledger
from monai_label_app.archive.query import days, parse
from monai_label_app.archive.work import Outcome


def test_a_query_is_of_endoscopy_and_asked_day_by_day():
    query = parse("Modality=ES&StudyDate=20200228-20200301&PatientID=4%20711")
    assert query == {"ModalitiesInStudy": "ES", "StudyDate": "20200228-20200301", "PatientID": "4 711"}
    dates = [one["StudyDate"] for one in days(query)]
    assert dates == ["20200228", "20200229", "20200301"]
    assert all(one["PatientID"] == "4 711" for one in days(query))
    assert parse("StudyDate=20200228")["ModalitiesInStudy"] == "ES"
    for endless in ("StudyDate=20200228-", "StudyDate=-20200228", "PatientID=1", "Modality=OT"):
        assert list(days(parse(endless))) == [parse(endless)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not of the form"),
        ("colonoscopy", "is not of the form"),
        ("Studydate=20200101", "no attribute of DICOM"),
        ("PatientID=", "no value"),
        ("Modality=ES&ModalitiesInStudy=OT", "more than once"),
        ("StudyDate=2020", "neither YYYYMMDD nor a range"),
        ("StudyDate=-", "neither YYYYMMDD nor a range"),
        ("StudyDate=20200230", "neither YYYYMMDD nor a range"),
        ("StudyDate=2020010120200102", "neither YYYYMMDD nor a range"),
        ("StudyDate=20200102-20200101", "ends before it begins"),
    ],
)
def test_a_query_that_an_archive_would_not_understand_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        parse(text)


def _did(study: str, instances: int = 3) -> Outcome:
    return Outcome(study, 2, instances, json.dumps({"study": study}))


def _lines(file: Path) -> list[str]:
    return [json.loads(line)["study"] for line in file.read_text().splitlines()]


def test_what_is_done_stays_done_and_what_failed_or_has_grown_is_done_again(tmp_path):
    ledger = Ledger(tmp_path, "a")
    assert ledger.add(dict.fromkeys([f"1.{n}" for n in range(1200)], 1)) == 0
    studies = list(ledger.waiting())
    assert len(set(studies)) == len(studies) == 1200
    for study in ("1.1", "1.2", "1.3"):
        ledger.note(_did(study))
    ledger.note(Outcome("1.4", reason="it is damaged"))
    assert (ledger.count(DONE), ledger.count(FAILED)) == (3, 1)
    assert ledger.write_failures() == 1
    failure = json.loads((tmp_path / "failures.jsonl").read_text())
    assert failure == {"study": "1.4", "state": "failed", "reason": "it is damaged"}
    ledger.close()

    # A driver that was killed between the line and the entry: the line does not count.
    with (tmp_path / "summary.jsonl").open("a") as file:
        file.write('{"study": "1.5"}\n{"study')
    ledger = Ledger(tmp_path, "a")
    assert ledger.add({"1.1": 3, "1.2": 4, "1.3": 0, "1.4": 1, "1.5": 1}) == 2
    assert list(ledger.waiting()) == ["1.2", "1.4", "1.5"]
    for study in ("1.2", "1.4", "1.5"):
        ledger.note(_did(study, 9))
    assert _lines(tmp_path / "summary.jsonl") == ["1.1", "1.2", "1.3", "1.2", "1.4", "1.5"]
    assert ledger.write_failures() == 0
    ledger.close()

    ledger = Ledger(tmp_path, "another model")
    assert ledger.add({"1.1": 3}) == 0
    assert list(ledger.waiting()) == ["1.1"]
    ledger.close()
