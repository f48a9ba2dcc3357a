"""OHIF: a built one is served and configured by ``viewer.py``; ``extension/`` is what any OHIF loads at run time."""

from pathlib import Path

from monai_label_app.viewers.ohif.viewer import Viewer, manifest, mended, version

__all__ = ["EXTENSION", "Viewer", "manifest", "mended", "version"]

EXTENSION = Path(__file__).parent / "extension"
"""Folder of the ES modules that put EndoLens into an OHIF; ``extension.js`` is the one that it loads."""
