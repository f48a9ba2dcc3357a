"""Studies and their images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Integer, List, Nested, String
from apiflask.validators import OneOf

from monai_label_app.study import Study
from monai_label_app.web.services import Services
from monai_label_app.web.state import STATES, state_of
from report.attributes import words


class ImageSummary(Schema):
    """An image of a study."""

    sop_instance_uid = String(required=True)
    frames = Integer(required=True)


class StudySummary(Schema):
    """A study and its images."""

    uid = String(required=True)
    patient = String(required=True)
    patient_id = String(required=True)
    date = String(required=True)
    description = String(required=True)
    state = String(required=True, validate=OneOf(STATES))
    images = List(Nested(ImageSummary), required=True)
    videos = Integer(required=True, metadata={"description": "recordings and clips"})


def create_blueprint(services: Services) -> APIBlueprint:
    """``/studies``."""
    api = APIBlueprint("studies", __name__, tag="Studies")

    @api.get("/studies")
    @api.doc(summary="Every study with endoscopy images")
    @api.output(StudySummary(many=True))
    def listing() -> list[dict[str, Any]]:
        reports = services.reporting.drafts.states()
        return [summary(study, reports) for study in services.library.studies() if study.watchable]

    @api.get("/studies/<uid>")
    @api.doc(summary="One study")
    @api.output(StudySummary)
    def study(uid: str) -> dict[str, Any]:
        return summary(services.library.study(uid), services.reporting.drafts.states())

    return api


def summary(study: Study, reports: Mapping[str, str]) -> dict[str, Any]:
    """A study for people to read: patient, date, how far it has come, images.

    Args:
        study: with one object at least.
        reports: as :meth:`report.drafts.Drafts.states`.
    """
    header = study.instances[0].header
    return {
        "uid": study.uid,
        "patient": str(header.get("PatientName", "")).replace("^", " ").strip() or "unnamed patient",
        "patient_id": words(header, "PatientID", "\\"),
        "date": str(header.get("StudyDate", "")),
        "description": words(header, "StudyDescription"),
        "state": state_of(study, reports.get(study.uid)),
        "images": [
            {"sop_instance_uid": str(one.header.SOPInstanceUID), "frames": one.frame_count}
            for one in study.images.instances
        ],
        "videos": len(study.videos),
    }
