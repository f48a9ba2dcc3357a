"""Pages that need no other file: of an evaluation, an audit, a cross-validation, a video."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader


def write_page(template: str, path: Path, **values: Any) -> None:
    """Fill in a template of monai_label_app, e.g. ``classifier/audit.html``.

    It is told when it was ``made``, and ends with the ``problems``, if any.
    """
    templates = Environment(loader=PackageLoader("monai_label_app", "."), autoescape=True)
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    # A file name need not be valid text.
    text = templates.get_template(template).render(made=made, **values)
    path.write_text(text, encoding="utf-8", errors="replace")


def data_address(path: Path) -> str:
    """A PNG file as an address that holds it whole."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
