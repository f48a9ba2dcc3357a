"""Numbers for Prometheus, without anything of a patient."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

REQUESTS = Counter("endolens_requests_total", "Requests that were answered", ["method", "status"])
REQUEST_SECONDS = Histogram("endolens_request_seconds", "Until an answer began", ["method"])
STUDY_SECONDS = Histogram(
    "endolens_study_seconds", "Of the analysis of a study", buckets=(1, 2, 5, 10, 20, 60, 120, 300, 900, 3600, 4 * 3600)
)
STUDY_FAILURES = Counter("endolens_study_failures_total", "Analyses that failed, by what was wrong", ["kind"])
JOBS = Gauge("endolens_jobs_waiting", "Analyses that wait for the one that runs")

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (OSError, "disk or file"),
    (ValueError, "input"),
    (LookupError, "gone"),
    (MemoryError, "memory"),
    (RuntimeError, "network or PACS"),
    (TypeError, "program"),
    (AttributeError, "program"),
)
"""Of errors; one of no kind is how a job that was cancelled ends."""


@contextmanager
def counted() -> Iterator[None]:
    """Count an analysis: how long it took, or why it failed."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        kind = next((name for kind, name in _KINDS if isinstance(error, kind)), None)
        if kind:
            STUDY_FAILURES.labels(kind).inc()
        raise
    STUDY_SECONDS.observe(time.monotonic() - began)


def metrics(waiting: Callable[[], int]) -> Callable[[Request], Response]:
    """The answer to ``/metrics``.

    Args:
        waiting: how many analyses wait.
    """
    JOBS.set_function(waiting)

    def answer(request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return answer
