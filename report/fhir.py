"""The report of an examination for systems that speak FHIR R4: a DiagnosticReport with Observations and Media."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir.resources.R4B.bundle import Bundle
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DA

from report.attributes import MANUFACTURER, completed, is_multi_frame, readable, values, words
from report.choices import EXTENT, KINDS, SEDATIONS, SEGMENTS, SITES, TOTAL
from report.examination import Choice, Evidence, ExaminationReport, Observation, Signature
from report.examination_report import report_instance
from report.findings import Algorithm, in_percent
from report.terms import PRIVATE, term
from report.uids import derive

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    PRIVATE: f"urn:oid:{derive('coding scheme', PRIVATE)}",
}
_SCRIPT = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_SEXES = {"M": "male", "F": "female", "O": "other"}


def fhir_bundle(
    report: ExaminationReport,
    images: Sequence[Dataset],
    algorithm: Algorithm,
    signature: Signature | None = None,
    pdf: bytes | None = None,
) -> Bundle:
    """Make the bundle of a report.

    It holds Patient, Device and Procedure, an Observation a finding, one each for sedation, extent and bowel
    preparation as far as they were said, a Media an image, and the DiagnosticReport.

    Args:
        report: what it says.
        images: those that it refers to, all of one study; their headers are enough.
        algorithm: the machine that took part.
        signature: who answers for it; without one the report and its observations are preliminary. An addendum that
            is signed makes the report appended.
        pdf: the report as PDF, to go with it.

    Raises:
        ValueError: no image, images of several studies, or evidence that is not among them.
    """
    headers = {image.SOPInstanceUID: completed(image) for image in images}
    if len({header.StudyInstanceUID for header in headers.values()}) != 1:
        raise ValueError("a report needs images, all of one study")
    missing = [one.sop_instance_uid for one in report.evidence if one.sop_instance_uid not in headers]
    if missing:
        raise ValueError(f"the report shows {missing[0]}, which is not among the images")
    study = next(iter(headers.values()))
    status = "final" if signature else "preliminary"
    patient, device = _entry(study, "Patient", _patient(study)), _entry(study, "Device", _device(algorithm))
    procedure = _entry(study, "Procedure", _procedure(report, patient))
    shown = dict.fromkeys(one for seen in report.observations for one in seen.evidence)
    media = {one: _entry(study, "Media", _media(one, headers[one.sop_instance_uid], patient)) for one in shown}
    # One entry an image that is shown twice with the same words, whatever a machine's reasons were.
    pictures = {entry["fullUrl"]: (entry, one.caption) for one, entry in media.items()}.values()
    seen = [
        _entry(study, "Observation", {"status": status, "subject": _to(patient), "partOf": [_to(procedure)], **said})
        for said in _of_the_procedure(report)
    ]
    seen += [
        _entry(study, "Observation", _observation(number, one, status, patient, device, media))
        for number, one in enumerate(report.observations, start=1)
    ]
    document_uid = report_instance(report, study.StudyInstanceUID, algorithm, signature)
    document: dict[str, Any] = {
        "status": "appended" if signature and report.addendum.strip() else status,
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{document_uid}"}],
        "code": _concept(codes.LN.DiagnosticImagingReport),
        "subject": _to(patient),
        "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study.StudyInstanceUID}"}}],
        "result": [_to(one) for one in seen],
        "media": [_filled(comment=caption, link=_to(entry)) for entry, caption in pictures],
        "conclusion": report.impression,
        "effectiveDateTime": _date(study.StudyDate),
        "resultsInterpreter": [_filled(display=readable(signature.name))] if signature else [],
        "issued": signature.time.astimezone().isoformat() if signature else "",
    }
    if pdf:
        data = base64.b64encode(pdf).decode()
        document["presentedForm"] = [{"contentType": "application/pdf", "data": data}]
    entries = [patient, device, procedure, *(entry for entry, _ in pictures), *seen]
    entries.append(_entry(study, "DiagnosticReport", document))
    return Bundle.model_validate({"resourceType": "Bundle", "type": "collection", "entry": entries})


def _entry(study: Dataset, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    key = uuid.UUID(int=int(derive("FHIR", kind, study.StudyInstanceUID, sorted(map(str, content.items())))[5:]))
    return {"fullUrl": f"urn:uuid:{key}", "resource": _filled(resourceType=kind, **content)}


def _to(entry: dict[str, Any]) -> dict[str, str]:
    return {"reference": entry["fullUrl"]}


def _filled(**values: Any) -> dict[str, Any]:
    """Without what is empty or blank, which FHIR does not allow."""
    blank: tuple[Any, ...] = ("", [], {}, None)
    return {key: one for key, one in values.items() if (one.strip() if isinstance(one, str) else one) not in blank}


def _concept(code: Code | CodedConcept) -> dict[str, Any]:
    coding = {"system": _SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}
    return {"coding": [coding], "text": code.meaning}


def _date(value: Any) -> str:
    day = DA(value) if value else None
    return day.isoformat() if day else ""


def _patient(study: Dataset) -> dict[str, Any]:
    issuer = _filled(display=words(study, "IssuerOfPatientID"))
    number = _filled(value=words(study, "PatientID", "\\"), assigner=issuer)
    return _filled(
        identifier=[number] if "value" in number else [],
        name=[named for name in values(study, "PatientName") for named in _names(str(name))],
        gender=_SEXES.get(study.PatientSex, ""),
        birthDate=_date(study.PatientBirthDate),
    )


def _names(name: str) -> Iterator[dict[str, Any]]:
    """A person name in each of the scripts that DICOM writes it in: Latin, ideographic, phonetic."""
    for script, group in zip(("", "IDE", "SYL"), name.split("="), strict=False):
        family, given, middle, prefix, suffix = (part.strip() for part in (*group.split("^"), *[""] * 4)[:5])
        named = _filled(
            family=family, given=[*given.split(), *middle.split()], prefix=_some(prefix), suffix=_some(suffix)
        )
        if named:
            yield {**named, "extension": [{"url": _SCRIPT, "valueCode": script}]} if script else named


def _some(text: str) -> list[str]:
    return [text] if text else []


def _device(algorithm: Algorithm) -> dict[str, Any]:
    return _filled(
        manufacturer=MANUFACTURER,
        deviceName=[{"name": algorithm.name, "type": "model-name"}],
        version=[{"value": algorithm.version}],
        note=[{"text": algorithm.notice}] if algorithm.notice else [],
    )


def _procedure(report: ExaminationReport, patient: dict[str, Any]) -> dict[str, Any]:
    coded = KINDS.get(report.kind)
    texts = (report.addendum, report.interventions, report.ai_involvement)
    return {
        "status": "completed",
        "subject": _to(patient),
        "code": _filled(**{**(_concept(coded) if coded else {}), "text": report.procedure}),
        "reasonCode": _texts(report.indication),
        "complication": _texts(report.adverse_events),
        "followUp": _texts(report.recommendation),
        "note": [{"text": text} for text in texts if text.strip()],
    }


def _texts(text: str) -> list[dict[str, str]]:
    return [{"text": text}] if text.strip() else []


def _of_the_procedure(report: ExaminationReport) -> Iterator[dict[str, Any]]:
    """Sedation, extent and bowel preparation, as far as they were said."""

    def chosen(name: Code | CodedConcept, choice: Choice, known: Mapping[str, CodedConcept]) -> dict[str, Any]:
        value = _concept(known[choice.key]) if choice.key in known else None
        return {"code": _concept(name), "valueCodeableConcept": value, "note": _texts(choice.remark)}

    for name, choice, known in (
        (codes.SCT.Sedation, report.sedation, SEDATIONS),
        (EXTENT, report.extent, SITES),
    ):
        if choice.key or choice.remark.strip():
            yield chosen(name, choice, known)
    preparation = report.preparation
    if preparation.scores:
        scores = [{"code": _concept(SEGMENTS[name]), "valueInteger": one} for name, one in preparation.scores.items()]
        yield {"code": _concept(TOTAL), "valueInteger": preparation.total, "component": scores}


def _media(one: Evidence, image: Dataset, patient: dict[str, Any]) -> dict[str, Any]:
    frame = f", frame {one.frame_number}" if is_multi_frame(image) else ""
    said = one.caption.strip() or one.reason.strip() or "image"
    return {
        "status": "completed",
        "subject": _to(patient),
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{one.sop_instance_uid}"}],
        "content": {"contentType": "application/dicom", "title": f"{said}{frame}"},
    }


def _observation(
    number: int,
    one: Observation,
    status: str,
    patient: dict[str, Any],
    device: dict[str, Any],
    media: dict[Evidence, dict[str, Any]],
) -> dict[str, Any]:
    meaning, site = term(one.label) if one.label else None, SITES.get(one.site)
    said: dict[str, Any] = {
        "identifier": [{"value": str(number)}],
        "status": status,
        "subject": _to(patient),
        "code": _concept(codes.DCM.Finding),
        "valueCodeableConcept": {**_concept(meaning.finding), "text": one.text or one.label} if meaning else None,
        "valueString": None if meaning else one.text,
        "bodySite": _concept(site) if site else None,
        "derivedFrom": [_to(media[image]) for image in one.evidence],
    }
    if one.probability is not None:
        quantity = {
            "value": in_percent(one.probability),
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        }
        said["component"] = [{"code": _concept(codes.DCM.Probability), "valueQuantity": quantity}]
        said["device"] = _to(device)
    return _filled(**said)
