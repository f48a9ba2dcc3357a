"""A frame: its picture, and what the network takes it for."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, Float, Integer, String
from apiflask.validators import Range
from flask import Response
from PIL import Image

from monai_label_app.web.api.content import described, encoded, unchanging
from monai_label_app.web.services import Services

FRAME = "/images/<uid>/frames/<int:number>"
"""A frame's address: the SOP Instance UID of its image, and its number, from 1."""


class PictureChoice(Schema):
    """How large a picture."""

    width = Integer(load_default=None, validate=Range(16, 4096))


class Prediction(Schema):
    """What a network takes a frame for."""

    predicted = String(required=True)
    probabilities = Dict(String(), Float(), required=True)


def create_blueprint(services: Services) -> APIBlueprint:
    """``/images/UID/frames/NUMBER``."""
    api, explorer = APIBlueprint("frames", __name__, tag="Frames"), services.explorer

    @api.get(f"{FRAME}/picture.jpg")
    @api.input(PictureChoice, location="query")
    @api.doc(summary="A frame, or a thumbnail of it", responses=described("image/jpeg", "The picture."))
    def picture(uid: str, number: int, query_data: dict[str, Any]) -> Response:
        def make() -> bytes:
            shown = Image.fromarray(explorer.frame(uid, number).pixels)
            if query_data["width"]:
                shown.thumbnail((query_data["width"], query_data["width"]))
            return encoded(shown, "JPEG", quality=90)

        explorer.instance(uid)
        return unchanging("image/jpeg", make, uid, number, query_data["width"])

    @api.get(f"{FRAME}/prediction")
    @api.doc(summary="What the network takes a frame for")
    @api.output(Prediction)
    def prediction(uid: str, number: int) -> dict[str, Any]:
        chances = explorer.predict(uid, number)
        return {"predicted": max(chances, key=chances.__getitem__), "probabilities": chances}

    return api
