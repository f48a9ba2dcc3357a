"""What a viewer must be told of our Segmentations, beyond what they say themselves."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from report.attributes import is_own_result

_UPRIGHT = [1, 0, 0, 0, 1, 0]
"""Image Orientation (Patient) that OHIF 3.13 takes a picture to have that has none."""


def as_assumed(header: Dataset) -> Dataset | None:
    """The header of a Segmentation of ours with what OHIF assumes of the picture itself, None of any other object.

    OHIF opens no Segmentation without orientation, and asks for it in the metadata alone. The object makes up neither
    orientation nor spacing: only the viewer is told.
    """
    if header.get("SOPClassUID") != SegmentationStorage or not is_own_result(header):
        return None
    orientation, groups, told = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _UPRIGHT
    for shared in header.get("SharedFunctionalGroupsSequence") or []:
        groups.update(shared)
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [Dataset()]
    told.update(header)
    # add_new() puts another element in place; an assignment would change the one that the header holds.
    told.add_new("SharedFunctionalGroupsSequence", "SQ", [groups])
    return told
