"""The report of an examination as a page, as PDF, and as a PDF in DICOM."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from jinja2 import Environment, PackageLoader
from PIL import ImageFile
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DA

from report.attributes import (
    MANUFACTURER,
    acquisition_equipment,
    completed,
    processing_equipment,
    readable,
    reference,
    report_title,
    take_study,
    values,
    words,
)
from report.examination import ExaminationReport, Signature
from report.findings import Algorithm
from report.language import LANGUAGES, Language
from report.terms import long_string
from report.uids import derive

SERIES_NUMBER = 911

_PAGES = Environment(loader=PackageLoader("report"), autoescape=True)


def page(
    report: ExaminationReport,
    study: Dataset,
    algorithm: Algorithm,
    pictures: Mapping[tuple[str, int], bytes],
    signature: Signature | None = None,
) -> str:
    """The report as one HTML page that needs no other file.

    Args:
        report: what it says.
        study: the header of one of its images: patient, date, physician.
        algorithm: the machine that took part.
        pictures: (SOP Instance UID, frame) → JPEG; evidence without one is left out.
        signature: who answers for it; a draft without one, which says so.
    """
    language = LANGUAGES[report.language]
    return _PAGES.get_template("report.html").render(
        report=report,
        language=language,
        words=language.words,
        patient=patient_data(study),
        signed=_signed(signature, language) if signature else "",
        notice=algorithm.notice,
        pictures={key: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() for key, jpeg in pictures.items()},
    )


def patient_data(study: Dataset) -> list[tuple[str, str]]:
    """Patient and examination as a header says them, each by the key of its word (``patient.…``); may be empty."""
    header = completed(study)
    born, day = (
        DA(header[name].value).isoformat() if header[name].value else "" for name in ("PatientBirthDate", "StudyDate")
    )
    return [
        ("name", _people(header, "PatientName")),
        ("id", words(header, "PatientID", "\\")),
        ("born", born),
        ("sex", str(header.PatientSex)),
        ("examined", day),
        ("accession", words(header, "AccessionNumber", "\\")),
        ("referred", _people(header, "ReferringPhysicianName")),
    ]


def _people(header: Dataset, keyword: str) -> str:
    return ", ".join(readable(str(one)) for one in values(header, keyword))


def _signed(signature: Signature, language: Language) -> str:
    who = ", ".join(filter(None, (readable(signature.name), signature.role, signature.organization)))
    return language.said("signed", who=who, time=signature.time.strftime("%Y-%m-%d %H:%M"))


class _BoxedLetters(logging.Handler):
    """Letters that WeasyPrint sets as boxes in this thread, which it tells its log alone."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and str(record.msg).startswith(".notdef"):
            letter, _ = record.args or ("", 0)
            self.found[str(letter)] = None


def pdf(html: str, every_letter: bool = False) -> bytes:
    """A page as PDF. Nothing is fetched for it.

    Args:
        html: the page.
        every_letter: refuse letters that no installed font has, as a signed name must not be boxes.

    Raises:
        ValueError: there are such letters; or Pango, which sets the text, is not installed.
    """
    strict = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except OSError as error:
        raise ValueError("a PDF needs Pango; on Debian: apt install libpango-1.0-0 libpangoft2-1.0-0") from error
    finally:  # WeasyPrint makes Pillow take pictures that are cut off, wherever they are read
        ImageFile.LOAD_TRUNCATED_IMAGES = strict
    log, boxed = logging.getLogger("weasyprint"), _BoxedLetters()
    log.addHandler(boxed)
    try:
        made: bytes = HTML(string=html, url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf()
    finally:
        log.removeHandler(boxed)
    if every_letter and boxed.found:
        raise ValueError(
            f"no font on the server has {' '.join(boxed.found)}; a PDF would show boxes. Install one (on Debian, for "
            "Chinese, Japanese and Korean: apt install fonts-noto-cjk)."
        )
    return made


def encapsulated_pdf(
    content: bytes,
    report: ExaminationReport,
    images: Sequence[Dataset],
    algorithm: Algorithm,
    signature: Signature | None = None,
) -> Dataset:
    """The PDF of a report as a DICOM object of its study.

    Args:
        content: the PDF.
        report: what it says, from which the UID derives.
        images: those that it shows; their headers are enough.
        algorithm: the machine that took part.
        signature: who answers for it; a draft without one.

    Raises:
        ValueError: no image, or images of several studies.
    """
    headers = [completed(image) for image in images]
    if len({header.StudyInstanceUID for header in headers}) != 1:
        raise ValueError("a report needs images, all of one study")
    first = headers[0]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = EncapsulatedPDFStorage
    uid = derive(
        "report as PDF" if signature else "draft as PDF",
        first.StudyInstanceUID,
        algorithm.name,
        algorithm.version,
        astuple(report),
        signature and signature.identity,
    )
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid
    take_study(made, first)
    made.SpecificCharacterSet = first.SpecificCharacterSet
    made.Modality = "DOC"
    made.SeriesInstanceUID = derive("series of reports as PDF", first.StudyInstanceUID, uid)
    made.SeriesNumber = SERIES_NUMBER
    made.SeriesDescription = report_title(signature)
    made.InstanceNumber = 1
    made.Manufacturer = MANUFACTURER
    made.ManufacturerModelName = long_string(algorithm.name)
    made.SoftwareVersions = long_string(algorithm.version)
    made.ConversionType = "SYN"
    made.ContributingEquipmentSequence = [
        *acquisition_equipment(first),
        processing_equipment(algorithm, f"Report. {algorithm.notice}"),
    ]
    made.ContentDate, made.ContentTime = (
        signature.time.strftime(form) if signature else "" for form in ("%Y%m%d", "%H%M%S")
    )
    if signature:
        made.SeriesDate, made.SeriesTime = made.ContentDate, made.ContentTime
    made.AcquisitionDateTime = ""
    made.BurnedInAnnotation = "YES"
    made.VerificationFlag = "VERIFIED" if signature else "UNVERIFIED"
    made.DocumentTitle = LANGUAGES[report.language]["title"]
    title = Dataset()
    code = codes.LN.DiagnosticImagingReport
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code.value, code.scheme_designator, code.meaning
    made.ConceptNameCodeSequence = [title]
    made.SourceInstanceSequence = [reference(header) for header in headers]
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(content)
    made.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return made
