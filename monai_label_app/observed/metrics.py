"""Numbers for Prometheus, without anything of a patient."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

REQUESTS = Counter("endolens_requests_total", "Requests that were answered", ["method", "status"])
REQUEST_SECONDS = Histogram("endolens_request_seconds", "Until an answer began", ["method"])
STUDY_SECONDS = Histogram(
    "endolens_study_seconds", "Of the analysis of a study", buckets=(1, 2, 5, 10, 20, 60, 120, 300, 900, 3600, 4 * 3600)
)
STUDY_FAILURES = Counter("endolens_study_failures_total", "Analyses that failed, by what was wrong", ["kind"])
JOBS = Gauge("endolens_jobs_waiting", "Analyses that wait for the one that runs")
RECEIVED = Counter("endolens_received_total", "Objects that came to the node, by what became of them", ["outcome"])
SENDING_FAILURES = Counter("endolens_sending_failures_total", "Sendings that failed, by what was wrong", ["kind"])

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
    with failures_counted(STUDY_FAILURES):
        yield
    STUDY_SECONDS.observe(time.monotonic() - began)


@contextmanager
def failures_counted(failures: Counter) -> Iterator[None]:
    """Count why something failed."""
    try:
        yield
    except Exception as error:
        kind = next((name for kind, name in _KINDS if isinstance(error, kind)), None)
        if kind:
            failures.labels(kind).inc()
        raise


def count_waiting(waiting: Callable[[], int]) -> None:
    """Tell how many analyses wait, from now on; no number while the database does not answer."""

    def told() -> float:
        with suppress(SQLAlchemyError):
            return waiting()
        return math.nan

    JOBS.set_function(told)


class _NodeJobs(Collector):
    """Jobs of a node, asked for when they are to be told."""

    def __init__(self, numbers: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self.numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """None while the database does not answer."""
        told = GaugeMetricFamily("endolens_node_jobs", "Jobs of the node that are not done", labels=["task", "state"])
        with suppress(SQLAlchemyError):
            for labels, count in self.numbers().items():
                told.add_metric(labels, count)
            yield told


@contextmanager
def jobs_counted(numbers: Callable[[], Mapping[tuple[str, str], int]]) -> Iterator[None]:
    """Tell how many jobs a node has, until the block is left.

    Args:
        numbers: (analysis or sending, waiting or dead) → how many.
    """
    jobs = _NodeJobs(numbers)
    REGISTRY.register(jobs)
    try:
        yield
    finally:
        REGISTRY.unregister(jobs)


def metrics(request: Request) -> Response:
    """The answer to ``/metrics``."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
