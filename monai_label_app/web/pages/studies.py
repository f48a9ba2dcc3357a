"""The list of studies, where new ones are added and analysed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template

from monai_label_app.job_queue import Job
from monai_label_app.study import Study
from monai_label_app.web.api.studies import summary
from monai_label_app.web.services import Services
from monai_label_app.web.state import STATES


def add_to(pages: Blueprint, services: Services) -> None:
    """``/``."""

    def row(study: Study, reports: Mapping[str, str], jobs: Mapping[str, Job]) -> dict[str, Any]:
        return {
            **summary(study, reports),
            "frames": study.images.frame_count,
            "ohif": services.viewer.address(study.uid, services.pacs),
            "job": jobs.get(study.uid),
        }

    @pages.get("/")
    def studies() -> str:
        reports = services.reporting.drafts.states()
        jobs = services.jobs.unended()
        rows = [row(study, reports, jobs) for study in services.library.studies() if study.watchable]
        rows.sort(key=lambda one: (one["date"], one["uid"]), reverse=True)
        return render_template("studies.html", studies=rows, states=STATES, pacs=services.pacs)
