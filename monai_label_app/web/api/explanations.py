"""Why the network says what it says of a frame: maps as picture, numbers and DICOM, and evidence in words."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Dict, Float, Integer, List, Nested, String
from apiflask.validators import OneOf
from flask import Response
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from explainers import METHODS, heatmap
from monai_label_app.results import algorithm_of
from monai_label_app.web.api.content import described as content
from monai_label_app.web.api.content import encoded, unchanging
from monai_label_app.web.api.frames import FRAME
from monai_label_app.web.api.problems import UNSTORED, not_stored
from monai_label_app.web.evidence import warnings
from monai_label_app.web.explorer import OpenFrame
from monai_label_app.web.services import Services
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Explanation
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, SAVED_VIEWS, HeatmapSeries, heatmap_capture

_CAPTURES = {"grad-cam": (GRAD_CAM, HEATMAPS), "guided-grad-cam": (GUIDED_GRAD_CAM, GUIDED_HEATMAPS)}


class Choice(Schema):
    """A layer and a class; by default the model's target layer and the predicted class."""

    layer = String(load_default=None)
    label = String(data_key="class", load_default=None)


class MapChoice(Choice):
    """A map."""

    method = String(load_default="grad-cam", validate=OneOf(list(METHODS)))
    compared_with = String(load_default=None, metadata={"description": "a class whose map shares the scale"})


class CaptureChoice(Choice):
    """A map that DICOM has a name for."""

    method = String(
        load_default="grad-cam", validate=OneOf(list(_CAPTURES), error="of {choices} there are Secondary Captures")
    )


class Capture(Schema):
    """A Secondary Capture of the study."""

    sop_instance_uid = String(required=True)
    series_instance_uid = String(required=True)
    stored = Boolean(required=True, metadata={"description": "it is new; otherwise it was there already"})


class Outline(Schema):
    """A region, in pixels of the frame; (0, 0) is the outer corner of the first."""

    contour = List(List(Float()), required=True)
    box = List(Float(), required=True)


class EvidenceSchema(Schema):
    """What a Grad-CAM says, in words and numbers."""

    layer = String(required=True)
    label = String(data_key="class", required=True)
    probability = Float(required=True)
    sentence = String(required=True)
    warnings = List(String(), required=True)
    shares = Dict(String(), Float(), required=True, metadata={"description": "of the evidence, on each artifact"})
    regions = List(Nested(Outline), required=True)
    width = Integer(required=True)
    height = Integer(required=True)


def create_blueprint(services: Services) -> APIBlueprint:
    """``/images/UID/frames/NUMBER/evidence``, ``…/explanation`` and ``…/captures``."""
    api, explorer = APIBlueprint("explanations", __name__, tag="Explanations"), services.explorer
    api.register_error_handler(OSError, not_stored)

    @api.get(f"{FRAME}/evidence")
    @api.input(Choice, location="query")
    @api.doc(summary="What a class is read from, in words and numbers")
    @api.output(EvidenceSchema)
    def evidence(uid: str, number: int, query_data: dict[str, Any]) -> dict[str, Any]:
        seen = explorer.open(uid, number)
        found = seen.evidence(*_choose(seen, query_data))
        return {**vars(found), "sentence": found.sentence, "warnings": warnings(found.label, found.shares)}

    @api.get(f"{FRAME}/explanation.png")
    @api.input(MapChoice, location="query")
    @api.doc(summary="A map in colours, to lay over its frame", responses=content("image/png", "Clear where 0."))
    def png(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        return mapped("image/png", uid, number, query_data, _coloured)

    @api.get(f"{FRAME}/explanation.npy")
    @api.input(MapChoice, location="query")
    @api.doc(summary="A map as numbers", responses=content("application/x-npy", "float32 (height, width), 0 to 1."))
    def npy(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        return mapped("application/x-npy", uid, number, query_data, _numbers)

    @api.get(f"{FRAME}/explanation.dcm")
    @api.input(CaptureChoice, location="query")
    @api.doc(summary="A map over its frame", responses=content("application/dicom", "A Secondary Capture."))
    def dcm(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        seen, name = explorer.open(uid, number), query_data["method"]
        look = (name, *_choose(seen, query_data))

        def make() -> bytes:
            stream = io.BytesIO()
            capture(seen, uid, number, *look, _CAPTURES[name][1], number).save_as(stream, enforce_file_format=True)
            return stream.getvalue()

        return unchanging("application/dicom", make, uid, number, seen.classifier.fingerprint, *look)

    @api.post(f"{FRAME}/captures")
    @api.input(CaptureChoice, location="json")
    @api.doc(
        summary="Store a map over its frame with the study, in the series of saved views; the same view is stored once",
        responses=UNSTORED,
    )
    @api.output(Capture, 201)
    def save(uid: str, number: int, json_data: dict[str, Any]) -> dict[str, Any]:
        seen, name = explorer.open(uid, number), json_data["method"]
        study = services.library.study(str(explorer.instance(uid).header.StudyInstanceUID))
        place = 1 + sum(one.header.get("SeriesNumber") == SAVED_VIEWS.number for one in study.instances)
        made = capture(seen, uid, number, name, *_choose(seen, json_data), SAVED_VIEWS, place)
        return {
            "sop_instance_uid": str(made.SOPInstanceUID),
            "series_instance_uid": str(made.SeriesInstanceUID),
            "stored": bool(services.library.store([made])),
        }

    def capture(
        seen: OpenFrame, uid: str, number: int, name: str, layer: str, label: str, series: HeatmapSeries, place: int
    ) -> Dataset:
        return heatmap_capture(
            explorer.instance(uid).read(),
            number,
            heatmap.overlay(seen.picture.pixels, seen.look(name, layer, label)),
            Explanation(_CAPTURES[name][0], layer, label, seen.glance.probabilities[label]),
            algorithm_of(seen.classifier),
            instance_number=place,
            series=series,
            colours=heatmap.colourise(np.linspace(0, 1, 256)),
        )

    def mapped(
        kind: str, uid: str, number: int, chosen: dict[str, Any], write: Callable[[NDArray[np.float32]], bytes]
    ) -> Response:
        seen = explorer.open(uid, number)
        look = (chosen["method"], *_choose(seen, chosen), chosen["compared_with"])
        key = (uid, number, seen.classifier.fingerprint, *look)
        return unchanging(kind, lambda: write(seen.look(*look)), *key)

    return api


def _choose(seen: OpenFrame, chosen: dict[str, Any]) -> tuple[str, str]:
    return chosen["layer"] or seen.classifier.card.target_layer, chosen["label"] or seen.glance.predicted


def _coloured(saliency: NDArray[np.float32]) -> bytes:
    # With a palette, a picture is made, sent and shown in a fraction of the time.
    values = np.linspace(0, 1, 256)
    picture = Image.fromarray(np.rint(255 * saliency).astype(np.uint8), "P")
    picture.putpalette(heatmap.colourise(values).tobytes())
    opacity = np.rint(255 * np.minimum(1, 2 * values)).astype(np.uint8)  # as heatmap.overlay has it
    return encoded(picture, "PNG", compress_level=1, transparency=opacity.tobytes())


def _numbers(saliency: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, saliency)
    return stream.getvalue()
