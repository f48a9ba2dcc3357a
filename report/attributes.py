"""Attributes that every derived object takes from its source or states in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from highdicom import ContributingEquipment, PatientSexValues, SOPClass
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
)
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)
from pydicom.valuerep import DA, DT, STR_VR, TM, VR, PersonName

from report.choices import role
from report.examination import Signature
from report.findings import Algorithm, Finding
from report.terms import long_string, plain_text, short_text
from report.uids import derive

MANUFACTURER = "EndoLens"

PERCENT = CodedConcept("%", "UCUM", "Percent")
"""Of probabilities."""

CONVERTER = derive("converter of pictures")
"""Instance Creator UID of the images that an analysis made of pictures."""

_RATIO, _METHOD = "LossyImageCompressionRatio", "LossyImageCompressionMethod"
_LOSSY_SYNTAXES: dict[UID, str] = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_2",
    HTJ2K: "ISO_15444_15",
}

_MANDATORY_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2 attributes of patient and study: must stand in a derived object, may be empty."""


def _date(value: Any) -> DA:
    return DA(_matched("[0-9]{8}", value))


def _time(value: Any) -> TM:
    return TM(_matched(r"([0-9]{2}){1,3}|[0-9]{6}\.[0-9]{1,6}", value))


def _matched(form: str, value: Any) -> str:
    """A value in today's form: pydicom also takes those of ACR-NEMA, 2026.01.01 and 10:11:12."""
    if not re.fullmatch(form, str(value).strip()):
        raise ValueError
    return str(value)


_FORMS: dict[str, Callable[[Any], Any]] = {
    "PatientBirthDate": _date,
    "PatientSex": PatientSexValues,
    "StudyDate": _date,
    "StudyTime": _time,
}


def header_of(source: Dataset) -> Dataset:
    """A dataset of its own with the attributes of a source, but its pixels and what is damaged.

    Some devices write values of a wrong length, or text for a number: no reason to show nothing of their images, but no
    derived object repeats them. A sequence in which a value cannot be decoded is left out as a whole.
    """
    header = Dataset()
    for tag in sorted(source.keys()):
        if tag.group != 0x7FE0:
            with suppress(Exception):  # pydicom raises nearly anything
                element = source[tag]
                for item in element.value if element.VR == VR.SQ else ():
                    for _ in item.iterall():
                        pass
                if _has_its_kind(element):
                    header.add(element)
    if hasattr(source, "file_meta"):
        header.file_meta = source.file_meta
    return header


def _has_its_kind(element: DataElement) -> bool:
    """Whether a value is text where DICOM's dictionary has text, and elsewhere of the VR that it says."""
    known = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else element.VR
    return element.VR in known or {element.VR, known} <= STR_VR


def completed(source: Dataset) -> Dataset:
    """The header of a source with every type 2 attribute of patient and study present, empty where it was missing.

    A date, time or sex in a form that DICOM does not know is left empty too, and codes of procedures that are not whole
    and a Burned In Annotation that is neither YES nor NO are left out: a derived object must not repeat them.
    Identifiers and names stay as they are, even too long ones: cut, they would be another's. Text is in Unicode,
    whatever the source used, because a class or a notice may be in another script. The source itself is not changed.
    """
    header = header_of(source)  # decoded, for pydicom writes of what was not looked at the bytes of the source's script
    # add_new() puts another element in place; an assignment would change the one that the source holds.
    header.add_new("SpecificCharacterSet", "CS", "ISO_IR 192")
    for keyword in _MANDATORY_EMPTY:
        if keyword not in header or not _has_its_form(keyword, header[keyword].value):
            header.add_new(keyword, dictionary_VR(keyword), "")
    if header.get("BurnedInAnnotation") not in ("YES", "NO"):
        header.pop("BurnedInAnnotation", None)
    for keyword in (_RATIO, _METHOD):
        if not values(header, keyword):
            header.pop(keyword, None)
    procedures = header.get("ProcedureCodeSequence") or []
    whole = [item for item in procedures if _is_whole(item)]
    if not whole:
        header.pop("ProcedureCodeSequence", None)
    elif len(whole) < len(procedures):
        header.add_new("ProcedureCodeSequence", "SQ", whole)
    return header


def _has_its_form(keyword: str, value: Any) -> bool:
    try:
        return not value or keyword not in _FORMS or _FORMS[keyword](value) is not None
    except (ValueError, TypeError):
        return False


def _is_whole(code: Dataset) -> bool:
    value = code.get("CodeValue") or code.get("LongCodeValue")
    known = (value and code.get("CodingSchemeDesignator")) or code.get("URNCodeValue")
    return bool(known and code.get("CodeMeaning"))


def values(header: Dataset, keyword: str) -> list[Any]:
    """The values of an attribute, none, one or several."""
    value = header.get(keyword)
    every = value if isinstance(value, MultiValue) else [value]
    return [one for one in every if one not in (None, "")]


def words(header: Dataset, keyword: str, between: str = ", ") -> str:
    """The values of an attribute as text; those of an identifier are divided by a backslash, as in DICOM."""
    return between.join(map(str, values(header, keyword)))


def readable(name: str) -> str:
    """A DICOM person name as people write it: first the given name, but the family name where no letters are Latin."""
    parts = PersonName(name)
    latin = " ".join(filter(None, (parts.given_name, parts.middle_name, parts.family_name)))
    return latin or (parts.ideographic or parts.phonetic).replace("^", " ").strip() or name


class _PatientAndStudy(SOPClass):
    """highdicom's knowledge of which attributes are a patient's and a study's, without an object."""

    def __init__(self, header: Dataset) -> None:
        Dataset.__init__(self)
        self.copy_patient_and_study_information(header)


def take_study(made: Dataset, header: Dataset) -> None:
    """Copy what an object lacks of a header's patient and study: highdicom does so for SR and Segmentation alone."""
    made.update({one.tag: one for one in _PatientAndStudy(header) if one.tag not in made})


def acquisition_equipment(header: Dataset) -> list[ContributingEquipment]:
    """The item that names the scope of an image, as highdicom adds it to most objects; none where it is not said."""
    try:
        return [ContributingEquipment.for_image_acquisition(header)]
    except (ValueError, TypeError, AttributeError):
        return []


def processing_equipment(algorithm: Algorithm, description: str) -> ContributingEquipment:
    """The Contributing Equipment item that says which machine made an object (PS3.3 C.12.1.1)."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=long_string(algorithm.name),
        software_versions=long_string(algorithm.version),
        contribution_description=short_text(description),
    )


def compression_history(source: Dataset) -> Dataset:
    """Lossy compression that a source has been through, which an image derived from it inherits (PS3.3 C.7.6.1.1.5)."""
    history = Dataset()
    syntax = source.file_meta.get("TransferSyntaxUID") if hasattr(source, "file_meta") else None
    if source.get("LossyImageCompression") == "01" or syntax in _LOSSY_SYNTAXES:
        history.LossyImageCompression = "01"
        for keyword in (_RATIO, _METHOD):
            if said := values(source, keyword):
                setattr(history, keyword, said)
        if _METHOD not in history and syntax in _LOSSY_SYNTAXES:
            history.LossyImageCompressionMethod = _LOSSY_SYNTAXES[UID(syntax)]
    elif source.get("LossyImageCompression"):
        history.LossyImageCompression = "00"
    return history


def compressed_again(history: Dataset, ratio: float, method: str) -> Dataset:
    """A history with one more lossy compression; what it says only half of, ratio or method, is left out of it.

    The values of the two attributes belong together by their order (PS3.3 C.7.6.1.1.5).
    """
    ratios, methods = values(history, _RATIO), values(history, _METHOD)
    if len(ratios) != len(methods):
        ratios, methods = [], []
    again = Dataset()
    again.LossyImageCompression = "01"
    again.LossyImageCompressionRatio = [*ratios, f"{ratio:.2f}"]
    again.LossyImageCompressionMethod = [*methods, method]
    return again


def reference(instance: Dataset) -> Dataset:
    """An item that refers to an instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = instance.SOPClassUID
    item.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return item


def is_multi_frame(source: Dataset) -> bool:
    """Whether references to a source must say the frame (PS3.3 table 10-3)."""
    return _frame_count(source) > 1


def require_frame(source: Dataset, frame_number: int) -> None:
    """Refuse a frame that an image does not have by ValueError; frames are counted from 1."""
    count = _frame_count(source)
    if not 1 <= frame_number <= count:
        raise ValueError(f"{source.SOPInstanceUID} has no frame {frame_number}: it has {count}")


def _frame_count(source: Dataset) -> int:
    return int(source.get("NumberOfFrames") or 1)


def source_image(source: Dataset, frame_number: int) -> Dataset:
    """An item of the Source Image Sequence: the image, and which frame of it, that another was made of."""
    item = reference(source)
    if is_multi_frame(source):
        item.ReferencedFrameNumber = frame_number
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [CodedConcept(*purpose[:3])]
    return item


def tracking(finding: Finding, algorithm: Algorithm, multi_frame: bool) -> tuple[UID, str]:
    """Tracking UID and identifier of a finding, the same in every object and from run to run."""
    explanation = finding.explanation
    frame = f", frame {finding.frame_number}" if multi_frame else ""
    what = "whole image, no region stands out" if finding.whole_image else f"region {finding.number}"
    uid = derive(
        "region",
        *(finding.sop_instance_uid, finding.frame_number, finding.number),
        *(algorithm.version, explanation.method, explanation.layer, explanation.label),
    )
    return uid, f"{plain_text(explanation.label)}{frame}, {what}"


def device_observer(algorithm: Algorithm) -> ObserverContext:
    """The machine as the observer of a document (TID 1004)."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derive("device", algorithm.name, algorithm.version),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=plain_text(algorithm.name),
        ),
    )


def identification(algorithm: Algorithm, asked: Sequence[str]) -> AlgorithmIdentification:
    """The model and what it was asked (TID 4019), each as ``name: value``; a notice follows."""
    notice = [algorithm.notice] if plain_text(algorithm.notice).strip() else []
    return AlgorithmIdentification(
        name=plain_text(algorithm.name),
        version=plain_text(algorithm.version),
        parameters=[plain_text(one) for one in (*asked, *notice)],
        manufacturer=MANUFACTURER,
    )


def person_observer(signature: Signature) -> ObserverContext:
    """Who signs as the observer of a document (TID 1003)."""
    return ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(
            name=signature.name,
            organization_name=signature.organization,
            role_in_procedure=role(signature.role) if signature.role else None,
        ),
    )


def heading(title: Code) -> ContainerContentItem:
    """The root of a document before it has content: highdicom copies and searches what it is given, over and over."""
    root = ContainerContentItem(name=CodedConcept(*title[:3]))
    root.ContentSequence = ContentSequence()
    return root


def filled(document: Dataset, content: Dataset) -> Dataset:
    """A document that was made of a :func:`heading`, with the content that takes its place."""
    made = Dataset()
    made.update(document)
    made.update(content)
    made.file_meta = document.file_meta
    _settle(made)
    return made


def _settle(made: Dataset) -> None:
    """Say of every item that it is as it will be written, for no attribute of a document has a VR that is in doubt.

    pydicom would look for such ones in every item and all below it, again at each level.
    """
    made.set_original_encoding(False, True, made._character_set)
    for element in made:
        if element.VR == VR.SQ:
            for item in element.value:
                _settle(item)


def dated(made: Dataset, signature: Signature) -> None:
    """Date a document by its signature: made again, as when storing it failed, it is the same to the last bit."""
    made.ContentDate = made.InstanceCreationDate = DA(signature.time.date())
    made.ContentTime = made.InstanceCreationTime = TM(signature.time.time())
    for item in made.ContributingEquipmentSequence:
        if item.PurposeOfReferenceCodeSequence[0].CodeValue != codes.DCM.AcquisitionEquipment.value:
            item.ContributionDateTime = DT(signature.time)


def is_own_result(dataset: Dataset) -> bool:
    """Whether an object is a result of this software, which must never become an input of it."""
    return dataset.get("Manufacturer") == MANUFACTURER


def report_title(signature: Signature | None) -> str:
    """Title of a report's series; of a signed one the time comes first, because lists cut what is long."""
    report = f"{MANUFACTURER} report"
    return f"Signed {signature.time:%Y-%m-%d %H:%M}, {report}" if signature else f"{report}, draft"


def series_description(what: str, algorithm: Algorithm) -> str:
    """Title of a result series, with the model's notice, within the 64 characters of a Long String."""
    return long_string(f"{MANUFACTURER} {what}{', ' if algorithm.notice else ''}{algorithm.notice}")
