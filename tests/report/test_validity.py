"""Every kind of object, of any source, findings and words, is without error for dciodvfy."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import CodedConcept
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from report.choices import KINDS as KINDS_OF_EXAMINATION
from report.choices import SEDATIONS, SITES
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from report.examination import BowelPreparation, Choice, Evidence, ExaminationReport, Observation, Signature
from report.examination_report import examination_report
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Algorithm, Explanation, Finding
from report.key_objects import key_objects
from report.language import LANGUAGES
from report.render import encapsulated_pdf
from report.secondary_capture import COMPRESSIONS, GUIDED_HEATMAPS, LAYER_WALK, heatmap_capture
from report.segmentation import segmentation
from report.structured_report import findings_report
from report.terms import TERMS, plain_text
from tests.dicom_files import CAPTURE, image, write
from tests.validators import dciodvfy, pixelmed

NAMES = {
    "ISO_IR 192": ["Doe^Jane", "山田^太郎", "Müller^Zoë", "Yamada^Tarou=山田^太郎=やまだ^たろう", "Nguyễn^Ánh"],
    "ISO_IR 100": ["Müller^Zoë", "Åström^Ål"],
    "ISO_IR 144": ["Иванов^Пётр"],
    ("", "ISO 2022 IR 87"): ["Yamada^Tarou=山田^太郎=やまだ^たろう"],
    None: ["Doe^Jane", ""],
}
TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber", "Manufacturer"),
    *("PatientOrientation", "Laterality"),
)
OPTIONAL = ("LossyImageCompression", "AcquisitionContextSequence", "ImageType", "Modality", "BurnedInAnnotation")
WORDS = st.text(max_size=200) | st.sampled_from(["Größe\n5 mm", "a\\b", "x" * 1100, "ポリープ" * 40, "\x0bpasted\x00"])
NAME = WORDS.filter(lambda text: plain_text(text).strip())
LABEL = st.sampled_from([*TERMS]) | NAME
SIGNED = Signature("Doe^Jane", "Endoscopist", "St. Elsewhere", datetime.datetime(2026, 1, 2, 15, 4, 5))


@dataclass(frozen=True)
class Case:
    """What an object is made of."""

    source: Dataset
    pixels: np.ndarray
    frame: int
    algorithm: Algorithm
    findings: list[Finding]
    report: ExaminationReport
    compression: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    height, width = draw(st.sampled_from([(1, 1), (1, 300), (211, 1)]) | st.tuples(*[st.integers(1, 60)] * 2))
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = draw(st.none() | st.integers(1, 3))
    source = image(
        pixels if frames is None else np.stack([pixels] * frames),
        draw(st.sampled_from([None, CAPTURE])) if frames is None else None,
    )
    charset = draw(st.sampled_from([*NAMES]))
    name = draw(st.sampled_from(NAMES[charset]))
    source.PatientName, source.SpecificCharacterSet = name, list(charset) if isinstance(charset, tuple) else charset
    for keyword in draw(st.sets(st.sampled_from([*TYPE_2, *OPTIONAL]))):
        if keyword in source:
            if keyword in TYPE_2 and draw(st.booleans()):
                source[keyword].value = None
            else:
                delattr(source, keyword)
    algorithm = Algorithm(draw(NAME), draw(NAME), draw(WORDS), draw(st.booleans()))
    frame = draw(st.integers(1, frames or 1))
    chance = st.integers(0, 10_000).map(lambda part: part / 10_000)
    seen = Explanation(draw(st.sampled_from([GRAD_CAM, GUIDED_GRAD_CAM])), draw(NAME), draw(LABEL), draw(chance))
    places = st.lists(st.tuples(st.floats(0, width, width=32), st.floats(0, height, width=32)), min_size=3, max_size=40)
    outline = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height), (0.0, 0.0))
    contours = [(*points, points[0]) for points in draw(st.lists(places, max_size=4))]
    findings = [
        Finding(seen, str(source.SOPInstanceUID), frame, contour, whole_image=not contours, number=number)
        for number, contour in enumerate(contours or [outline], start=1)
    ]
    report = draw(reports(Evidence(str(source.SOPInstanceUID), frame, draw(WORDS)), chance))
    return Case(source, pixels, frame, algorithm, findings, report, draw(st.sampled_from([*COMPRESSIONS])))


def reports(image: Evidence, chance: st.SearchStrategy[float]) -> st.SearchStrategy[ExaminationReport]:
    """Reports that show an image, or none."""
    site, score = _key(SITES), st.none() | st.integers(0, 3)
    observation = st.builds(
        Observation,
        label=st.just("") | LABEL,
        text=WORDS,
        evidence=st.sampled_from([(), (image,)]),
        probability=st.none() | chance,
        site=site,
    )
    words = ("procedure", "indication", "interventions", "adverse_events", "impression", "recommendation")
    return st.builds(
        ExaminationReport,
        kind=_key(KINDS_OF_EXAMINATION),
        sedation=st.builds(Choice, key=_key(SEDATIONS), remark=WORDS),
        extent=st.builds(Choice, key=site, remark=WORDS),
        preparation=st.builds(BowelPreparation, right=score, transverse=score, left=score),
        observations=st.lists(observation, max_size=3).map(tuple),
        language=st.sampled_from([*LANGUAGES]),
        **dict.fromkeys((*words, "ai_involvement", "addendum"), WORDS),
    )


def _key(choices: Mapping[str, CodedConcept]) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *choices])


def _capture(case: Case, **options: object) -> Dataset:
    explanation = case.findings[0].explanation
    colours = None if min(case.pixels.shape[:2]) < 32 else np.arange(30, dtype=np.uint8).reshape(10, 3)
    return heatmap_capture(
        case.source, case.frame, case.pixels, explanation, case.algorithm, 1,
        colours=colours, compression=case.compression, **options,
    )  # fmt: skip


def _findings(case: Case, three_dimensional: bool) -> Dataset:
    captures = [_capture(case), _capture(case, series=GUIDED_HEATMAPS)]
    explained = [replace(one, captures=tuple(str(c.SOPInstanceUID) for c in captures)) for one in case.findings]
    return findings_report(explained, [case.source], case.algorithm, captures, three_dimensional)


def _regions(case: Case) -> Dataset | None:
    try:
        return segmentation(case.findings, case.source, case.algorithm)
    except ValueError as error:
        assert str(error) == "there is no region to segment"
        return None


def _signed(case: Case) -> Dataset:
    draft = examination_report(case.report, [case.source], case.algorithm)
    return examination_report(case.report, [case.source], case.algorithm, SIGNED, predecessor=draft)


def _still(case: Case) -> Dataset:
    still = Still(case.pixels, _ratio(case))
    return endoscopic_image(still, study_of(Examination(patient_name="Müller^Zoë"), [still.fingerprint]), 1)


def _ratio(case: Case) -> float | None:
    """A picture may have come without loss."""
    return None if case.frame == 1 else 12.5


KINDS: dict[str, Callable[[Case], Dataset | None]] = {
    "heatmap": _capture,
    "guided heatmap": lambda case: _capture(case, series=GUIDED_HEATMAPS),
    "layer walk": lambda case: _capture(case, series=LAYER_WALK),
    "findings": lambda case: _findings(case, False),
    "findings in 3D": lambda case: _findings(case, True),
    "regions": _regions,
    "key objects": lambda case: key_objects([case.source, _capture(case)], case.algorithm, case.report.impression),
    "report": lambda case: examination_report(case.report, [case.source], case.algorithm),
    "signed report": _signed,
    "PDF": lambda case: encapsulated_pdf(b"%PDF-1.7" + b"x" * case.frame, case.report, [case.source], case.algorithm),
    "still": _still,
}


@pytest.mark.slow
@given(case=cases())
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_object_of_any_source_is_valid(tmp_path: Path, case: Case) -> None:
    made = {kind: make(case) for kind, make in KINDS.items()}
    found = {kind: dciodvfy(write(one, tmp_path / "object.dcm")) for kind, one in made.items() if one is not None}
    assert not any(found.values()), found


@pytest.mark.slow
def test_no_document_has_an_error_before_pixelmed_s_validator(tmp_path: Path) -> None:
    documents: list[Path] = []

    @given(case=cases())
    @settings(max_examples=6, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def make(case: Case) -> None:
        for kind in ("findings", "findings in 3D", "key objects", "report", "signed report"):
            documents.append(write(KINDS[kind](case), tmp_path / f"{len(documents)}.dcm"))

    make()
    assert len(documents) >= 30
    errors = [line for lines in pixelmed(documents).values() for line in lines if line.startswith("Error")]
    assert errors == []
