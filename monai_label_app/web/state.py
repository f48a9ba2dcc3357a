"""How far a study has come on its way from images to a signed report."""

from __future__ import annotations

from monai_label_app.study import Study
from report.structured_report import is_findings_report

NEW, ANALYSED, DRAFT, UNSTORED, SIGNED = STATES = ("new", "analysed", "report draft", "signed, not stored", "signed")

_OF_REPORT = {"draft": DRAFT, "unstored": UNSTORED, "signed": SIGNED}


def state_of(study: Study, report: str | None) -> str:
    """One of :data:`STATES`.

    Args:
        study: ``analysed`` once it holds findings of ours.
        report: of the study, as :meth:`report.drafts.Drafts.states` has it; None where there is none.
    """
    if report is not None:
        return _OF_REPORT[report]
    return ANALYSED if any(is_findings_report(one.header) for one in study.instances) else NEW
