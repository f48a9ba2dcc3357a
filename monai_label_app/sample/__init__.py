"""A sample model and a sample study, which holds no real image.

``python -m monai_label_app.sample.train`` makes the model anew, of frames such as Kvasir's; ``frames.study_frames()``
draws the study's stills.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "endolens-demo.safetensors"
"""The checkpoint of the demonstration model."""

STUDY = Path(__file__).parent / "study"
"""The folder of the sample study's DICOM stills."""
