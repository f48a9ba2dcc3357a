"""What an analysis proposes for the report of the examination: its images, and a draft."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pydicom import Dataset, dcmread

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import frames, in_one_line
from monai_label_app.results import StudyResult, Wanted, algorithm_of, write
from monai_label_app.study import Problem, Study
from report.examination import Evidence, ExaminationReport
from report.examination_report import examination_report
from report.findings import Finding, Footage
from report.key_objects import key_objects
from report.render import encapsulated_pdf, page, pdf
from report.suggest import draft, examined, suggest


def propose(
    study: Study,
    result: StudyResult,
    findings: Sequence[Finding],
    objects: Sequence[Dataset],
    classifier: Classifier,
    wanted: Wanted,
    folder: Path,
    footage: Footage,
) -> None:
    """Select the images that a report should show, and draft it."""
    suggestions, algorithm = suggest(findings, segments=footage.segments), algorithm_of(classifier)
    shown = []
    for one in (suggestion.finding for suggestion in suggestions):
        shown += [Evidence(one.sop_instance_uid, one.frame_number), *map(Evidence, one.captures[:1])]
    headers = {one.SOPInstanceUID: one for one in objects}
    images = [headers[uid] for uid in dict.fromkeys(one.sop_instance_uid for one in shown)]
    if wanted.key_images:
        reasons = "; ".join(one.reason for one in suggestions)
        write(key_objects(shown, images, algorithm, f"{reasons}."), folder / "key-objects", result.objects)
    if wanted.report:
        frames = len(result.frames) - sum(bool(one.still) for one in footage.segments)
        report = draft(suggestions, algorithm, examined(images[0]), frames, frames, footage)
        write(examination_report(report, images, algorithm), folder / "report", result.objects)
        content = None
        try:
            content = pdf(page(report, images[0], algorithm, _pictures(report, study, folder)))
        except ValueError as error:
            result.problems.append(Problem(study.uid, f"the report of {study.uid} has no PDF: {in_one_line(error)}"))
        else:
            document = encapsulated_pdf(content, report, images, algorithm)
            write(document, folder / "report", result.objects)
        from report.fhir import fhir_bundle  # a third of a second to import, which a server has no need of to start

        result.fhir = fhir_bundle(report, images, algorithm, pdf=content).model_dump_json(indent=1)


def _pictures(report: ExaminationReport, study: Study, folder: Path) -> dict[tuple[str, int], bytes]:
    """The evidence of a report as JPEG, read again: an analysis keeps no pixels."""
    instances = {str(one.header.SOPInstanceUID): one for one in study.instances}
    pictures = {}
    for one in report.evidence:
        uid = one.sop_instance_uid
        dataset = instances[uid].read() if uid in instances else dcmread(folder / "heatmaps" / f"{uid}.dcm")
        frame = next(frames(dataset, uid, one.frame_number))
        stream = io.BytesIO()
        Image.fromarray(frame.pixels).save(stream, "JPEG", quality=90)
        pictures[uid, one.frame_number] = stream.getvalue()
    return pictures
