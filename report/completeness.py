"""What a report does not say yet and an endoscopy report should, as the ESGE asks of every one; or cannot mean."""

from __future__ import annotations

from collections.abc import Iterable

from report.choices import LOWER, reaches, site_of
from report.examination import ExaminationReport
from report.terms import NORMAL, term

LANDMARKS = ("cecum", "z-line", "pylorus")
"""Sites of which an image shows how far an examination went, and which a classifier may know by a class of its own."""


def landmarks(classes: Iterable[str], seen: Iterable[str]) -> dict[str, bool]:
    """Of the landmarks that classes tell in their normal state: site → whether such a class was seen."""
    told = {label: site_of(label) for label in classes if term(label).finding == NORMAL}
    found = {told[label] for label in seen if label in told}
    return {site: site in found for site in LANDMARKS if site in told.values()}


def missing(report: ExaminationReport, addendum: bool = False) -> list[str]:
    """The required fields that are empty, by name, in the order of a report; and ``sites`` where one of them is a
    place that the kind of examination does not come to.

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
        "sites": all(
            reaches(report.kind, site) for site in (report.extent.key, *(one.site for one in report.observations))
        ),
        "observations": report.observations and all(one.text.strip() for one in report.observations),
        "interventions": report.interventions.strip(),
        "adverse_events": report.adverse_events.strip(),
        "impression": report.impression.strip(),
        "recommendation": report.recommendation.strip(),
    }
    return [name for name, content in said.items() if not content]
