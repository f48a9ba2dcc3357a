"""``/health/live`` and ``/health/ready``, for what starts a server and sends it requests, and ``/metrics`` beside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from monai_label_app.observed.checks import Check, look
from monai_label_app.observed.metrics import metrics

FRESH_SECONDS = 5.0
"""How long a look counts: who asks without a token must not keep the PACS busy."""


def routes(checks: Mapping[str, Callable[[], Check]]) -> list[Route]:
    """All three.

    Args:
        checks: name → check; may get more.
    """
    return [
        Route("/health/live", live),
        Route("/health/ready", Ready(checks).answer),
        Route("/metrics", metrics),
    ]


async def live(request: Request) -> Response:
    """The process answers, also while all its threads are taken."""
    return JSONResponse({"status": "live"})


class Ready:
    """The answer to ``/health/ready``: 200 if all is well, 503 otherwise; which piece is not, but not why.

    Args:
        checks: name → check.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Check]]) -> None:
        self._checks, self._lock = checks, threading.Lock()
        self._looked, self._found = float("-inf"), dict[str, bool]()

    @property
    def _stale(self) -> bool:
        return time.monotonic() - self._looked > FRESH_SECONDS

    def answer(self, request: Request) -> Response:
        """Look, unless somebody did just now. Runs in a thread."""
        # While one looks, which a PACS may draw out, the others get what was found last.
        if self._stale and self._lock.acquire(blocking=not self._found):
            try:
                if self._stale:
                    self._found = {name: look(check, name).ok for name, check in self._checks.items()}
                    self._looked = time.monotonic()
            finally:
                self._lock.release()
        found = self._found
        ready = all(found.values())
        said = {name: "ok" if ok else "failing" for name, ok in found.items()}
        return JSONResponse({"status": "ready" if ready else "not ready", **said}, 200 if ready else 503)
