"""A frame: its picture, what was found on it, and what the network takes it for."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, Float, Integer, List, Nested, String
from apiflask.validators import Range
from flask import Response
from PIL import Image

from monai_label_app.web.api.content import described, encoded, unchanging
from monai_label_app.web.evidence import warnings
from monai_label_app.web.preparation import in_words
from monai_label_app.web.services import Services

FRAME = "/images/<uid>/frames/<int:number>"
"""A frame's address: the SOP Instance UID of its image, and its number, from 1."""


class ArtifactSchema(Schema):
    """A thing on a frame that is no tissue."""

    name = String(required=True)
    outline = List(List(Float()), required=True, metadata={"description": "corners (x, y) in pixels of the frame"})
    removed = String(required=True, metadata={"description": "what was done to it before the network looked"})


class FrameSchema(Schema):
    """A frame as it came, and as the network saw it."""

    width = Integer(required=True)
    height = Integer(required=True)
    artifacts = List(Nested(ArtifactSchema), required=True)
    sentence = String(required=True, metadata={"description": "what was found and removed"})


class PictureChoice(Schema):
    """How large a picture."""

    width = Integer(load_default=None, validate=Range(16, 4096))


class Prediction(Schema):
    """What a network takes a frame for, and what speaks against trusting it."""

    model = String(required=True, metadata={"description": "its version"})
    predicted = String(required=True)
    probabilities = Dict(String(), Float(), required=True)
    warnings = List(String(), required=True)


def create_blueprint(services: Services) -> APIBlueprint:
    """``/images/UID/frames/NUMBER``, its ``picture.jpg`` and its ``prediction``."""
    api, explorer = APIBlueprint("frames", __name__, tag="Frames"), services.explorer

    @api.get(FRAME)
    @api.doc(summary="A frame's size, and what on it is no tissue")
    @api.output(FrameSchema)
    def frame(uid: str, number: int) -> dict[str, Any]:
        picture = explorer.picture(uid, number)
        artifacts = picture.artifacts(explorer.classifier.card.preprocess)
        height, width = picture.pixels.shape[:2]
        return {"width": width, "height": height, "artifacts": artifacts, "sentence": in_words(artifacts)}

    @api.get(f"{FRAME}/picture.jpg")
    @api.input(PictureChoice, location="query")
    @api.doc(summary="A frame, or a thumbnail of it", responses=described("image/jpeg", "The picture."))
    def picture(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make() -> bytes:
            shown = Image.fromarray(explorer.picture(uid, number).pixels)
            if query_data["width"]:
                shown.thumbnail((query_data["width"], shown.height))
            return encoded(shown, "JPEG", quality=90)

        explorer.find(uid, number)
        return unchanging("image/jpeg", make, uid, number, query_data["width"])

    @api.get(f"{FRAME}/prediction")
    @api.doc(summary="What the network takes a frame for")
    @api.output(Prediction)
    def prediction(uid: str, number: int) -> dict[str, Any]:
        seen = explorer.open(uid, number)
        return {
            "model": seen.classifier.version,
            "predicted": seen.glance.predicted,
            "probabilities": seen.glance.probabilities,
            "warnings": warnings(seen.glance.predicted, seen.glance.shares),
        }

    return api
