"""The report of an examination as a DICOM Structured Report that viewers show as text (TID 2000)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    EnhancedSR,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    NumContentItem,
    ObservationContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import DT, PersonName

from report.attributes import (
    MANUFACTURER,
    completed,
    dated,
    device_observer,
    filled,
    heading,
    is_multi_frame,
    person_observer,
    processing_equipment,
    report_title,
)
from report.choices import EXTENT, KINDS, SEDATIONS, SEGMENTS, SITES, TOTAL
from report.examination import Choice, Evidence, ExaminationReport, Observation, Signature
from report.findings import Algorithm
from report.language import LANGUAGES, Language
from report.terms import PRIVATE, long_string, plain_text, term
from report.uids import derive

SERIES_NUMBER = 910

_CONTAINS, _PROPERTY = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_CONCEPT_MOD
_AI_INVOLVEMENT = CodedConcept("AI-INVOLVEMENT", PRIVATE, "AI involvement")
_INTERVENTIONS = CodedConcept("INTERVENTIONS", PRIVATE, "Interventions")
_POINTS = CodedConcept("{score}", "UCUM", "score")


def _concept(code: Code | CodedConcept) -> CodedConcept:
    return CodedConcept(code.value, code.scheme_designator, code.meaning)


def examination_report(
    report: ExaminationReport,
    images: Sequence[Dataset],
    algorithm: Algorithm,
    signature: Signature | None = None,
    predecessor: Dataset | None = None,
) -> Dataset:
    """Make the Enhanced SR of a report: a draft, unverified, or signed, verified and final.

    Args:
        report: what it says.
        images: those that it refers to, all of one study; their headers are enough.
        algorithm: the machine that took part.
        signature: who answers for it; a draft without one.
        predecessor: the version that this one replaces, as a signed report does its draft.

    Raises:
        ValueError: no image, images of several studies, or evidence that is not among them.
    """
    headers = {image.SOPInstanceUID: completed(image) for image in images}
    if len({header.StudyInstanceUID for header in headers.values()}) != 1:
        raise ValueError("a report needs images, all of one study")
    missing = [one.sop_instance_uid for one in report.evidence if one.sop_instance_uid not in headers]
    if missing:
        raise ValueError(f"the report shows {missing[0]}, which is not among the images")
    first, language = next(iter(headers.values())), LANGUAGES[report.language]
    title = _concept(codes.LN.DiagnosticImagingReport)
    root = ContainerContentItem(name=title, is_content_continuous=False, template_id="2000")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(CodedConcept(language.tag, "RFC5646", language.name)),
            *ObservationContext(
                observer_person_context=person_observer(signature) if signature else None,
                observer_device_context=device_observer(algorithm),
            ),
            *_sections(report, language, headers),
        ]
    )
    uid = report_instance(report, first.StudyInstanceUID, algorithm, signature)
    document = EnhancedSR(
        evidence=list(headers.values()),
        content=heading(codes.LN.DiagnosticImagingReport),
        series_instance_uid=report_series(first.StudyInstanceUID, uid),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=signature is not None,
        is_final=signature is not None,
        is_verified=signature is not None,
        verifying_observer_name=PersonName(signature.name) if signature else None,
        verifying_organization=long_string(signature.organization) if signature else None,
        previous_versions=[predecessor] if predecessor is not None else None,
        series_description=report_title(signature),
        contributing_equipment=[processing_equipment(algorithm, f"Draft of the report. {algorithm.notice}")],
        specific_character_set=first.SpecificCharacterSet,
    )
    made = filled(document, root)
    if signature:
        made.VerifyingObserverSequence[0].VerificationDateTime = DT(signature.time)
        dated(made, signature)
        made.SeriesDate, made.SeriesTime = made.ContentDate, made.ContentTime
    return made


def report_instance(
    report: ExaminationReport, study: str, algorithm: Algorithm, signature: Signature | None = None
) -> UID:
    """SOP Instance UID of the Enhanced SR of a report."""
    signed = signature and signature.identity
    return derive("report" if signed else "draft", study, algorithm.name, algorithm.version, astuple(report), signed)


def report_series(study: str, report: str) -> UID:
    """The series of a report, by its SOP Instance UID; one report is one series.

    Of a series viewers show one report, and not the newest: OHIF shows the one of the lowest Instance Number or UID.
    """
    return derive("report series", study, report)


def _sections(
    report: ExaminationReport, language: Language, headers: dict[str, Dataset]
) -> Iterator[ContainerContentItem]:
    """The headings (CID 7001) that have something to say, in the order of an endoscopist's report.

    Their content is separate items, of which viewers show the names: a score says nothing without its segment.
    """
    heading, element = codes.LN, codes.DCM
    findings = [
        item
        for number, one in enumerate(report.observations, start=1)
        for item in _observed(number, one, language, headers)
    ]
    parts: list[tuple[Code | CodedConcept, list[ContentItem]]] = [
        (heading.Addendum, _text(heading.Addendum, report.addendum)),
        (heading.IndicationsForProcedure, _text(heading.PatientPresentation, report.indication)),
        (heading.CurrentProcedureDescriptions, _procedure(report)),
        (heading.Findings, findings),
        (heading.Complications, _text(codes.SCT.ComplicationOfProcedure, report.adverse_events)),
        (heading.Impressions, _text(element.Impression, report.impression)),
        (heading.Recommendations, _text(element.Recommendation, report.recommendation)),
        (_AI_INVOLVEMENT, _text(_AI_INVOLVEMENT, report.ai_involvement)),
    ]
    for name, items in parts:
        if items:
            section = ContainerContentItem(
                name=_concept(name), is_content_continuous=False, relationship_type=_CONTAINS
            )
            section.ContentSequence = ContentSequence(items)
            yield section


def _text(name: Code | CodedConcept, text: str) -> list[ContentItem]:
    said = plain_text(text).strip()
    return [TextContentItem(name=_concept(name), value=said, relationship_type=_CONTAINS)] if said else []


def _code(name: Code | CodedConcept, value: CodedConcept | None) -> list[ContentItem]:
    return [CodeContentItem(name=_concept(name), value=value, relationship_type=_CONTAINS)] if value else []


def _procedure(report: ExaminationReport) -> list[ContentItem]:
    """What was done, under what sedation, how far, with what preparation, and what was done on the way."""

    def chosen(name: Code | CodedConcept, choice: Choice, known: Mapping[str, CodedConcept]) -> list[ContentItem]:
        return [*_code(name, known.get(choice.key)), *_text(name, choice.remark)]

    preparation = report.preparation
    scores = {SEGMENTS[name]: score for name, score in preparation.scores.items()}
    if preparation.total is not None:
        scores[TOTAL] = preparation.total
    return [
        *_code(codes.DCM.ProcedureDescription, KINDS.get(report.kind)),
        *_text(codes.DCM.ProcedureDescription, report.procedure),
        *chosen(codes.SCT.Sedation, report.sedation, SEDATIONS),
        *chosen(EXTENT, report.extent, SITES),
        *[
            NumContentItem(name=name, value=score, unit=_POINTS, relationship_type=_CONTAINS)
            for name, score in scores.items()
        ],
        *_text(_INTERVENTIONS, report.interventions),
    ]


def _observed(number: int, one: Observation, language: Language, headers: dict[str, Dataset]) -> Iterator[ContentItem]:
    """A finding in words, with its images, and in code, with its site. Viewers write them one after the other."""
    said = ""
    if one.probability is not None:
        said = f" [{language.said('proposed', probability=language.percent(one.probability))}]"
    text = f"({number}) {plain_text(one.text or one.label)}{said}"
    words = TextContentItem(name=_concept(codes.DCM.Finding), value=text, relationship_type=_CONTAINS)
    if one.evidence:
        words.ContentSequence = ContentSequence(
            [_image(image, headers[image.sop_instance_uid]) for image in one.evidence]
        )
    yield words
    site = SITES.get(one.site)
    if one.label:
        coded = CodeContentItem(
            name=_concept(codes.DCM.Finding), value=term(one.label).finding, relationship_type=_CONTAINS
        )
        if site:
            place = CodeContentItem(name=_concept(codes.SCT.FindingSite), value=site, relationship_type=_PROPERTY)
            coded.ContentSequence = ContentSequence([place])
        yield coded
    else:
        yield from _code(codes.SCT.FindingSite, site)


def _image(evidence: Evidence, header: Dataset) -> ImageContentItem:
    return ImageContentItem(
        name=_concept(codes.DCM.BestIllustrationOfFinding),
        referenced_sop_class_uid=header.SOPClassUID,
        referenced_sop_instance_uid=header.SOPInstanceUID,
        referenced_frame_numbers=[evidence.frame_number] if is_multi_frame(header) else None,
        relationship_type=RelationshipTypeValues.INFERRED_FROM,
    )
