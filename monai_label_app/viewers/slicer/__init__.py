"""The module EndoLens for 3D Slicer, in the folder ``EndoLens``; Slicer runs it, nothing here imports it."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Of the extension, as Slicer's build system takes it."""
