"""Reports under edit: no save is lost or doubled, two at once cannot overwrite each other, what is signed stays."""

from __future__ import annotations

import datetime
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from report.drafts import Drafts, SignedError, StaleError, Version
from report.examination import Choice, Evidence, ExaminationReport, Observation, Signature
from report.findings import Algorithm
from report.signed_report import reference, signed_documents
from tests.dicom_files import image
from tests.postgresql import postgresql

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model", calibrated=True)
STUDY = "1.2.3"
FIRST = ExaminationReport("Koloskopie", observations=(Observation("polyps", "größer", (Evidence("1.2"),), 0.5),))
JANE = Signature(
    "Doe^Jane", "Endoscopist", "St. Elsewhere", datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
)


def saying(text: str) -> ExaminationReport:
    return replace(FIRST, impression=text)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'reports.sqlite'}"


@pytest.fixture
def drafts(url: str) -> Drafts:
    made = Drafts(url)
    made.create(STUDY, FIRST, ALGORITHM)
    return made


def test_what_is_saved_is_read_back_by_another_process(drafts, url):
    report = replace(FIRST, sedation=Choice("deep", "Propofol"), impression="ünïcödé\n<b>")
    drafts.save(STUDY, 1, report, "Dr. A")
    again = Drafts(url)
    read = again.current(STUDY)
    assert (read.number, read.base, read.report, read.author) == (2, 1, report, "Dr. A")
    assert again.algorithm(STUDY) == ALGORITHM
    assert again.states() == {STUDY: "draft"}
    assert datetime.datetime.now(datetime.timezone.utc) - read.saved < datetime.timedelta(minutes=5)


def test_the_same_again_is_no_new_version(drafts):
    assert drafts.create(STUDY, saying("other"), ALGORITHM).report == FIRST
    assert drafts.save(STUDY, 1, FIRST).number == 1
    assert drafts.save(STUDY, 1, saying("x")).number == 2
    assert drafts.save(STUDY, 1, saying("x")).number == 2, "an answer that was lost on its way is asked for again"
    assert len(drafts.versions(STUDY)) == 2


def test_a_stale_save_changes_nothing_and_loses_nothing(drafts):
    drafts.save(STUDY, 1, saying("theirs"), "Dr. A")
    for _ in range(2):
        with pytest.raises(StaleError) as caught:
            drafts.save(STUDY, 1, saying("mine"), "Dr. B")
    assert caught.value.current.report.impression == "theirs"
    assert drafts.current(STUDY).number == 2
    kept = drafts.version(STUDY, caught.value.aside.number)
    assert (kept.report.impression, kept.author, kept.set_aside, kept.base) == ("mine", "Dr. B", True, 1)
    assert len(drafts.versions(STUDY)) == 3, "set aside once"
    assert drafts.save(STUDY, 2, saying("mine")).number == 4


def test_what_is_signed_stays_and_an_addendum_follows_it(drafts):
    signed = drafts.sign(STUDY, 1, JANE)
    assert signed.signature == JANE
    assert drafts.sign(STUDY, 1, replace(JANE, time=JANE.time + datetime.timedelta(1))).signature == JANE
    with pytest.raises(SignedError, match="signed by Doe, Jane"):
        drafts.sign(STUDY, 1, replace(JANE, name="Roe^Rita"))
    with pytest.raises(SignedError, match="begin an addendum"):
        drafts.save(STUDY, 1, FIRST)
    for _ in range(2):
        with pytest.raises(SignedError, match="What you wrote is kept as version 2"):
            drafts.save(STUDY, 1, saying("too late"), "Dr. B")
    kept = drafts.version(STUDY, 2)
    assert (kept.report.impression, kept.author, kept.set_aside) == ("too late", "Dr. B", True)
    assert drafts.current(STUDY) == signed
    assert drafts.states() == {STUDY: "unstored"}
    assert drafts.stored(STUDY, 1, ["1.9"]).documents == ("1.9",)
    assert drafts.states() == {STUDY: "signed"}
    added = drafts.addendum(STUDY)
    assert (added.number, added.report, added.signature) == (3, FIRST, None)
    assert drafts.addendum(STUDY) == added, "asked for twice, begun once"
    changed = drafts.save(STUDY, 3, saying("changed"))
    assert drafts.predecessor(changed) == drafts.version(STUDY, 1)
    assert drafts.version(STUDY, 1).report == FIRST
    with pytest.raises(StaleError):
        drafts.sign(STUDY, 2, JANE)


def test_a_signature_that_is_read_back_makes_the_same_documents(drafts):
    still = image(np.zeros((32, 32, 3), np.uint8), SOPInstanceUID="1.2")
    # The system's zone has a name, which a text of the time has not.
    now = replace(JANE, time=datetime.datetime.now().astimezone())
    made, again = (
        signed_documents(FIRST, [still], ALGORITHM, signature, {}, reference(STUDY, "1.2.9"))
        for signature in (now, drafts.sign(STUDY, 1, now).signature)
    )
    assert [one.SOPInstanceUID for one in made] == [one.SOPInstanceUID for one in again]
    assert len({one.SOPInstanceUID for one in made}) == 3
    (document, _, selection), (same, _, alike) = made, again
    assert (document, selection) == (same, alike), "the same instance is the same to the last bit"


def test_there_is_no_report_of_a_study_that_has_none(drafts):
    for ask in (drafts.current, drafts.algorithm, drafts.addendum):
        with pytest.raises(LookupError):
            ask("1.2.4")
    with pytest.raises(LookupError):
        drafts.version(STUDY, 2)
    with pytest.raises(LookupError):
        drafts.save("1.2.4", 1, FIRST)
    assert drafts.versions("1.2.4") == []


@pytest.mark.parametrize(
    "url", ["nonsense", "sqlite:////nowhere/at/all.sqlite", "postgresql+psycopg://u:secret@::x/db"]
)
def test_a_database_that_cannot_be_opened_is_one_sentence_without_its_password(url):
    with pytest.raises(ValueError, match="the database of reports cannot be opened") as caught:
        Drafts(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def race(url: str) -> None:
    """Eight editors, each with a connection of its own, save one after the other's nose; then all sign."""
    editors = [Drafts(url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda one: one.create(STUDY, FIRST, ALGORITHM), editors))
        assert {one.number for one in begun} == {1}

        def edit(place: int) -> list[str]:
            kept = []
            for turn in range(5):
                text = f"editor {place}, turn {turn}"
                base = editors[place].current(STUDY)
                try:
                    editors[place].save(STUDY, base.number, saying(text))
                    kept.append(text)
                except StaleError as error:
                    assert error.aside is not None
            return kept

        accepted = [text for texts in pool.map(edit, range(8)) for text in texts]
        number = editors[0].current(STUDY).number
        signers = [replace(JANE, name=f"Doe^{place}") for place in range(8)]

        def try_to_sign(place: int) -> Version | None:
            try:
                return editors[place].sign(STUDY, number, signers[place])
            except SignedError:
                return None

        signed = [one for one in pool.map(try_to_sign, range(8)) if one]
    versions = editors[0].versions(STUDY)
    assert [one.number for one in versions] == list(range(1, 42)), "every text is there, under a number of its own"
    assert {one.report.impression for one in versions[1:]} == {
        f"editor {n}, turn {t}" for n in range(8) for t in range(5)
    }
    counted = [one for one in versions if not one.set_aside]
    assert sorted(one.report.impression for one in counted[1:]) == sorted(accepted)
    assert [one.base for one in counted[1:]] == [one.number for one in counted[:-1]], "each follows the one before it"
    assert len(signed) == 1
    assert [one.signature for one in versions if one.signature] == [signed[0].signature]


def test_editors_at_once_neither_overwrite_nor_lose_each_other_s_text(url):
    race(url)


@pytest.mark.e2e
def test_editors_at_once_in_postgresql() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        with postgresql(Path(folder)) as url:
            race(url)


class Editing(RuleBasedStateMachine):
    """Any order of saves, current or stale, signatures and addenda, against a list of what should be there."""

    @initialize()
    def begin(self) -> None:
        self.drafts = Drafts("sqlite://")
        self.drafts.create(STUDY, FIRST, ALGORITHM)
        self.texts, self.current, self.signed = {1: ""}, 1, {}

    @rule(text=st.sampled_from("abc"), back=st.integers(0, 2))
    def save(self, text: str, back: int) -> None:
        base = max(1, self.current - back)
        try:
            saved = self.drafts.save(STUDY, base, saying(text))
        except SignedError:
            assert self.current in self.signed
            kept = self.drafts.versions(STUDY)
            self.texts |= {one.number: one.report.impression for one in kept if one.number > max(self.texts)}
            assert text in {one.report.impression for one in kept}
        except StaleError as error:
            assert base != self.current and self.current not in self.signed
            self.texts.setdefault(error.aside.number, text)
            assert self.texts[error.aside.number] == text
        else:
            assert self.current not in self.signed
            if text != self.texts[self.current]:
                assert base == self.current
                self.current = max(self.texts) + 1
                self.texts[self.current] = text
            assert saved.number == self.current

    @rule(name=st.sampled_from(["Doe^Jane", "Roe^Rita"]))
    def sign(self, name: str) -> None:
        try:
            self.drafts.sign(STUDY, self.current, replace(JANE, name=name))
        except SignedError:
            assert self.signed[self.current] != name
        else:
            assert self.signed.setdefault(self.current, name) == name

    @rule()
    def add(self) -> None:
        number = self.drafts.addendum(STUDY).number
        if self.current in self.signed:
            self.texts[max(self.texts) + 1] = self.texts[self.current]
            self.current = max(self.texts)
        assert number == self.current

    @invariant()
    def nothing_is_lost(self) -> None:
        versions = self.drafts.versions(STUDY)
        assert {one.number: one.report.impression for one in versions} == self.texts
        assert {one.number: one.signature.name for one in versions if one.signature} == self.signed
        assert self.drafts.current(STUDY).number == self.current


TestEditing = Editing.TestCase
TestEditing.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
