"""A study's videos, played with what was seen when, and the network opened on the frame at which one is paused."""

from __future__ import annotations

from flask import Blueprint, render_template

from monai_label_app.web.api.studies import summary
from monai_label_app.web.api.videos import summaries
from monai_label_app.web.services import Services


def add_to(pages: Blueprint, services: Services) -> None:
    """``/studies/UID/video``."""

    @pages.get("/studies/<uid>/video")
    def video(uid: str) -> str:
        study, model = services.library.study(uid), services.explorer.classifier
        return render_template(
            "video.html",
            study=summary(study, services.reporting.drafts.states()),
            videos=summaries(study.videos),
            card=model.card,
            version=model.version,
            ohif=services.viewer.address(uid, services.pacs),
            job=services.jobs.of_study(uid),
        )
