"""The report of an examination as a DICOM Structured Report that viewers show as text (TID 2000)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DT, PersonName

from report.attributes import (
    MANUFACTURER,
    completed,
    device_observer,
    is_multi_frame,
    processing_equipment,
    series_description,
)
from report.examination import Evidence, ExaminationReport, Observation, Signature
from report.findings import Algorithm
from report.terms import PRIVATE, long_string, plain_text, term
from report.uids import derive

SERIES_NUMBER = 910

_CONTAINS, _PROPERTY = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_CONCEPT_MOD
_ENGLISH = CodedConcept("en", "RFC5646", "English")
_AI_INVOLVEMENT = CodedConcept("AI-INVOLVEMENT", PRIVATE, "AI involvement")


def _concept(code: Code | CodedConcept) -> CodedConcept:
    return CodedConcept(code.value, code.scheme_designator, code.meaning)


def examination_report(
    report: ExaminationReport,
    images: Sequence[Dataset],
    algorithm: Algorithm,
    signature: Signature | None = None,
    predecessor: Dataset | None = None,
) -> EnhancedSR:
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
    missing = [one.sop_instance_uid for seen in report.observations for one in seen.evidence]
    missing = [uid for uid in missing if uid not in headers]
    if missing:
        raise ValueError(f"the report shows {missing[0]}, which is not among the images")
    first = next(iter(headers.values()))
    made_of = (first.StudyInstanceUID, algorithm.name, algorithm.version, astuple(report), signature)
    root = ContainerContentItem(name=_concept(codes.LN.DiagnosticImagingReport), template_id="2000")
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(_ENGLISH),
            *ObservationContext(
                observer_person_context=_person(signature) if signature else None,
                observer_device_context=device_observer(algorithm),
            ),
            *_sections(report, headers),
        ]
    )
    made = EnhancedSR(
        evidence=list(headers.values()),
        content=root,
        # Drafts and the signed report of a study are versions of one document; viewers show the newest of a series.
        series_instance_uid=derive("report series", first.StudyInstanceUID),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derive("report", *made_of),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=signature is not None,
        is_final=signature is not None,
        is_verified=signature is not None,
        verifying_observer_name=PersonName(signature.name) if signature else None,
        verifying_organization=long_string(signature.organization) if signature else None,
        previous_versions=[predecessor] if predecessor is not None else None,
        series_description=series_description("report", algorithm) if signature is None else "Examination report",
        contributing_equipment=[processing_equipment(algorithm, f"Draft of the report. {algorithm.notice}")],
        specific_character_set=first.SpecificCharacterSet,
    )
    if signature:
        made.VerifyingObserverSequence[0].VerificationDateTime = DT(signature.time)
    return made


def _person(signature: Signature) -> ObserverContext:
    attributes = PersonObserverIdentifyingAttributes(name=signature.name, organization_name=signature.organization)
    return ObserverContext(observer_type=codes.DCM.Person, observer_identifying_attributes=attributes)


def _sections(report: ExaminationReport, headers: dict[str, Dataset]) -> Iterator[ContainerContentItem]:
    """The headings (CID 7001) that have something to say, in the order of an endoscopist's report."""
    heading, element = codes.LN, codes.DCM
    parts: list[tuple[Code | CodedConcept, list[ContentItem]]] = [
        (heading.IndicationsForProcedure, _text(codes.LN.PatientPresentation, report.indication)),
        (heading.CurrentProcedureDescriptions, _text(element.ProcedureDescription, report.procedure)),
        (
            heading.Findings,
            [
                item
                for number, one in enumerate(report.observations, start=1)
                for item in _observed(number, one, headers)
            ],
        ),
        (heading.Complications, _text(codes.SCT.ComplicationOfProcedure, report.complications)),
        (heading.Impressions, _text(element.Impression, report.impression)),
        (heading.Recommendations, _text(element.Recommendation, report.recommendation)),
        (_AI_INVOLVEMENT, _text(_AI_INVOLVEMENT, report.ai_involvement)),
    ]
    for name, items in parts:
        if items:
            section = ContainerContentItem(name=_concept(name), relationship_type=_CONTAINS)
            section.ContentSequence = ContentSequence(items)
            yield section


def _text(name: Code | CodedConcept, text: str) -> list[ContentItem]:
    said = plain_text(text).strip()
    return [TextContentItem(name=_concept(name), value=said, relationship_type=_CONTAINS)] if said else []


def _observed(number: int, one: Observation, headers: dict[str, Dataset]) -> Iterator[ContentItem]:
    """A finding in words, with its images, and in code, with its site. Viewers write them one after the other."""
    said = "" if one.probability is None else f" [proposed by AI, probability {one.probability:.1%}]"
    text = f"({number}) {plain_text(one.text or one.label)}{said}"
    words = TextContentItem(name=_concept(codes.DCM.Finding), value=text, relationship_type=_CONTAINS)
    if one.evidence:
        words.ContentSequence = ContentSequence(
            [_image(image, headers[image.sop_instance_uid]) for image in one.evidence]
        )
    yield words
    if one.label:
        meaning = term(one.label)
        coded = CodeContentItem(name=_concept(codes.DCM.Finding), value=meaning.finding, relationship_type=_CONTAINS)
        if meaning.site:
            site = CodeContentItem(
                name=_concept(codes.SCT.FindingSite), value=meaning.site, relationship_type=_PROPERTY
            )
            coded.ContentSequence = ContentSequence([site])
        yield coded


def _image(evidence: Evidence, header: Dataset) -> ImageContentItem:
    return ImageContentItem(
        name=_concept(codes.DCM.BestIllustrationOfFinding),
        referenced_sop_class_uid=header.SOPClassUID,
        referenced_sop_instance_uid=header.SOPInstanceUID,
        referenced_frame_numbers=[evidence.frame_number] if is_multi_frame(header) else None,
        relationship_type=RelationshipTypeValues.INFERRED_FROM,
    )
