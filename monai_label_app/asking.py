"""The request that MONAI Label answers just now, for what it calls without saying who asks, and of which image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO

from monai_label_app.access.identity import Identity
from monai_label_app.folder import temporary


@dataclass(frozen=True)
class Asking:
    """A request.

    Attributes:
        who: asks.
        image: that its address names; empty for none. The audit trail has this one.
        ending: what is done when it was answered, or broke off.
    """

    who: Identity
    image: str
    ending: ExitStack


_NOW: ContextVar[Asking | None] = ContextVar("asking", default=None)


def asking() -> Asking | None:
    """The request; None in background tasks, and where there is no server."""
    return _NOW.get()


@contextmanager
def answering(who: Identity, image: str) -> Iterator[None]:
    """Answer a request; its temporary files go with it."""
    with ExitStack() as ending:
        before = _NOW.set(Asking(who, image, ending))
        try:
            yield
        finally:
            _NOW.reset(before)


def temporary_file(suffix: str = "", delete: bool = True) -> IO[bytes]:
    """As :func:`tempfile.NamedTemporaryFile`; what is at its name goes with the request, however that ends."""
    now = asking()
    folder = now.ending.enter_context(temporary()) if now else None
    return tempfile.NamedTemporaryFile(suffix=suffix, dir=folder, delete=delete)
