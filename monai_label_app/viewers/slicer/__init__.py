"""The module EndoLens for 3D Slicer, in the folder ``EndoLens``: Slicer runs it, nothing here imports it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent
"""Of the extension, as Slicer's build system takes it."""


_KINDS = frozenset({".py", ".ui", ".png", ".txt"})


def archive() -> bytes:
    """The module's folder as a ZIP file, to be unpacked where Slicer runs."""
    module = FOLDER / "EndoLens"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for file in sorted(module.rglob("*.*")):
            if file.suffix in _KINDS:
                made.write(file, file.relative_to(FOLDER))
    return content.getvalue()
