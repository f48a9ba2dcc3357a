"""Analyses that run while the server serves: one at a time, each seen as it goes on, and stored in one step."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import dcmread
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.folder import temporary
from monai_label_app.frames import in_one_line
from monai_label_app.job_queue import DONE, FAILED, IN_MEMORY, RUNNING, STORING, Job, JobQueue
from monai_label_app.library import Library
from monai_label_app.observed.logs import study_uid
from monai_label_app.pacs import PacsError
from monai_label_app.reading import with_videos
from monai_label_app.video.footage import analyze, expected

WAITING = 32
"""Jobs that may wait for the one that runs."""

LOOK_SECONDS = 1.0
"""Time between two looks for a job that another server was asked for."""

TOLD_SECONDS = 0.5
"""Time between two times that the others are told how far a job is, and whether it was cancelled is asked."""

LIVE_SECONDS = 10.0
"""Time between two times that the others are told that this server works."""

_log = logging.getLogger(__name__)


class TooManyJobsError(Exception):
    """The queue is full; the message is one sentence."""


class _CancelledError(Exception):
    pass


class Jobs:
    """The analyses of a library's studies. Safe for several threads.

    Args:
        library: of the studies; gets the results.
        classifier: loads the network; asked at the start of each job.
        database: of the jobs. Servers of one address share it, and each job is done by one of them; without it this
            server has its own, and what waits ends with it.

    Raises:
        ValueError: there is no such database, or it cannot be used.
    """

    def __init__(self, library: Library, classifier: Callable[[], Classifier], database: str | None = None) -> None:
        self._library, self._classifier = library, classifier
        self._queue, self._shared = JobQueue(database or IN_MEMORY), database is not None
        self._lock = threading.Lock()
        self._asked, self._closed = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._running: Job | None = None
        self._told = float("-inf")

    def open(self) -> None:
        """Begin to work on what other servers are asked for; without, it begins with the first that this one is."""
        if self._shared:
            self._work_from_now_on()

    def start(self, study: str) -> Job:
        """Queue the analysis of a study; one that waits or runs already is the same job.

        Raises:
            LookupError: there is no such study.
            ValueError: it has no image to analyse.
            TooManyJobsError: too many wait.
            PacsError: the PACS cannot be asked.
        """
        known_study = self._library.study(study)
        if not known_study.watchable:
            raise ValueError("this study has no image that can be analysed")
        if known := self._queue.of_study(study):
            return known
        if self.waiting >= WAITING:
            raise TooManyJobsError(f"{WAITING} studies wait to be analysed already; try again when one is done")
        job = self._queue.add(study, known_study.images.frame_count)
        self._work_from_now_on()
        self._asked.set()
        return job

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.waiting

    def get(self, key: str) -> Job:
        """A job as it stands now; LookupError if there is none of this key."""
        job, running = self._queue.get(key), self._running
        # The others are told less often.
        return replace(job, done=running.done) if running and running.key == key and job.state == RUNNING else job

    def of_study(self, study: str) -> Job | None:
        """The job of a study that waits or runs."""
        return self._queue.of_study(study)

    def unended(self) -> dict[str, Job]:
        """Study → its job that waits or runs."""
        return self._queue.unended()

    def cancel(self, key: str) -> Job:
        """End a job, as :meth:`monai_label_app.job_queue.JobQueue.cancel`."""
        return self._queue.cancel(key)

    def close(self) -> None:
        """Let go of the job that runs, which another server may begin anew; one that stores comes to its end."""
        self._closed.set()
        self._asked.set()
        with suppress(SQLAlchemyError):  # then it is known to the others by its silence
            self._queue.put_back()
        for thread in self._threads:
            thread.join()

    def _work_from_now_on(self) -> None:
        with self._lock:
            if not self._threads:
                self._threads = [
                    threading.Thread(target=loop, name="analysis", daemon=True) for loop in (self._work, self._live)
                ]
                for thread in self._threads:
                    thread.start()
                # Python would stop it in the midst of torch's own threads, and abort.
                atexit.register(self.close)

    def _live(self) -> None:
        while not self._closed.wait(LIVE_SECONDS):
            with suppress(SQLAlchemyError):
                self._queue.live()

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                job = self._queue.take()
            except SQLAlchemyError:
                _log.warning("the database of analyses does not answer")
                job = None
            if job is None:
                self._asked.wait(LOOK_SECONDS if self._shared else None)
                self._asked.clear()
                continue
            study_uid.set(job.study)
            self._running, self._told = job, float("-inf")
            try:
                self._do(job)
            except SQLAlchemyError:
                _log.exception("the database of analyses does not answer; the analysis is begun anew later")
            self._running = None

    def _do(self, job: Job) -> None:
        try:
            self._run(job)
        except _CancelledError:
            pass
        except (PacsError, ValueError, LookupError, OSError) as error:
            self._end(job, FAILED, in_one_line(error))
        except SQLAlchemyError:
            raise
        except Exception as error:
            _log.exception("an analysis failed")
            self._end(job, FAILED, f"the analysis failed: {in_one_line(error)}")

    def _run(self, job: Job) -> None:
        def progress(frames: int) -> None:
            assert self._running
            # Stills of videos are looked at once more.
            self._go_on(done=min(self._running.done + frames, self._running.frames))

        with temporary() as folder:
            study, unreadable = with_videos(self._library.study(job.study), folder)
            self._go_on(at_once=True, frames=expected(study))
            result = analyze(study, self._classifier(), folder, folder, progress=progress)
            # Where a file lies on the server is nobody's business.
            left_out = [*unreadable, *result.problems]
            problems = tuple(one.reason.replace(one.origin, Path(one.origin).name) for one in left_out)
            if not (result.frames or study.recordings):
                raise ValueError("; ".join(problems) or "no image could be analysed")
            self._go_on(at_once=True, state=STORING)
            stored = self._library.store(dcmread(path) for path in result.objects)
        self._end(job, DONE, *problems, stored=len(stored))

    def _go_on(self, at_once: bool = False, **changes: Any) -> None:
        """Say how the job that runs stands; _CancelledError if it is to be ended."""
        assert self._running
        self._running = replace(self._running, **changes)
        if self._closed.is_set() and self._running.state != STORING:
            raise _CancelledError
        if at_once or time.monotonic() - self._told >= TOLD_SECONDS:
            self._told = time.monotonic()
            if not self._queue.change(self._running.key, **{**changes, "done": self._running.done}):
                raise _CancelledError

    def _end(self, job: Job, state: str, *problems: str, stored: int = 0) -> None:
        assert self._running
        self._queue.change(job.key, state=state, done=self._running.done, problems=list(problems), stored=stored)
