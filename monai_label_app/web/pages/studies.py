"""The list of studies."""

from __future__ import annotations

from flask import Blueprint, render_template

from monai_label_app.web.api.studies import summary
from monai_label_app.web.services import Services


def add_to(pages: Blueprint, services: Services) -> None:
    """``/``."""

    @pages.get("/")
    def studies() -> str:
        shown = [
            {**summary(study), "ohif": services.viewer.address(study.uid, services.pacs)}
            for study in services.library.studies()
            if study.images.instances
        ]
        return render_template("studies.html", studies=shown, card=services.explorer.classifier.card)
