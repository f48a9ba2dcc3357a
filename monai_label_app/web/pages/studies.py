"""The list of studies, where new ones are added and analysed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template

from monai_label_app.study import Study
from monai_label_app.web.api.studies import summary
from monai_label_app.web.services import Services
from monai_label_app.web.state import STATES


def add_to(pages: Blueprint, services: Services) -> None:
    """``/``."""

    def row(study: Study, reports: Mapping[str, str]) -> dict[str, Any]:
        return {
            **summary(study, reports),
            "frames": study.images.frame_count,
            "ohif": services.viewer.address(study.uid, services.pacs),
            "job": services.jobs.of_study(study.uid),
        }

    @pages.get("/")
    def studies() -> str:
        reports = services.reporting.drafts.states()
        rows = [row(study, reports) for study in services.library.studies() if study.watchable]
        rows.sort(key=lambda one: (one["date"], one["uid"]), reverse=True)
        return render_template("studies.html", studies=rows, states=STATES, pacs=services.pacs)
