"""Findings reports of any findings: valid, read by other programs, and read back as what they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Algorithm, Explanation, Finding, Footage, Segment
from report.secondary_capture import heatmap_capture
from report.structured_report import findings_report, read_algorithm, read_findings
from report.terms import term
from report.video_segments import read_segments
from tests.dicom_files import image, write
from tests.validators import dciodvfy, dsrdump, tid1500reader

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model, not for clinical use", calibrated=True)
PIXELS = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
STILL, LOOP = image(PIXELS), image(np.stack([PIXELS] * 3))
LOOP.StudyInstanceUID = STILL.StudyInstanceUID
CAPTURES = [
    heatmap_capture(source, 1, PIXELS, Explanation(method, "block5_conv4", "polyps", 0.9), ALGORITHM)
    for source in (STILL, LOOP)
    for method in (GRAD_CAM, GUIDED_GRAD_CAM)
]
PLACE = st.tuples(st.floats(0, 64, width=32), st.floats(0, 48, width=32))
NAME = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1, max_size=80)


@st.composite
def findings(draw: st.DrawFn) -> Finding:
    source = draw(st.sampled_from([STILL, LOOP]))
    points = draw(st.lists(PLACE, min_size=3, max_size=60))
    whole = draw(st.booleans())
    explanation = Explanation(
        draw(st.sampled_from([GRAD_CAM, GUIDED_GRAD_CAM])),
        draw(st.sampled_from(["block5_conv4", "layer4.2.conv3"])),
        draw(st.sampled_from(["polyps", "normal-cecum", "dyed-lifted-polyps"]) | NAME),
        draw(st.integers(0, 10_000)) / 10_000,
    )
    return Finding(
        explanation,
        str(source.SOPInstanceUID),
        draw(st.integers(1, 3)) if source is LOOP else 1,
        (*points, points[0]),
        whole_image=whole,
        number=1 if whole else draw(st.integers(1, 40)),
        captures=tuple(str(one.SOPInstanceUID) for one in draw(st.lists(st.sampled_from(CAPTURES), max_size=3))),
    )


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Of a video, to a millisecond, with the still that stands for it or none."""
    start, length = draw(st.integers(0, 10_000_000)) / 1000, draw(st.integers(300, 600_000)) / 1000
    chances = sorted(draw(st.tuples(*[st.integers(0, 10_000)] * 2)))
    label = draw(st.sampled_from(["polyps", "normal-cecum"]) | NAME)
    segment = Segment(
        *(label, start, round(start + length, 3), chances[1] / 10_000, chances[0] / 10_000),
        video=str(LOOP.SOPInstanceUID),
    )
    shown = replace(segment, still=str(STILL.SOPInstanceUID), time=start, frame=draw(st.integers(1, 200_000)))
    return draw(st.sampled_from([segment, shown]))


def report_of(made: list[Finding], seen: Sequence[Segment] = (), **options: bool) -> Dataset:
    footage = Footage(tuple(seen), videos=(LOOP,))
    return findings_report(made, [STILL, LOOP], ALGORITHM, CAPTURES, footage=footage, **options)


@pytest.mark.slow
@given(
    made=st.lists(findings(), min_size=1, max_size=3),
    seen=st.lists(segments(), max_size=2),
    three_dimensional=st.booleans(),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_findings_make_a_valid_report_that_gives_them_back(tmp_path, made, seen, three_dimensional):
    path = write(report_of(made, seen, three_dimensional=three_dimensional), tmp_path / "report.dcm")
    assert dciodvfy(path) == []
    assert read_findings(dcmread(path)) == made
    assert read_segments(dcmread(path)) == seen


@pytest.mark.parametrize("notice", ["Class: IIa, not for clinical use", "Method: none", "Target layer: "])
def test_a_notice_that_looks_like_a_parameter_is_none(explained, notice):
    document = findings_report(explained, [STILL, LOOP], replace(ALGORITHM, notice=notice), CAPTURES)
    assert read_findings(document) == explained
    assert read_algorithm(document).notice.strip() == notice.strip()


@pytest.mark.parametrize("name", ["", "Mayo: 2", "Class:", ": ", " led by a blank"])
def test_any_name_of_class_and_layer_is_read_back_but_for_blanks_at_its_end(tmp_path, explained, name):
    made = [replace(one, explanation=replace(one.explanation, layer=name, label=name)) for one in explained]
    seen = Segment(name, 0.0, 1.0, 0.9, 0.8, video=str(LOOP.SOPInstanceUID))
    read = dcmread(write(report_of(made, [seen]), tmp_path / "report.dcm"))
    kept = name.rstrip(" ")
    assert {(one.explanation.layer, one.explanation.label) for one in read_findings(read)} == {(kept, kept)}
    assert [one.label for one in read_segments(read)] == [kept]


def test_of_a_clip_the_times_are_its_own_and_within_it(explained):
    clip = LOOP.SOPInstanceUID
    long = Segment("polyps", 100.0, 300.0, 0.9, 0.8, STILL.SOPInstanceUID, 180.5, clip, 150.0, 210.0, frame=763)
    report = report_of(explained, [long])
    assert read_segments(report) == [
        Segment("polyps", 0.0, 60.0, 0.9, 0.8, STILL.SOPInstanceUID, 30.5, clip, frame=763)
    ]
    assert report_of(explained).SOPInstanceUID != report.SOPInstanceUID
    listed = [element.value for element in report.iterall() if element.keyword == "ReferencedTimeOffsets"]
    assert listed == [[0, 60], 30.5]


@pytest.fixture
def explained() -> list[Finding]:
    square = ((1.0, 1.0), (9.0, 1.0), (9.0, 7.5), (1.0, 7.5), (1.0, 1.0))
    uids = tuple(str(one.SOPInstanceUID) for one in CAPTURES[:2])
    return [
        Finding(
            Explanation(GRAD_CAM, "block5_conv4", "polyps", 0.9322), str(STILL.SOPInstanceUID), 1, square, captures=uids
        ),
        Finding(Explanation(GRAD_CAM, "block5_conv4", "Darmkrebs, größer", 0.5), str(LOOP.SOPInstanceUID), 2, square),
    ]


def test_a_finding_points_at_the_captures_that_explain_it_each_with_its_kind(explained):
    group = report_of(explained).ContentSequence[-1].ContentSequence[0]
    items = [one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "130401"]
    found = {
        one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: (
            one.ContentSequence[0].ConceptCodeSequence[0].CodeValue,
            one.ContentSequence[0].RelationshipType,
        )
        for one in items
    }
    kinds = ("130403", "130404")
    assert found == {
        one.SOPInstanceUID: (kind, "HAS CONCEPT MOD") for one, kind in zip(CAPTURES[:2], kinds, strict=True)
    }


def test_the_captures_are_among_the_report_s_evidence(explained):
    listed = {
        item.ReferencedSOPInstanceUID
        for study in report_of(explained).CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert {one.SOPInstanceUID for one in CAPTURES[:2]} <= listed


@pytest.mark.parametrize(("calibrated", "said"), [(True, "calibrated"), (False, "not calibrated")])
def test_it_says_whether_the_probability_is_calibrated(explained, calibrated, said):
    algorithm = Algorithm("tiny", "1", "", calibrated)
    report = findings_report(explained, [STILL, LOOP], algorithm, CAPTURES)
    assert f"Probability: of the whole frame, {said}" in _values(report, "111002", "TextValue")


@pytest.mark.parametrize("three_dimensional", [False, True])
def test_others_read_it(tmp_path: Path, explained, three_dimensional):
    path = write(report_of(explained, three_dimensional=three_dimensional), tmp_path / "report.dcm")
    shown = dsrdump(path)
    for words in (
        "Polyp of colon",
        "93.22",
        "Darmkrebs, größer",
        "Visual explanation",
        "tiny",
        "PARTIAL",
        "UNVERIFIED",
    ):
        assert (words in shown) == (words != "PARTIAL"), words
    if not three_dimensional:
        content = tid1500reader(path, tmp_path)
        assert [group["Finding"]["CodeMeaning"] for group in content["Measurements"]] == [
            "Polyp of colon",
            "Darmkrebs, größer",
        ]
        assert {group["TrackingUniqueIdentifier"] for group in content["Measurements"]} == set(_tracking_uids(path))


def _values(dataset: Dataset, concept: str, keyword: str) -> list[str]:
    """What a report's items of a concept hold, wherever they stand."""
    values: list[str] = []
    for item in dataset.get("ContentSequence", []):
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == concept:
            values.append(item[keyword].value)
        values += _values(item, concept, keyword)
    return values


def _tracking_uids(path: Path) -> list[str]:
    return _values(dcmread(path), "112040", "UID")


def test_tracking_uids_stay_from_run_to_run(tmp_path, explained):
    runs = [_tracking_uids(write(report_of(explained), tmp_path / f"{run}.dcm")) for run in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 2


def test_a_report_of_another_maker_or_kind_is_not_read():
    for foreign in (STILL, CAPTURES[0], Dataset()):
        with pytest.raises(ValueError, match="no findings report of EndoLens"):
            read_findings(foreign)


def test_a_capture_that_is_not_there_is_refused(explained):
    with pytest.raises(ValueError, match="not among the sources"):
        findings_report(explained, [STILL, LOOP], ALGORITHM)


def test_every_class_of_kvasir_has_a_term_with_a_site():
    from monai_label_app.classifier.network import KVASIR_CLASSES

    for label in KVASIR_CLASSES:
        assert term(label).site is not None
    assert codes.DCM.VisualExplanation.value == "130401"
