"""New endoscopy studies of a PACS, found by QIDO-RS and fetched by WADO-RS."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.frames import UnreadableError, in_one_line
from monai_label_app.listening.receiving import OWN, NoRoomError, Receiver
from monai_label_app.listening.store import Store
from monai_label_app.pacs import ENDOSCOPY, Pacs, PacsError, UnreachableError
from monai_label_app.study import Instance
from report.database import reason

TRIES = 5
"""How often a study is fetched that fails in a way that nobody foresaw; then not before it has changed."""

LONGEST = 3600.0
"""Seconds that a study waits for images that the PACS told of and does not hand out; then it is analysed without."""


class Poller:
    """Asks a PACS, over and over, for what is new there.

    Args:
        pacs: to ask.
        since: Study Date, YYYYMMDD, from which on studies are looked for; empty for all.
        every: seconds between two questions.
        receiver: gets the images.
        store: remembers what was fetched.
        say: gets a sentence where something is wrong.
    """

    def __init__(
        self, pacs: Pacs, since: str, every: float, receiver: Receiver, store: Store, say: Callable[[str], None]
    ) -> None:
        self._pacs, self._every = pacs, every
        self._query = {**ENDOSCOPY, "StudyDate": f"{since}-"} if since else ENDOSCOPY
        self._receiver, self._store, self._say = receiver, store, say
        self._tries: Counter[str] = Counter()
        self._in_part: dict[str, set[str]] = {}

    def run(self, stop: threading.Event) -> None:
        """Poll until stopped."""
        last = ""
        while not stop.is_set():
            problem = ""
            try:
                self.poll(stop)
            except (PacsError, NoRoomError) as error:
                problem = str(error)
            except SQLAlchemyError as error:
                problem = f"the database does not answer: {reason(error)}"
            if problem and problem != last:  # what goes on for hours is said once
                self._say(problem)
            last = problem
            stop.wait(self._every)

    def poll(self, stop: threading.Event) -> None:
        """Ask once, and fetch the images that are new.

        Raises:
            PacsError: the PACS cannot be asked, or does not hand out one of them; the others are fetched.
            NoRoomError: an image cannot be kept now.
        """
        known = self._store.polled(self._pacs.url)
        failed: PacsError | None = None
        for study, instances in self._pacs.studies(self._query).items():
            if instances and known.get(study) == instances:
                continue
            try:
                self._fetch(study, stop)
            except PacsError as error:  # the others need not wait for this one
                failed = error
                continue
            except (NoRoomError, SQLAlchemyError):
                raise
            except Exception as error:  # damaged metadata makes pydicom raise nearly anything
                self._say(f"{study} cannot be fetched: {in_one_line(error)}")
                self._tries[study] += 1
                if self._tries[study] < TRIES:
                    continue
            if stop.is_set():
                return
            self._store.note_polled(self._pacs.url, study, instances)
            del self._tries[study]
        if failed:
            raise failed

    def _fetch(self, study: str, stop: threading.Event) -> None:
        found = [one for one in self._pacs.study(study).instances if one.refusal is None or one.is_video]
        uids = [str(one.header.SOPInstanceUID) for one in found]
        known = self._store.known(uids)
        if not known and self._store.dropped(uids) == set(uids):  # what is new in the study is no image
            return
        if self._store.dropped(self._in_part.pop(study, set()) - known):  # a person did so while it waited for the rest
            self._store.leave(uids)
            return
        there = set(known)
        failed: PacsError | None = None
        for instance in found:
            uid = str(instance.header.SOPInstanceUID)
            if stop.is_set():
                return
            try:
                if uid not in known and self._take(instance):
                    there.add(uid)
            except UnreachableError as error:
                failed = error
                break
            except PacsError as error:  # the others need not wait for this one
                failed = PacsError(f"{uid} of study {study} cannot be fetched: {error}")
        if self._store.dropped(there - self._store.known(uids)):  # a person did so while the rest came
            self._store.drop(study)
            self._store.leave(uids)
        elif failed:
            self._in_part[study] = there
            raise failed
        else:
            self._receiver.end(study)

    def _take(self, instance: Instance) -> bool:
        """Fetch an image, and take it in; whether it is there now."""
        arriving = self._receiver.arriving()
        try:
            if instance.fetch:
                instance.fetch(arriving.path)
            return self._receiver.take(arriving, instance.origin, LONGEST) != OWN
        except UnreadableError as error:
            self._say(str(error))
            return False
        except OSError as error:
            raise NoRoomError(f"the disk does not take it: {error.strerror or error}") from error
        finally:
            arriving.remove()
