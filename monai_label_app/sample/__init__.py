"""A sample model and a sample study that are made by this package alone: no download, no real image.

``python -m monai_label_app.sample.train`` makes the model anew; ``frames.study_frames()`` draws the study's stills.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "endolens-demo.safetensors"
"""The checkpoint of the demonstration model."""

STUDY = Path(__file__).parent / "study"
"""The folder of the sample study's DICOM stills."""
