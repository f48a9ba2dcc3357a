"""What a signature makes: the verified report, the same as PDF, and the selection of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydicom import Dataset
from pydicom.uid import EnhancedSRStorage

from report.examination import ExaminationReport, Signature
from report.examination_report import examination_report, report_series
from report.findings import Algorithm
from report.key_objects import attached_images
from report.render import encapsulated_pdf, page, pdf


def signed_documents(
    report: ExaminationReport,
    images: Sequence[Dataset],
    algorithm: Algorithm,
    signature: Signature,
    pictures: Mapping[tuple[str, int], bytes],
    predecessor: Dataset | None = None,
) -> list[Dataset]:
    """Make the documents of a signed report: Enhanced SR, Encapsulated PDF, and Key Object Selection if it has images.

    Made again of the same, they are the same instances.

    Args:
        report: what it says.
        images: headers of its evidence, and if it has none, of any image of the study.
        algorithm: the machine that took part.
        signature: who answers for it.
        pictures: (SOP Instance UID, frame) → JPEG, for the PDF.
        predecessor: the report that this one replaces or follows; its header, or a :func:`reference`, is enough.

    Raises:
        ValueError: images of several studies, evidence that is not among them, no Pango to set the PDF, or no font for
            a letter of it.
    """
    document = examination_report(report, images, algorithm, signature, predecessor)
    content = pdf(page(report, images[0], algorithm, pictures, signature), every_letter=True)
    made: list[Dataset] = [document, encapsulated_pdf(content, report, images, algorithm, signature)]
    if report.evidence:
        uids = dict.fromkeys(one.sop_instance_uid for one in report.evidence)
        shown = [one for one in images if one.SOPInstanceUID in uids]
        made.append(attached_images(report.evidence, shown, algorithm, signature, document.SOPInstanceUID))
    return made


def reference(study: str, uid: str) -> Dataset:
    """As much of a signed report as another's reference to it needs."""
    before = Dataset()
    before.SOPClassUID, before.SOPInstanceUID = EnhancedSRStorage, uid
    before.StudyInstanceUID, before.SeriesInstanceUID = study, report_series(study, uid)
    return before
