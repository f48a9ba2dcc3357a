"""Random views of a frame for training: what another scope, hand or lamp would have shown, and never another diagnosis.

An endoscope has no up and no left, its light and colours differ from maker to maker, and pictures are copied at low
resolution. Nothing here cuts out, erases, mixes or bends: a lesion neither goes nor comes.
"""

from __future__ import annotations

from monai.transforms import (
    Compose,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
    RandZoomd,
)

ZOOM = 1.2
"""Largest magnification; what leaves the picture is a twelfth of it at each side."""


def views() -> Compose:
    """The random transform of a dictionary with ``image`` (3, H, W), 0 to 1, and ``allowed`` (1, H, W), 0 or 1.

    Flips, quarter turns, a zoom of at most :data:`ZOOM`, brightness by 20 %, each colour by 6 %, and often the
    resolution of a copied picture. After ``set_random_state(seed)`` the next view is the seed's.
    """
    both = ("image", "allowed")
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandRotate90d(both, prob=0.5, max_k=1),
            RandZoomd(both, prob=0.5, min_zoom=1.0, max_zoom=ZOOM, mode=("bilinear", "nearest")),
            RandScaleIntensityd("image", factors=0.2, prob=1.0),
            RandScaleIntensityd("image", factors=0.06, prob=1.0, channel_wise=True),
            RandSimulateLowResolutiond("image", prob=0.5, upsample_mode="bilinear", zoom_range=(0.4, 1.0)),
        ]
    )
