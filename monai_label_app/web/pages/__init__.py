"""The pages, rendered here and brought to life by small modules of ``static/``.

One module a page; to add one, write it and name it here. ``base.html`` has the navigation.
"""

from __future__ import annotations

from flask import Blueprint

from monai_label_app.web.pages import dissect, objects, report, slicer, studies, video
from monai_label_app.web.services import Services

PAGES = (studies, dissect, video, report, objects, slicer)


def create_blueprint(services: Services) -> Blueprint:
    """All pages; their endpoints are ``pages.<view>``."""
    pages = Blueprint("pages", __name__)
    for page in PAGES:
        page.add_to(pages, services)
    return pages
