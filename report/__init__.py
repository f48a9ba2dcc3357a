"""What the doctor reads and signs: findings, coded terms and the DICOM objects that carry them.

Knows no torch and no HTTP. :func:`read_findings` gives back what a findings report was made of.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from report.structured_report import read_findings

__all__ = ["read_findings"]

# JPEG-LS makes noise larger than it is, and pydicom's encoder leaves no room for that. Such a picture is stored as it
# is, and what the encoder has to say of it, with its traceback, helps nobody.
logging.getLogger("pydicom.pixels.encoders.base").addFilter(
    lambda record: "destination buffer is too small" not in record.getMessage()
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from report import structured_report  # a second to import, which the plain data does not need

    return getattr(structured_report, name)
