"""What a viewer must be told of a video, beyond what the object says itself."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import MPEG4HP41

from monai_label_app.study import Instance


def as_played(header: Dataset) -> Dataset | None:
    """The header of a video with the transfer syntax that it is played in, None of any other object.

    OHIF asks for frames of a video of which it is not told the syntax, or one that no browser plays; archives need not
    tell it. Whatever the object is coded in, this server renders it as H.264.
    """
    if not Instance("", header, lambda: header).plays:
        return None
    told = Dataset()
    told.update(header)
    told.AvailableTransferSyntaxUID = MPEG4HP41
    return told
