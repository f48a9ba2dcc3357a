"""A study's frames, and the network opened on one of them."""

from __future__ import annotations

from flask import Blueprint, render_template

from monai_label_app.study import Study
from monai_label_app.web.api.studies import summary
from monai_label_app.web.services import Services

MAX_FRAMES = 2000
"""Most frames of a gallery; of more, every second, third … is shown, which the page says."""


def add_to(pages: Blueprint, services: Services) -> None:
    """``/studies/UID``."""

    @pages.get("/studies/<uid>")
    def dissect(uid: str) -> str:
        study, model = services.library.study(uid), services.explorer.classifier
        frames = frames_of(study)
        step = -(-len(frames) // MAX_FRAMES) or 1
        return render_template(
            "dissect.html",
            study=summary(study, services.reporting.drafts.states()),
            frames=list(enumerate(frames, start=1))[::step],
            total=len(frames),
            step=step,
            card=model.card,
            version=model.version,
            ohif=services.viewer.address(uid, services.pacs),
            job=services.jobs.of_study(uid),
        )


def frames_of(study: Study) -> list[tuple[str, int]]:
    """SOP Instance UID and number of every frame, in the order of the study."""
    return [
        (str(image.header.SOPInstanceUID), number)
        for image in study.images.instances
        for number in range(1, image.frame_count + 1)
    ]
