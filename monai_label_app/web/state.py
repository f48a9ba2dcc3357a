"""How far a study has come on its way from images to a signed report."""

from __future__ import annotations

from monai_label_app.study import Study
from report.structured_report import is_findings_report

NEW, ANALYSED, DRAFT, SIGNED = STATES = ("new", "analysed", "report draft", "signed")


def state_of(study: Study) -> str:
    """One of :data:`STATES`: ``analysed`` once the study holds findings of ours."""
    return ANALYSED if any(is_findings_report(one.header) for one in study.instances) else NEW
