"""Who is in front of the page: as who logged in, or, where nobody is asked, as they say themselves."""

from __future__ import annotations

from flask import has_request_context, request

from monai_label_app.access.identity import HERE, Identity, of


def reader() -> Identity:
    """Who asks."""
    # Without a server around it, as tests have it, there is no scope and nobody was asked.
    return of(request.environ["asgi.scope"]) if has_request_context() and "asgi.scope" in request.environ else HERE


def author(said: str) -> str:
    """The name that a text or a label is kept under, as :meth:`Identity.author`."""
    return reader().author(said)


def may_sign_as(name: str) -> bool:
    """Whether the reader may sign as a person, given as DICOM writes it."""
    return reader().name in ("", name.rstrip("^"))
