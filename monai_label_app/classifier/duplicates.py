"""Pictures that are nearly the same: copies, other sizes of one, neighbours in a video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR = 24
"""Bits of 256 in which the fingerprints of near-duplicates differ at most.

Of 815 real frames, a copy of 160 pixels on the short side, by JPEG of quality 40, differed in up to 15 bits, and no two
of different scenes were nearer than 39. With 64 bits some of those are as near as copies: black corners look alike.
"""

_SIDE = 16
_BLOCK = 1024


def fingerprint(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The difference hash of a frame (H, W, 3): 256 bits, where its grey rises from left to right.

    Source: N. Krawetz, Kind of Like That, 2013, there with 64 bits.
    """
    grey = Image.fromarray(frame).convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(grey)
    return (values[:, 1:] > values[:, :-1]).ravel()


def are_near(ones: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of two lists of fingerprints, (N, 256) and (M, 256), are of near-duplicates: (N, M)."""
    # As +1 and -1 the product of two fingerprints is 256 less twice the bits in which they differ.
    steps, other_steps = (np.where(bits, 1, -1).astype(np.float32) for bits in (ones, others))
    near: NDArray[np.bool_] = steps @ other_steps.T >= ones.shape[1] - 2 * NEAR
    return near


def near_duplicates(fingerprints: NDArray[np.bool_], groups: Sequence[str]) -> list[str]:
    """Join groups of pictures until near-duplicates share one, also where they are so by others between them.

    Args:
        fingerprints: (N, 256), by :func:`fingerprint`.
        groups: the N names of the groups so far.

    Returns:
        The N names after; a joined group is named as the first of its pictures was.
    """
    count = len(groups)
    first: dict[str, int] = {}
    edges = [np.array([(first.setdefault(group, index), index) for index, group in enumerate(groups)]).T]
    for start in range(0, count, _BLOCK):
        rows, columns = np.nonzero(are_near(fingerprints[start : start + _BLOCK], fingerprints))
        edges.append(np.stack([rows + start, columns]))
    sources, targets = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(sources), np.bool_), (sources, targets)), shape=(count, count))
    _, joined = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    return [names.setdefault(int(component), group) for component, group in zip(joined, groups, strict=True)]
