"""What a report does not say yet and an endoscopy report should, as the ESGE asks of every one."""

from __future__ import annotations

from report.choices import LOWER
from report.examination import ExaminationReport


def missing(report: ExaminationReport, addendum: bool = False) -> list[str]:
    """The required fields that are empty, by name, in the order of a report.

    Bowel preparation is asked for where the kind of examination needs one, and of an addendum what it adds. A blank
    says nothing. :class:`report.language.Language` words each as ``missing.<field>``.
    """
    said = {
        "addendum": report.addendum.strip() or not addendum,
        "kind": report.kind,
        "indication": report.indication.strip(),
        "sedation": report.sedation.key,
        "extent": report.extent.key,
        "preparation": report.kind not in LOWER or report.preparation.total is not None,
        "observations": report.observations and all(one.text.strip() for one in report.observations),
        "interventions": report.interventions.strip(),
        "adverse_events": report.adverse_events.strip(),
        "impression": report.impression.strip(),
        "recommendation": report.recommendation.strip(),
    }
    return [name for name, content in said.items() if not content]
