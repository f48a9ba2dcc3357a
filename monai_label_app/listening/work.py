"""What is done with a study that was received: it is analysed, and its results are sent, each until it succeeds."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.folder import add_objects
from monai_label_app.frames import in_one_line
from monai_label_app.listening.destinations import Destination
from monai_label_app.listening.receiving import is_full
from monai_label_app.listening.store import Job, Store
from monai_label_app.observed.logs import study_uid
from monai_label_app.observed.metrics import SENDING_FAILURES, failures_counted
from monai_label_app.reading import read_studies
from report.database import reason

PAUSE = 0.5
"""Seconds between two looks at what is due."""

FULL_PAUSE = 5.0
"""Seconds to wait for room on the disk, or for the database."""


@dataclass(frozen=True)
class Patience:
    """How often a job is tried.

    Attributes:
        attempts: after so many it is given up, until a person decides.
        longest: seconds between two of them at most; at first it is one, then twice as many each time.
    """

    attempts: int
    longest: float


class HopelessError(ValueError):
    """Nothing will come of it, however often it is tried; the message is one sentence."""


class _StoppedError(BaseException):
    """The process ends; no Exception, so that nothing takes it for a failure of the study."""


class Worker:
    """Does the jobs of one task, one after the other.

    Args:
        task: of the jobs.
        work: does one, and returns what to say; raises where it cannot be done.
        store: holds the jobs.
        patience: with those that fail.
        ready: whether jobs may be begun now.
        say: gets a sentence on each.
    """

    def __init__(
        self,
        task: str,
        work: Callable[[Job], str],
        store: Store,
        patience: Patience,
        say: Callable[[str], None],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._task, self._work, self._store, self._patience = task, work, store, patience
        self._say, self._ready = say, ready

    def run(self, stop: threading.Event) -> None:
        """Work until stopped."""
        while not stop.is_set():
            job = None
            study_uid.set("")
            try:
                job = self._store.begin(self._task, self._patience.longest) if self._ready() else None
                study_uid.set(job.study if job else "")
                if job is None:
                    stop.wait(PAUSE)
                elif job.attempts >= self._patience.attempts:
                    self._fail(job, f"the process ended in the midst of it, {job.attempts} times", 1)
                else:
                    self._say(self._work(job))
            except _StoppedError:
                assert job
                with suppress(SQLAlchemyError):
                    self._store.put_back(job)
            except Exception as error:
                self._failed(job, error, stop)

    def _failed(self, job: Job | None, error: Exception, stop: threading.Event) -> None:
        if is_full(error):
            why = reason(error) if isinstance(error, SQLAlchemyError) else in_one_line(error)
            self._say(f"{job.study if job else self._task} waits for the disk or the database: {why}")
            with suppress(SQLAlchemyError):
                if job:
                    self._store.put_back(job)
            stop.wait(FULL_PAUSE)
            return
        if job is None:
            raise error
        try:
            self._fail(job, in_one_line(error), 1 if isinstance(error, HopelessError) else self._patience.attempts)
        except Exception as again:
            self._failed(None, again, stop)

    def _fail(self, job: Job, why: str, most: int) -> None:
        dead = self._store.fail(job, why, most)
        then = {True: "given up, see endolens jobs", False: "tried again later", None: "it was dropped or has changed"}
        self._say(f"{job.study}, {job.task}: {why}; {then[dead]}")


class Analysis:
    """Analyses studies as ``endolens analyze`` does.

    Args:
        store: has the images, and gets the results.
        destinations: that the results are to be sent to.
        model, weights: as ``endolens analyze`` takes them.
        wanted: what is written beside heatmaps and findings, as :class:`monai_label_app.results.Wanted` has it.
        stop: ends an analysis in its midst.
    """

    def __init__(
        self,
        store: Store,
        destinations: Sequence[str],
        model: str | None,
        weights: str | None,
        wanted: dict[str, Any],
        stop: threading.Event,
    ) -> None:
        self._store, self._destinations, self._stop = store, destinations, stop
        self._model, self._weights, self._wanted = model, weights, wanted

    def load(self, stop: threading.Event) -> None:
        """Open the model, so that a wrong one is known at the start; ValueError if it cannot be opened."""
        # torch takes seconds to import; objects are received from the first moment.
        from monai_label_app.classifier.classifier import open_classifier

        open_classifier(self._model, self._weights)

    def __call__(self, job: Job) -> str:
        """Analyse a study; what came of it, as a sentence."""
        from monai_label_app.classifier.classifier import open_classifier
        from monai_label_app.results import Wanted
        from monai_label_app.video import footage

        classifier = open_classifier(self._model, self._weights)
        studies, unreadable = read_studies([self._store.received / job.study])
        if not studies:
            raise HopelessError("there is no image to analyse")
        (study,) = studies
        with tempfile.TemporaryDirectory(prefix=".analysis-", dir=self._store.results) as folder:
            wanted = Wanted(**self._wanted)
            result = footage.analyze(
                study, classifier, Path(folder), self._store.journals, progress=self._go_on, wanted=wanted
            )
            # Where a file lies here is nobody's business.
            left_out = [*unreadable, *result.problems]
            problems = "; ".join(one.reason.replace(one.origin, Path(one.origin).stem) for one in left_out)
            if not result.objects:
                raise HopelessError(problems or "no image could be analysed")
            add_objects((dcmread(path) for path in result.objects), self._store.results)
            results = [path.stem for path in result.objects]
        counts = self._store.analysed(job, results, problems, self._destinations)
        if not counts and self._store.discard(job.study):
            return f"{job.study} has changed while it was analysed, and is analysed again"
        footage.forget(study, classifier, self._store.journals, footage.RATE)
        if not counts:
            return f"{job.study} was dropped while it was analysed"
        return (
            f"{job.study} is analysed: {len(result.frames)} frames, {len(results)} results{problems and '; '}{problems}"
        )

    def _go_on(self, frames: int) -> None:
        if self._stop.is_set():
            raise _StoppedError


class Sending:
    """Sends the results of studies to a destination.

    Args:
        store: has the results.
        destination: gets them.
        stop: ends the sending after an object.
    """

    def __init__(self, store: Store, destination: Destination, stop: threading.Event) -> None:
        self._store, self._destination, self._stop = store, destination, stop

    def __call__(self, job: Job) -> str:
        """Send the results of a study that are not there yet."""
        files = self._store.unsent(job)

        def sent(file: Path) -> None:
            self._store.sent(job, file.stem)
            if self._stop.is_set():
                raise _StoppedError

        with failures_counted(SENDING_FAILURES):
            self._destination.send(files, sent)
        if gone := self._store.unsent(job):
            raise HopelessError(f"{len(gone)} results are gone from the disk, such as {gone[0].name}; drop the study")
        self._store.delivered(job)
        return f"{job.study}: {len(files)} results are at {job.task}"
