"""What a viewer must be told of a video, beyond what the object says itself."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import (
    MPEG4HP41,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VideoEndoscopicImageStorage,
)

from monai_label_app.study import Instance

_PLAYED = frozenset(
    {VideoEndoscopicImageStorage, SecondaryCaptureImageStorage, MultiFrameTrueColorSecondaryCaptureImageStorage}
)
"""SOP classes that OHIF plays, of those that are read here; a long object of another it shows frame by frame."""


def is_played(instance: Instance) -> bool:
    """Whether OHIF plays an object as a video."""
    return instance.plays and instance.header.SOPClassUID in _PLAYED


def as_played(header: Dataset) -> Dataset | None:
    """The header of a video with the transfer syntax that it is played in, None of any other object.

    OHIF asks for single frames of a video of which it is told no syntax, which an archive need not tell, or one that no
    browser plays. Whatever the object is coded in, this server renders it as H.264.
    """
    if not is_played(Instance("", header, lambda: header)):
        return None
    told = Dataset()
    told.update(header)
    told.AvailableTransferSyntaxUID = MPEG4HP41
    return told
