"""UIDs that are derived, not drawn: the same input gives the same instance, today and on another machine."""

from __future__ import annotations

import uuid

from pydicom.uid import UID

_NAMESPACE = uuid.UUID("6f1c4b1e-3f0a-5c55-9a59-0b7b7d0e8a11")


def derive(kind: str, *parts: object) -> UID:
    """Derive a UID under 2.25 (a UUID, PS3.5 B.2) from what an object is and what it is made of.

    Args:
        kind: what is identified, e.g. ``grad-cam instance``.
        parts: everything that makes it another object, e.g. source SOP Instance UID, model version, layer, class.
    """
    # Each part with its length, so that ("a", "bc") and ("ab", "c") differ.
    text = "".join(f"{len(str(part))}:{part}" for part in (kind, *parts))
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, text).int}")
