"""What a convolutional network sees: maps of any layer for any class, on any torch CNN.

Knows no DICOM, no HTTP and no endoscopy. The whole way is::

    dissection = dissect(network, images, convolutions)
    cam = dissection.grad_cam("block5_conv4", target=6)[0]
    regions(heatmap.normalise(heatmap.resize(cam, image.shape[:2])))
"""

from explainers.dissection import Dissection, dissect
from explainers.regions import Region, regions

__all__ = ["Dissection", "Region", "dissect", "regions"]
