"""A study's frames, and the network opened on one of them."""

from __future__ import annotations

from flask import Blueprint, render_template

from monai_label_app.web.api.studies import summary
from monai_label_app.web.services import Services


def add_to(pages: Blueprint, services: Services) -> None:
    """``/studies/UID``."""

    @pages.get("/studies/<uid>")
    def dissect(uid: str) -> str:
        study, model = summary(services.library.study(uid)), services.explorer.classifier
        frames = [
            (image["sop_instance_uid"], number) for image in study["images"] for number in range(1, image["frames"] + 1)
        ]
        ohif = services.viewer.address(uid, services.pacs)
        return render_template(
            "dissect.html", study=study, frames=frames, card=model.card, version=model.version, ohif=ohif
        )
