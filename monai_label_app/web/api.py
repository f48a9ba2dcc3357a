"""The REST interface under ``/endolens/api/v1``: what the page, the viewers and other programs ask.

Described by ``openapi.json`` beside it. Errors are problem details (RFC 9457).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Dict, Float, Integer, List, Nested, String
from apiflask.validators import OneOf, Range
from flask import Response, request
from PIL import Image

from explainers import METHODS, heatmap
from monai_label_app.analysis import algorithm_of
from monai_label_app.library import Library
from monai_label_app.study import Study
from monai_label_app.web.explorer import WORTH_A_WARNING, Explorer, OpenFrame
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Explanation
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, heatmap_capture

PREFIX = "/api/v1"
PROBLEM = "application/problem+json"

_CAPTURES = {"grad-cam": (GRAD_CAM, HEATMAPS), "guided-grad-cam": (GUIDED_GRAD_CAM, GUIDED_HEATMAPS)}


class Problem(Schema):
    """What was wrong, in a sentence (RFC 9457)."""

    title = String(required=True)
    status = Integer(required=True)
    detail = String(required=True)


class Method(Schema):
    """A way to look, and what its map depends on."""

    name = String(required=True)
    of_layer = Boolean(required=True)
    of_class = Boolean(required=True)


class Model(Schema):
    """The network that is active."""

    name = String(required=True)
    version = String(required=True)
    notice = String(required=True)
    calibrated = Boolean(required=True)
    classes = List(String(), required=True)
    layers = List(String(), required=True, metadata={"description": "in the order of the forward pass"})
    stages = List(String(), required=True, metadata={"description": "the last layer of each size"})
    target_layer = String(required=True)
    methods = List(Nested(Method), required=True)


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
    images = List(Nested(ImageSummary), required=True)


class Prediction(Schema):
    """What a network takes a frame for."""

    predicted = String(required=True)
    probabilities = Dict(String(), Float(), required=True)


class Choice(Schema):
    """A layer and a class; by default the model's target layer and the predicted class."""

    layer = String(load_default=None)
    label = String(data_key="class", load_default=None)


class MapChoice(Choice):
    """A map."""

    method = String(load_default="grad-cam", validate=OneOf(list(METHODS)))
    compared_with = String(load_default=None, metadata={"description": "a class whose map shares the scale"})


class PictureChoice(Schema):
    """How large a picture."""

    width = Integer(load_default=None, validate=Range(16, 4096))


class Outline(Schema):
    """A region, in pixels of the frame; (0, 0) is the outer corner of the first."""

    contour = List(List(Float()), required=True)
    box = List(Float(), required=True)


class Evidence(Schema):
    """What a Grad-CAM says, in words and numbers."""

    layer = String(required=True)
    label = String(data_key="class", required=True)
    probability = Float(required=True)
    sentence = String(required=True)
    warnings = List(String(), required=True)
    artifacts = Dict(String(), Float(), required=True, metadata={"description": "share of the evidence on each"})
    regions = List(Nested(Outline), required=True)
    width = Integer(required=True)
    height = Integer(required=True)


def create_blueprint(library: Library, explorer: Explorer) -> APIBlueprint:
    """The routes, for an app that has handlers for the errors of library and explorer."""
    api = APIBlueprint("api", __name__, url_prefix=PREFIX, tag="EndoLens")
    refusals = {404: "There is no such study or image.", 422: "It cannot be used.", 502: "The PACS does not answer."}

    def answers(route: str, summary: str, content: str = "application/json") -> Callable[[Any], Any]:
        """A GET route with its refusals documented."""
        made: dict[Any, Any] = {
            code: {"description": text, "content": {PROBLEM: {"schema": Problem}}} for code, text in refusals.items()
        }
        if content != "application/json":
            made[200] = {
                "description": summary,
                "content": {content: {"schema": {"type": "string", "format": "binary"}}},
            }
            made[304] = {"description": "It is as the client knows it."}

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            described: Callable[..., Any] = api.doc(summary=summary, responses=made)(view)
            return api.get(route)(described)

        return decorate

    def choose(seen: OpenFrame, chosen: dict[str, Any]) -> tuple[str, str]:
        return chosen["layer"] or seen.classifier.card.target_layer, chosen["label"] or seen.predicted

    @answers("/models", "The networks that can be asked: the active one.")
    @api.output(Model(many=True))
    def models() -> list[dict[str, Any]]:
        used = explorer.classifier
        methods = [{"name": name, "of_layer": one.of_layer, "of_class": one.of_class} for name, one in METHODS.items()]
        card = used.card
        return [
            {
                "name": card.name,
                "version": used.version,
                "notice": card.notice,
                "calibrated": card.temperature != 1,
                "classes": card.classes,
                "layers": used.layers,
                "stages": used.stages,
                "target_layer": card.target_layer,
                "methods": methods,
            }
        ]

    @answers("/studies", "Every study with endoscopy images.")
    @api.output(StudySummary(many=True))
    def studies() -> list[dict[str, Any]]:
        return [described(study) for study in library.studies() if study.images.instances]

    @answers("/studies/<uid>", "One study.")
    @api.output(StudySummary)
    def study(uid: str) -> dict[str, Any]:
        return described(library.study(uid))

    @answers("/images/<uid>/frames/<int:number>/prediction", "What the network takes a frame for.")
    @api.output(Prediction)
    def prediction(uid: str, number: int) -> dict[str, Any]:
        chances = explorer.predict(uid, number)
        return {"predicted": max(chances, key=chances.__getitem__), "probabilities": chances}

    @answers("/images/<uid>/frames/<int:number>/picture.jpg", "A frame, or a thumbnail of it.", "image/jpeg")
    @api.input(PictureChoice, location="query")
    def picture(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make() -> bytes:
            shown = Image.fromarray(explorer.frame(uid, number).pixels)
            if query_data["width"]:
                shown.thumbnail((query_data["width"], query_data["width"]))
            return _encoded(shown, "JPEG", quality=90)

        explorer.instance(uid)
        return _unchanging("image/jpeg", make, uid, number, query_data["width"])

    @answers("/images/<uid>/frames/<int:number>/evidence", "What a class is read from, in words and numbers.")
    @api.input(Choice, location="query")
    @api.output(Evidence)
    def evidence(uid: str, number: int, query_data: dict[str, Any]) -> dict[str, Any]:
        seen = explorer.open(uid, number)
        layer, label = choose(seen, query_data)
        found, shares = seen.regions(layer, label), seen.shares(layer, label)
        height, width = seen.frame.pixels.shape[:2]
        return {
            "layer": layer,
            "label": label,
            "probability": seen.probabilities[label],
            "sentence": sentence(seen, layer, label),
            "warnings": [
                f"{share:.0%} of the evidence for {label} lies on the {name}, not on tissue."
                for name, share in shares.items()
                if share >= WORTH_A_WARNING
            ],
            "artifacts": shares,
            "regions": [{"contour": one.contour.tolist(), "box": one.box} for one in found],
            "width": width,
            "height": height,
        }

    @answers("/images/<uid>/frames/<int:number>/explanation.png", "A map in colours, clear where it is 0.", "image/png")
    @api.input(MapChoice, location="query")
    def explanation_png(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make(seen: OpenFrame, layer: str, label: str) -> bytes:
            saliency = seen.look(query_data["method"], layer, label, query_data["compared_with"]).saliency
            opacity = np.rint(255 * np.minimum(1, 2 * saliency)).astype(np.uint8)  # as heatmap.overlay has it
            coloured = np.dstack([heatmap.colourise(saliency), opacity])
            return _encoded(Image.fromarray(coloured), "PNG", compress_level=1)

        return explained("image/png", uid, number, query_data, make)

    @answers("/images/<uid>/frames/<int:number>/explanation.npy", "A map as float32, 0 to 1.", "application/x-npy")
    @api.input(MapChoice, location="query")
    def explanation_npy(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make(seen: OpenFrame, layer: str, label: str) -> bytes:
            stream = io.BytesIO()
            np.save(stream, seen.look(query_data["method"], layer, label, query_data["compared_with"]).saliency)
            return stream.getvalue()

        return explained("application/x-npy", uid, number, query_data, make)

    @answers("/images/<uid>/frames/<int:number>/explanation.dcm", "A Secondary Capture of a map.", "application/dicom")
    @api.input(MapChoice, location="query")
    def explanation_dcm(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make(seen: OpenFrame, layer: str, label: str) -> bytes:
            if query_data["method"] not in _CAPTURES:
                raise ValueError(f"{query_data['method']} has no DICOM object; there are {', '.join(_CAPTURES)}")
            method, series = _CAPTURES[query_data["method"]]
            saliency = seen.look(query_data["method"], layer, label).saliency
            made = heatmap_capture(
                explorer.instance(uid).read(),
                number,
                heatmap.overlay(seen.frame.pixels, saliency),
                Explanation(method, layer, label, seen.probabilities[label]),
                algorithm_of(seen.classifier),
                instance_number=number,
                series=series,
                colours=heatmap.colourise(np.linspace(0, 1, 256)),
            )
            stream = io.BytesIO()
            made.save_as(stream, enforce_file_format=True)
            return stream.getvalue()

        return explained("application/dicom", uid, number, query_data, make)

    def explained(
        kind: str, uid: str, number: int, chosen: dict[str, Any], make: Callable[[OpenFrame, str, str], bytes]
    ) -> Response:
        seen = explorer.open(uid, number)
        layer, label = choose(seen, chosen)
        key = (uid, number, seen.classifier.fingerprint, kind, layer, label, sorted(map(str, chosen.items())))
        return _unchanging(kind, lambda: make(seen, layer, label), *key)

    return api


def described(study: Study) -> dict[str, Any]:
    """A study for people to read: patient, date, images."""
    header = study.instances[0].header
    return {
        "uid": study.uid,
        "patient": str(header.get("PatientName", "")).replace("^", " ").strip() or "unnamed patient",
        "patient_id": str(header.get("PatientID", "")),
        "date": str(header.get("StudyDate", "")),
        "description": str(header.get("StudyDescription", "")),
        "images": [
            {"sop_instance_uid": str(one.header.SOPInstanceUID), "frames": one.frame_count}
            for one in study.images.instances
        ],
    }


def sentence(seen: OpenFrame, layer: str, label: str) -> str:
    """What the Grad-CAM of a class shows, in one plain sentence."""
    chance, found = seen.probabilities[label], seen.regions(layer, label)
    likely = f"{chance:.1%}" if chance >= 0.001 else "less than 0.1%"
    begin = f"The network {'takes this frame for' if label == seen.predicted else 'gives'} {label}, {likely}"
    if not found:
        return f"{begin}: in {layer} nothing speaks for it."
    height, width = seen.frame.pixels.shape[:2]
    x0, y0, x1, y1 = found[0].box
    place = _place((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
    area = sum(one.area for one in found) / (width * height)
    where = place if len(found) == 1 else f"in {len(found)} regions, the largest {place}"
    return f"{begin}: in {layer} the evidence lies {where}, on {area:.0%} of the picture."


def _place(x: float, y: float) -> str:
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    if not (across or down):
        return "in the middle"
    return f"in the {' '.join(filter(None, (down, across)))} part"


def problem(status: int, title: str, detail: str) -> Response:
    """An error as problem details."""
    content = json.dumps({"title": title, "status": status, "detail": detail})
    return Response(content, status, mimetype=PROBLEM)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _unchanging(kind: str, make: Callable[[], bytes], *key: Any) -> Response:
    """Content that a key stands for: made only if the client does not know it yet."""
    tag = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    known = tag in request.if_none_match
    response = Response(b"" if known else make(), 304 if known else 200, mimetype=kind)
    response.set_etag(tag)
    # Patients' pictures: kept by the reader's own browser alone, and asked after each time.
    response.headers["Cache-Control"] = "private, no-cache"
    return response
