"""What a convolutional network sees: maps of any layer for any class, on any torch CNN.

Knows no DICOM, no HTTP and no endoscopy. The whole way is::

    dissection = dissect(network, images)
    cam = dissection.grad_cam("block5_conv4", target=6)[0]
    regions(heatmap.normalise(geometry.to_source(cam)))
"""

from explainers.dissection import METHODS, Dissection, dissect
from explainers.geometry import Geometry
from explainers.regions import Region, regions

__all__ = ["METHODS", "Dissection", "Geometry", "Region", "dissect", "regions"]
