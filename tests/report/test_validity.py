"""Every kind of object, of any source, findings and words, is without error for the validators."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import CodedConcept
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from report.choices import KINDS as KINDS_OF_EXAMINATION
from report.choices import SEDATIONS, SITES
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of
from report.examination import BowelPreparation, Choice, Evidence, ExaminationReport, Observation, Signature
from report.examination_report import examination_report
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Algorithm, Explanation, Finding, Footage, Segment
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
DOCUMENTS = ("findings", "findings in 3D", "key objects", "report", "signed report")
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


def objects(case: Case) -> dict[str, Dataset]:
    """One of every kind."""
    source, algorithm, report = [case.source], case.algorithm, case.report
    captures = [_capture(case), _capture(case, series=GUIDED_HEATMAPS)]
    explained = [replace(one, captures=tuple(str(c.SOPInstanceUID) for c in captures)) for one in case.findings]
    draft = examination_report(report, source, algorithm)
    uid, label = str(case.source.SOPInstanceUID), case.findings[0].explanation.label
    shown = [Evidence(uid, case.frame), Evidence(str(captures[0].SOPInstanceUID))]
    footage = Footage((Segment(label, 1.5, 4.0, 0.9, 0.7, uid, 2.0, uid, frame=case.frame),), videos=(case.source,))
    made = {
        "heatmap": captures[0],
        "guided heatmap": captures[1],
        "layer walk": _capture(case, series=LAYER_WALK),
        "findings": findings_report(explained, source, algorithm, captures, footage=footage),
        "findings in 3D": findings_report(explained, source, algorithm, captures, three_dimensional=True),
        "key objects": key_objects(shown, [case.source, captures[0]], algorithm, report.impression),
        "report": draft,
        "signed report": examination_report(report, source, algorithm, SIGNED, predecessor=draft),
        "PDF": encapsulated_pdf(b"%PDF-1.7" + b"x" * case.frame, report, source, algorithm),
        "still": _still(case),
    }
    try:
        made["regions"] = segmentation(case.findings, case.source, algorithm)
    except ValueError as error:
        assert str(error) == "there is no region to segment"
    return made


def _capture(case: Case, **options: object) -> Dataset:
    explanation = case.findings[0].explanation
    colours = None if min(case.pixels.shape[:2]) < 32 else np.arange(30, dtype=np.uint8).reshape(10, 3)
    return heatmap_capture(
        case.source, case.frame, case.pixels, explanation, case.algorithm, 1,
        colours=colours, compression=case.compression, **options,
    )  # fmt: skip


def _still(case: Case) -> Dataset:
    still = Still(case.pixels, None if case.frame == 1 else 12.5)  # a picture may have come without loss
    return endoscopic_image(still, study_of(Examination(patient_name="Müller^Zoë"), [still.fingerprint]), 1)


@dataclass(frozen=True)
class Said:
    """What validators say, each of them while the next objects are made."""

    dciodvfy: dict[Path, Future[list[str]]]
    pixelmed: Future[dict[Path, list[str]]]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    """Of 200 cases, the first of which PixelMed's validator, which is slower, sees the documents."""
    folder, seen_by_pixelmed = tmp_path_factory.mktemp("objects"), 6
    checks: dict[Path, Future[list[str]]] = {}
    documents: list[Path] = []
    slower: list[Future[dict[Path, list[str]]]] = []
    numbers = count(1)
    with ThreadPoolExecutor(2) as pool:

        @given(case=cases())
        @settings(
            max_examples=200, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def make(case: Case) -> None:
            number = next(numbers)
            for kind, one in objects(case).items():
                path = write(one, folder / f"{number} {kind}.dcm")
                checks[path] = pool.submit(dciodvfy, path)
                if number <= seen_by_pixelmed and kind in DOCUMENTS:
                    documents.append(path)
            if number == seen_by_pixelmed:
                slower.append(pool.submit(pixelmed, documents))

        make()
        yield Said(checks, slower[0])


@pytest.mark.slow
def test_any_object_of_any_source_is_valid(said: Said) -> None:
    counted = Counter(path.stem.partition(" ")[2] for path in said.dciodvfy)
    assert min(counted[kind] for kind in counted if kind != "regions") >= 200
    assert counted["regions"] >= 100, "too few cases have a region"
    assert {path: errors for path, check in said.dciodvfy.items() if (errors := check.result())} == {}


@pytest.mark.slow
def test_no_document_has_an_error_before_pixelmed_s_validator(said: Said) -> None:
    found = said.pixelmed.result()
    assert len(found) >= 30
    assert [line for lines in found.values() for line in lines if line.startswith("Error")] == []
