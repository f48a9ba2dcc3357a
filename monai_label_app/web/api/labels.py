"""What doctors say a frame shows: labels of the MONAI Label datastore."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Float, Integer, List, String

from monai_label_app.corrections import Correction, parse
from monai_label_app.web.api.frames import FRAME
from monai_label_app.web.reader import author
from monai_label_app.web.services import Services


class NewLabel(Schema):
    """What a reader says of a frame."""

    label = String(data_key="class", required=True)
    by = String(required=True, metadata={"description": "the reader's name"})
    region = List(
        List(Float()), load_default=list, metadata={"description": "polygon of [x, y], in pixels of the frame"}
    )
    comment = String(load_default="")
    model = String(load_default="", metadata={"description": "name and version of the model that the reader saw"})


class Label(NewLabel):
    """What a reader said of a frame, and when."""

    frame = Integer(required=True)
    at = String(required=True, metadata={"description": "ISO 8601, UTC"})
    current = Boolean(required=True, metadata={"description": "no later one stands in its place"})


def create_blueprint(services: Services) -> APIBlueprint:
    """``/images/UID/frames/NUMBER/labels``."""
    api, explorer = APIBlueprint("labels", __name__, tag="Labels"), services.explorer

    def history(uid: str, number: int) -> list[dict[str, Any]]:
        corrections = services.datastore().corrections
        current = corrections.current()
        mine = [one for one in corrections.all() if (one.image, one.frame) == (uid, number)]
        return [{**asdict(one), "current": one in current} for one in mine]

    @api.get(f"{FRAME}/labels")
    @api.doc(summary="What was said of a frame, the oldest first")
    @api.output(Label(many=True))
    def listing(uid: str, number: int) -> list[dict[str, Any]]:
        explorer.instance(uid)
        return history(uid, number)

    @api.post(f"{FRAME}/labels")
    @api.input(NewLabel, location="json")
    @api.doc(summary="Say what a frame shows; answers as the list does")
    @api.output(Label(many=True), 201)
    def add(uid: str, number: int, json_data: dict[str, Any]) -> list[dict[str, Any]]:
        services.datastore().keep(_correction(explorer.instance(uid).header, number, json_data))
        return history(uid, number)

    def _correction(header: Any, number: int, said: dict[str, Any]) -> Correction:
        content = {
            "class": said["label"],
            "frame": number,
            **{key: said[key] for key in said if key != "label"},
            "by": author(said["by"]),
        }
        return parse(json.dumps(content).encode(), header, explorer.classifier.card.classes)

    return api
