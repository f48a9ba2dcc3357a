"""One study of an archive: fetched, analysed, its results stored."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.folder import staging
from monai_label_app.frames import in_one_line
from monai_label_app.library import beside
from monai_label_app.pacs import Pacs, PacsError, UnreachableError
from monai_label_app.reading import with_videos
from monai_label_app.results import Wanted, summary
from monai_label_app.video import footage

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, *[30.0] * 19)
"""Seconds that an archive which does not answer is given before each further try: ten minutes in all."""


@dataclass(frozen=True)
class Task:
    """What is done with every study.

    Attributes:
        url: DICOMweb address of the archive.
        wanted: which objects are written.
        rate: frames of a video that are looked at in a second; None for all.
        place: folder for unfinished work on this machine; None for the one that keeps what is fetched.
        login: user and password for the archive.
    """

    url: str
    wanted: Wanted
    rate: float | None
    place: Path | None = None
    login: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        study: Study Instance UID.
        frames: how many were analysed.
        instances: how many the study has now, as far as is known here.
        summary: its line for ``summary.jsonl``; empty if nothing could be done.
        reason: what went wrong or was left out, as sentences; empty if nothing.
        unreachable: the archive did not answer, so that others need not be tried.
    """

    study: str
    frames: int = 0
    instances: int = 0
    summary: str = ""
    reason: str = ""
    unreachable: bool = False


class Analyst:
    """Does studies, one after the other, with a model that stays in memory."""

    def __init__(self, task: Task, classifier: Classifier) -> None:
        self._task, self._classifier = task, classifier
        self._pacs = Pacs(task.url, task.login)

    def __call__(self, study: str) -> Outcome:
        """Do a study; doing it again stores nothing twice. An archive that is down is waited for."""
        pauses = iter(PAUSES)
        while True:
            try:
                return self._analyze(study)
            except UnreachableError as error:
                pause = next(pauses, None)
                if pause is None:
                    return Outcome(study, reason=str(error), unreachable=True)
                time.sleep(pause)
            except PacsError as error:
                return Outcome(study, reason=str(error))
            except Exception as error:  # damaged metadata makes pydicom raise nearly anything
                return Outcome(study, reason=in_one_line(error))

    def _analyze(self, study: str) -> Outcome:
        there = self._pacs.study(study)
        place = self._task.place or beside(self._task.url)
        place.mkdir(parents=True, exist_ok=True)
        with staging(place) as staged:
            fetched, problems = with_videos(there, staged)
            made = staged / study
            made.mkdir()
            result = footage.analyze(fetched, self._classifier, made, made, self._task.rate, wanted=self._task.wanted)
            left_out = "; ".join(one.reason for one in [*problems, *result.problems])
            if not result.objects:
                return Outcome(study, reason=left_out or "there is no endoscopic image to analyse")
            stored = self._pacs.deliver(result)
        told = {"study": study, **json.loads(summary(self._classifier, [result], problems))}
        line = json.dumps(told, ensure_ascii=False)
        return Outcome(study, len(result.frames), len(there.instances) + len(stored), line, left_out)
