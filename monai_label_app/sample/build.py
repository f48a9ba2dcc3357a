"""Make the sample study anew: ``endolens demo --rebuild``."""

from __future__ import annotations

import io
import shutil

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from monai_label_app.sample import STUDY
from monai_label_app.sample.frames import study_frames
from report.endoscopic_image import Examination, Still, endoscopic_image, study_of

_EXAMINATION = Examination(
    patient_id="ENDOLENS-SAMPLE",
    patient_name="Sample^Synthetic",
    study_date="20260105",
    study_time="101500",
    study_description="Colonoscopy, synthetic sample",
)
_JPEG_QUALITY = 92


def write_study() -> None:
    """Write the sample study: the frames as JPEG-compressed VL Endoscopic Images, as a scope writes them."""
    stills = [_compressed(frame) for _, frame, _ in study_frames()]
    examination = study_of(_EXAMINATION, [still.fingerprint for still, _ in stills])
    shutil.rmtree(STUDY, ignore_errors=True)
    STUDY.mkdir()
    for number, (still, jpeg) in enumerate(stills, start=1):
        image = endoscopic_image(still, examination, number)
        _use_jpeg(image, jpeg)
        image.save_as(STUDY / f"still_{number:04d}.dcm", enforce_file_format=True)


def _compressed(frame: NDArray[np.uint8]) -> tuple[Still, bytes]:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=_JPEG_QUALITY, subsampling="4:2:2")
    jpeg = content.getvalue()
    return Still(frame, lossy_ratio=frame.nbytes / len(jpeg)), jpeg


def _use_jpeg(image: Dataset, jpeg: bytes) -> None:
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image.PhotometricInterpretation = "YBR_FULL_422"
    image.PixelData = encapsulate([jpeg])
    image["PixelData"].is_undefined_length = True
