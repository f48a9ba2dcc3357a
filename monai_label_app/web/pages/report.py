"""A study's report: edited, signed, and read once it is signed."""

from __future__ import annotations

from flask import Blueprint, render_template
from pydicom import Dataset

from monai_label_app.study import Study
from monai_label_app.web.api.studies import summary
from monai_label_app.web.pages.dissect import frames_of
from monai_label_app.web.services import Services
from report.attributes import is_own_result
from report.choices import KINDS, LOWER, SEDATIONS, SITES, site_of
from report.language import LANGUAGES
from report.render import patient_data
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, SAVED_VIEWS
from report.terms import TERMS


def add_to(pages: Blueprint, services: Services) -> None:
    """``/studies/UID/report``."""

    @pages.get("/studies/<uid>/report")
    def report(uid: str) -> str:
        found, classes = services.library.study(uid), services.explorer.classifier.card.classes
        labels = list(dict.fromkeys([*classes, *TERMS]))
        # What the page's modules work on, beside the report itself.
        data = {
            "languages": {tag: language.words for tag, language in LANGUAGES.items()},
            "lower": sorted(LOWER),
            "sites": {label: site_of(label) for label in labels},
        }
        header = next((one.header for one in found.images.instances), found.instances[0].header)
        return render_template(
            "report.html",
            study=summary(found, services.reporting.drafts.states()),
            patient=patient_data(header),
            images=_images(found),
            ohif=services.viewer.address(uid, services.pacs),
            languages=LANGUAGES,
            kinds=list(KINDS),
            sites=list(SITES),
            sedations=list(SEDATIONS),
            labels=labels,
            data=data,
        )


def _images(study: Study) -> list[tuple[str, str, int]]:
    """(name, SOP Instance UID, frame) of what can be attached: frames, heatmaps of a target layer, saved views."""
    places = {frame: f"frame {place}" for place, frame in enumerate(frames_of(study), start=1)}
    series = {HEATMAPS.number, GUIDED_HEATMAPS.number, SAVED_VIEWS.number}
    heatmaps = [
        (f"Heatmap of {places.get(_source(one.header), 'a frame')}", str(one.header.SOPInstanceUID), 1)
        for one in study.instances
        if is_own_result(one.header) and one.header.get("SeriesNumber") in series and "Rows" in one.header
    ]
    return [(name.capitalize(), *frame) for frame, name in places.items()] + heatmaps


def _source(heatmap: Dataset) -> tuple[str, int]:
    """SOP Instance UID and number of the frame that a heatmap is of, as far as its header says."""
    for one in heatmap.get("SourceImageSequence") or ():
        return str(one.ReferencedSOPInstanceUID), int(one.get("ReferencedFrameNumber") or 1)
    return "", 0
