"""A report from outside is held to its types; languages have the same words; what is not said is named."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given

from report.choices import KINDS, SEDATIONS, SEGMENTS, SITES
from report.completeness import missing
from report.examination import BowelPreparation, Choice, Evidence, ExaminationReport, Observation
from report.language import ENGLISH, LANGUAGES
from report.record import as_dict, from_json, to_json
from report.suggest import examined
from report.terms import TERMS
from tests.dicom_files import image
from tests.report.test_examination_report import PIXELS, REPORT, REPORTS


@given(report=REPORTS)
def test_a_report_comes_back_from_json_as_it_was(report):
    assert from_json(to_json(report)) == report
    assert json.loads(to_json(report)) == as_dict(report)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "report"),
        ("{", "JSON"),
        ('{"impresion": "x"}', "impresion"),
        ('{"impression": 7}', "impression: Input should be a valid string"),
        ('{"impression": "%s"}' % ("x" * 20_001), "impression: String should have at most 20000 characters"),
        ('{"preparation": {"right": 4}}', "preparation.right: Input should be less than or equal to 3"),
        ('{"observations": [{"label": "", "text": "", "probability": 1.5}]}', "observations.0.probability"),
        ('{"observations": [{"label": "", "text": "", "evidence": [{"sop_instance_uid": "../x"}]}]}', "evidence.0"),
        ('{"kind": "autopsy"}', "there is no kind 'autopsy'; there are colonoscopy"),
        ('{"extent": {"key": "moon"}}', "there is no extent 'moon'"),
        ('{"observations": [{"label": "", "text": "", "site": "moon"}]}', "there is no site 'moon'"),
        ('{"language": "tlh"}', "there is no language 'tlh'; there are de, en"),
        ('{"language": ""}', "there is no language ''"),
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(content, said):
    with pytest.raises(ValueError) as caught:
        from_json(content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_characters_go_and_the_rest_stays():
    read = from_json(json.dumps({"impression": "a\r\nb\tc\x00\x1bd\x85e\N{ZERO WIDTH JOINER}"}))
    assert read.impression == "a\nb cde\N{ZERO WIDTH JOINER}"


def test_all_languages_have_the_same_words_with_the_same_places():
    places = {
        tag: {key: sorted(place for _, place, _, _ in string.Formatter().parse(text) if place)
              for key, text in language.words.items()}
        for tag, language in LANGUAGES.items()
    }  # fmt: skip
    assert len(places) >= 2
    for tag, found in places.items():
        assert found == places["en"], tag
        assert all(text.strip() for text in LANGUAGES[tag].words.values()), tag
        # JSON keeps the last of two words under one key, and says nothing.
        file = (files("report") / "languages" / f"{tag}.json").read_text(encoding="utf-8")
        pairs = json.loads(file, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
        assert len(set(pairs)) == len(pairs), tag


def test_every_choice_and_every_term_has_a_word_and_every_word_of_a_list_its_choice():
    lists = {"kind": KINDS, "sedation": SEDATIONS, "site": SITES, "term": TERMS, "segment": [*SEGMENTS, "total"]}
    for name, known in lists.items():
        words = {key.removeprefix(f"{name}.") for key in ENGLISH.words if key.startswith(f"{name}.")}
        assert words == set(known), name
    assert {f"normal.{kind}" for kind in KINDS} <= set(ENGLISH.words)
    fields = [field for field in as_dict(ExaminationReport()) if field != "language"]
    assert {f"field.{field}" for field in fields} <= set(ENGLISH.words)
    assert {f"missing.{field}" for field in missing(ExaminationReport(kind="colonoscopy"), addendum=True)} | {
        "missing.kind",
        "missing.sites",
    } == {key for key in ENGLISH.words if key.startswith("missing.")}


def test_numbers_are_written_as_the_language_does():
    assert [LANGUAGES[tag].percent(0.9349) for tag in ("en", "de")] == ["93.5 %", "93,5 %"]
    assert [ENGLISH.percent(share) for share in (1, 0.9996, 0.9994, 0.0004, 0)] == [
        *("100.0 %", "> 99.9 %", "99.9 %"),
        *("< 0.1 %", "0.0 %"),
    ]
    assert ENGLISH.wording("something new") == "something new"


COMPLETE = replace(REPORT, preparation=BowelPreparation(0, 0, 0))


def test_a_complete_report_lacks_nothing_and_each_field_that_is_emptied_is_named():
    assert missing(COMPLETE) == []
    emptied = {
        "kind": replace(COMPLETE, kind=""),
        "indication": replace(COMPLETE, indication=" \n"),
        "sedation": replace(COMPLETE, sedation=Choice("", "Propofol")),
        "extent": replace(COMPLETE, extent=Choice()),
        "preparation": replace(COMPLETE, preparation=BowelPreparation(3, None, 3)),
        "observations": replace(COMPLETE, observations=()),
        "interventions": replace(COMPLETE, interventions=""),
        "adverse_events": replace(COMPLETE, adverse_events=""),
        "impression": replace(COMPLETE, impression=""),
        "recommendation": replace(COMPLETE, recommendation=""),
    }
    for name, report in emptied.items():
        assert missing(report) == [name]
    assert missing(replace(COMPLETE, observations=(Observation("polyps", " "),))) == ["observations"]
    reached = replace(COMPLETE, observations=(Observation("", "Ulcer", site="duodenum"),), extent=Choice("duodenum"))
    assert missing(replace(reached, kind="gastroscopy", preparation=BowelPreparation())) == []


@pytest.mark.parametrize(
    ("kind", "comes_to", "does_not"),
    [
        ("colonoscopy", {"ileum", "cecum", "rectum", "colon"}, {"esophagus", "z-line", "duodenum"}),
        ("sigmoidoscopy", {"splenic-flexure", "rectum", "colon"}, {"cecum", "transverse-colon", "stomach"}),
        ("gastroscopy", {"esophagus", "pylorus", "duodenum"}, {"ileum", "rectum", "colon"}),
    ],
)
def test_a_site_that_the_examination_does_not_come_to_is_asked_about(kind, comes_to, does_not):
    for site in SITES:
        seen = replace(COMPLETE, kind=kind, observations=(Observation("", "Ulcer", site=site),), extent=Choice("colon"))
        got = replace(seen, observations=COMPLETE.observations[:0], extent=Choice(site))
        if site in comes_to:
            assert "sites" not in missing(got)
        elif site in does_not:
            assert "sites" in missing(seen)
            assert "sites" in missing(got)
    unsaid = replace(COMPLETE, kind=kind, observations=(Observation("", "Ulcer"),), extent=Choice())
    assert "sites" not in missing(unsaid)


def test_an_addendum_must_say_what_it_adds():
    assert missing(COMPLETE, addendum=True) == ["addendum"]
    assert missing(replace(COMPLETE, addendum="Histology"), addendum=True) == []


@pytest.mark.parametrize(
    ("attributes", "kind", "procedure", "indication"),
    [
        ({"StudyDescription": "Diagnostische KOLOSKOPIE"}, "colonoscopy", "Diagnostische KOLOSKOPIE", ""),
        ({"StudyDescription": "Gastroscopy and colonoscopy"}, "", "Gastroscopy and colonoscopy", ""),
        ({"StudyDescription": None}, "", "", ""),
        ({"ReasonForTheRequestedProcedure": "Bleeding", "StudyDescription": "x"}, "", "x", "Bleeding"),
        (
            {"ReasonForTheRequestedProcedure": "Pain\\Bleeding", "StudyDescription": "Colonoscopy\\Polypectomy"},
            *("colonoscopy", "Colonoscopy, Polypectomy", "Pain, Bleeding"),
        ),
    ],
)
def test_what_the_header_says_of_the_examination_is_filled_in_and_nothing_else(attributes, kind, procedure, indication):
    about = examined(image(PIXELS, **attributes))
    assert (about.kind, about.procedure, about.indication) == (kind, procedure, indication)
    assert replace(about, kind="", procedure="", indication="") == ExaminationReport()


def test_the_procedure_s_code_says_its_kind():
    coded = image(PIXELS, ProcedureCodeSequence=[KINDS["gastroscopy"]], StudyDescription="Colonoscopy?")
    assert examined(coded).kind == "gastroscopy"


def test_an_image_of_two_findings_is_evidence_once():
    first, again = Evidence("1.2", 1, "first"), Evidence("1.2", 1, "again")
    report = ExaminationReport(observations=(Observation("", "a", (first,)), Observation("", "b", (again,))))
    assert report.evidence == (first,)
