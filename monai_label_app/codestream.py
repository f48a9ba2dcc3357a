"""Look over a compressed frame before a decoder sees it: decoders paint a cut-off frame grey, or abort the process."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

_LOSSLESS_JPEG = frozenset([JPEGLossless, JPEGLosslessSV1])

_ENDS_WITH_MARKER = frozenset([*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes])
_END = b"\xff\xd9"
_PADDING = 16  # bytes after the end marker that some writers add

_START_OF_SCAN, _START_OF_LOSSLESS_FRAME = 0xDA, 0xC3
_HUFFMAN_TABLE, _RESTART_INTERVAL, _COMMENT = 0xC4, 0xDD, 0xFE
_APPLICATION, _ADOBE = range(0xE0, 0xF0), 0xEE
_HARMLESS = {_HUFFMAN_TABLE, _RESTART_INTERVAL, _COMMENT, *_APPLICATION}
_TRANSFORM, _ADOBE_TRANSFORMS = 11, (b"\0", b"\1")
"""The third of Adobe's, YCCK, is of four components, which no image has here; GDCM ends the process at it."""


def damage(dataset: Dataset, frame_count: int) -> str | None:
    """What makes the compressed frames of an image unfit for a decoder, as the end of a sentence; None if nothing."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in _ENDS_WITH_MARKER:
        return None
    found = 0
    for frame in generate_frames(dataset.PixelData, number_of_frames=frame_count):
        found += 1
        if _END not in frame.rstrip(b"\0")[-_PADDING:]:
            return f"has a truncated frame {found}"
        if syntax in _LOSSLESS_JPEG and not _is_sound_lossless_jpeg(frame, dataset):
            return f"has a damaged frame {found}"
    return None if found == frame_count else f"has {found} of the {frame_count} frames that it announces"


def _is_sound_lossless_jpeg(frame: bytes, dataset: Dataset) -> bool:
    """Whether the header of a lossless JPEG is a chain of segments that agree with the image (ISO 10918-1, B.2).

    GDCM alone decodes these, and ends the process where a header is not what it expects.
    """
    if not frame.startswith(b"\xff\xd8"):
        return False
    position, described = 2, False
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        content = frame[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == _START_OF_SCAN:
            return described
        if marker == _START_OF_LOSSLESS_FRAME and not described:
            described = _describes(content, dataset)
            if not described:
                return False
        elif (
            marker not in _HARMLESS
            or length < 2
            or (marker == _ADOBE and content.startswith(b"Adobe") and content[_TRANSFORM:] not in _ADOBE_TRANSFORMS)
        ):
            return False
    return False


def _describes(content: bytes, dataset: Dataset) -> bool:
    """Whether a start-of-frame segment announces the image's precision, size and samples per pixel."""
    precision, samples = content[0], int(dataset.SamplesPerPixel)
    rows, columns = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    components = [content[index : index + 3] for index in range(6, len(content), 3)]
    return (
        (rows, columns, content[5]) == (dataset.Rows, dataset.Columns, samples)
        and precision <= int(dataset.BitsAllocated)
        and len(components) == samples
        and all(component[1:2] == b"\x11" for component in components)
    )
