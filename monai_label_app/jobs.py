"""Analyses that run while the server serves: one at a time, each seen as it goes on, and stored in one step."""

from __future__ import annotations

import atexit
import logging
import queue
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.folder import temporary
from monai_label_app.frames import in_one_line
from monai_label_app.library import Library
from monai_label_app.observed.logs import study_uid
from monai_label_app.pacs import PacsError
from monai_label_app.reading import with_videos
from monai_label_app.video.footage import analyze, expected

WAITING = 32
"""Jobs that may wait for the one that runs."""

REMEMBERED = 200
"""Jobs that can be asked about, the latest."""

QUEUED, RUNNING, STORING = "queued", "running", "storing"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
ENDED = frozenset({DONE, FAILED, CANCELLED})
STATES = (QUEUED, RUNNING, STORING, DONE, FAILED, CANCELLED)

_log = logging.getLogger(__name__)


class TooManyJobsError(Exception):
    """The queue is full; the message is one sentence."""


class TooLateError(Exception):
    """A job that stores its results can no longer be cancelled; the message is one sentence."""


@dataclass(frozen=True)
class Job:
    """The analysis of a study, as it stands.

    Attributes:
        key: names it.
        study: Study Instance UID.
        state: one of :data:`STATES`.
        done, frames: how many of its frames were analysed.
        stored: how many objects are new in the library.
        problems: what was left out, or why it failed, a sentence each.
    """

    key: str
    study: str
    frames: int
    state: str = QUEUED
    done: int = 0
    stored: int = 0
    problems: tuple[str, ...] = ()


class _CancelledError(Exception):
    pass


class Jobs:
    """The analyses of a library's studies. Safe for several threads.

    Args:
        library: of the studies; gets the results.
        classifier: loads the network; asked at the start of each job.
    """

    def __init__(self, library: Library, classifier: Callable[[], Classifier]) -> None:
        self._library, self._classifier = library, classifier
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._worker: threading.Thread | None = None

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
        with self._lock:
            if known := self._open(study):
                return known
            if self.waiting >= WAITING:
                raise TooManyJobsError(f"{WAITING} studies wait to be analysed already; try again when one is done")
            job = Job(secrets.token_hex(16), study, known_study.images.frame_count)
            self._jobs[job.key] = job
            self._forget()
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="analysis", daemon=True)
                self._worker.start()
                # Python would stop it in the midst of torch's own threads, and abort.
                atexit.register(self.close)
        self._waiting.put(job.key)
        return job

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(one.state == QUEUED for one in list(self._jobs.values()))

    def get(self, key: str) -> Job:
        """A job as it stands now; LookupError if there is none of this key."""
        if key not in self._jobs:
            raise LookupError(key)
        return self._jobs[key]

    def of_study(self, study: str) -> Job | None:
        """The job of a study that waits or runs."""
        with self._lock:
            return self._open(study)

    def cancel(self, key: str) -> Job:
        """End a job before it has stored anything; one that has ended stays as it is.

        Raises:
            LookupError: there is none of this key.
            TooLateError: its results are being stored.
        """
        with self._lock:
            job = self.get(key)
            if job.state == STORING:
                raise TooLateError("the analysis is done and its results are being stored")
            if job.state in ENDED:
                return job
            return self._set(key, state=CANCELLED)

    def close(self) -> None:
        """Cancel all jobs and wait for the one that runs; one that stores comes to its end."""
        for key in list(self._jobs):
            with suppress(TooLateError):
                self.cancel(key)
        self._waiting.put(None)
        if self._worker:
            self._worker.join()

    def _open(self, study: str) -> Job | None:
        return next((one for one in self._jobs.values() if one.study == study and one.state not in ENDED), None)

    def _forget(self) -> None:
        for one in list(self._jobs.values()):
            if len(self._jobs) <= REMEMBERED:
                return
            if one.state in ENDED:
                del self._jobs[one.key]

    def _set(self, key: str, **changes: object) -> Job:
        self._jobs[key] = changed = replace(self._jobs[key], **changes)  # type: ignore[arg-type]
        return changed

    def _work(self) -> None:
        while (key := self._waiting.get()) is not None:
            study_uid.set(self._jobs[key].study)
            try:
                self._run(key)
            except _CancelledError:
                pass
            except (PacsError, ValueError, LookupError, OSError) as error:
                self._end(key, FAILED, in_one_line(error))
            except Exception as error:
                _log.exception("an analysis failed")
                self._end(key, FAILED, f"the analysis failed: {in_one_line(error)}")

    def _run(self, key: str) -> None:
        self._go_on(key, state=RUNNING)

        def progress(frames: int) -> None:
            job = self._jobs[key]
            self._go_on(key, done=min(job.done + frames, job.frames))  # stills of videos are looked at once more

        with temporary() as folder:
            study, unreadable = with_videos(self._library.study(self._jobs[key].study), folder)
            self._go_on(key, frames=expected(study))
            result = analyze(study, self._classifier(), folder, folder, progress=progress)
            # Where a file lies on the server is nobody's business.
            left_out = [*unreadable, *result.problems]
            problems = tuple(one.reason.replace(one.origin, Path(one.origin).name) for one in left_out)
            if not (result.frames or study.recordings):
                raise ValueError("; ".join(problems) or "no image could be analysed")
            self._go_on(key, state=STORING)
            stored = self._library.store(dcmread(path) for path in result.objects)
        self._end(key, DONE, *problems, stored=len(stored))

    def _go_on(self, key: str, **changes: object) -> None:
        with self._lock:
            if self._jobs[key].state == CANCELLED:
                raise _CancelledError
            self._set(key, **changes)

    def _end(self, key: str, state: str, *problems: str, stored: int = 0) -> None:
        with self._lock:
            if self._jobs[key].state != CANCELLED:
                self._set(key, state=state, problems=problems, stored=stored)
