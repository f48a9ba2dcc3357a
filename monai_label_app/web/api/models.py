"""The networks that can be asked, with their layers, classes and methods."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Integer, List, Nested, String

from explainers import METHODS
from monai_label_app.web.services import Services


class Method(Schema):
    """A way to look, and what its map depends on."""

    name = String(required=True)
    of_layer = Boolean(required=True)
    of_class = Boolean(required=True)


class Model(Schema):
    """A network."""

    name = String(required=True)
    version = String(required=True)
    notice = String(required=True)
    calibrated = Boolean(required=True)
    classes = List(String(), required=True)
    layers = List(String(), required=True, metadata={"description": "in the order of the forward pass"})
    stages = List(String(), required=True, metadata={"description": "the last layer of each size"})
    target_layer = String(required=True)
    test_views = Integer(required=True, metadata={"description": "of a frame, whose mean is the answer"})
    methods = List(Nested(Method), required=True)


def create_blueprint(services: Services) -> APIBlueprint:
    """``/models``."""
    api = APIBlueprint("models", __name__, tag="Models")

    @api.get("/models")
    @api.doc(summary="The networks that can be asked: the active one")
    @api.output(Model(many=True))
    def listing() -> list[dict[str, Any]]:
        used = services.explorer.classifier
        methods = [{"name": name, "of_layer": one.of_layer, "of_class": one.of_class} for name, one in METHODS.items()]
        return [
            {
                "name": used.card.name,
                "version": used.version,
                "notice": used.card.notice,
                "calibrated": used.card.temperature != 1,
                "classes": used.card.classes,
                "layers": used.layers,
                "stages": used.stages,
                "target_layer": used.card.target_layer,
                "test_views": used.card.test_views,
                "methods": methods,
            }
        ]

    return api
