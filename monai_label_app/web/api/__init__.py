"""The REST interface under ``/endolens/api/v1``: what the page, the viewers and other programs ask.

One module a subject, each with its schemas and a ``create_blueprint``; to add one, write it and name it here. Described
by ``openapi.json`` beside it. Errors are problem details (RFC 9457), as :mod:`problems` makes them.
"""

from __future__ import annotations

from flask import Blueprint

from monai_label_app.web.api import explanations, frames, jobs, labels, models, reports, studies, uploads, videos
from monai_label_app.web.api.content import tag
from monai_label_app.web.services import Services

PREFIX = "/api/v1"

SUBJECTS = (models, studies, frames, explanations, uploads, jobs, labels, reports, videos)


def create_blueprint(services: Services) -> Blueprint:
    """All subjects; their endpoints are ``api.<subject>.<view>``."""
    api = Blueprint("api", __name__, url_prefix=PREFIX)
    api.after_request(tag)
    for subject in SUBJECTS:
        api.register_blueprint(subject.create_blueprint(services))
    return api
