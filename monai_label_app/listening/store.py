"""What a node has received, and what is to be done with it: files in a folder, and a database that speaks of them.

The files are on disk before the database speaks of them, so whatever is killed when, the database is right.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, delete, func, insert, select, update

from monai_label_app.folder import whole
from monai_label_app.listening.tables import DROPPED, JOBS, NODE, POLLED, RECEIVED, RESULTS
from report.database import open_database

ANALYSIS = "analysis"
"""The task of a study that comes first; the others are destinations that its results are sent to."""

SENDING = "sending"
"""All tasks but :data:`ANALYSIS`, in numbers."""

_REVISIONS = 2**30
"""From which the first of a job is drawn."""

WAITING, DONE, DEAD = STATES = ("waiting", "done", "dead")
"""A job is to be done, is done, or was given up and waits for a person."""


@dataclass(frozen=True)
class Job:
    """What is to be done with a study.

    Attributes:
        study: Study Instance UID.
        task: :data:`ANALYSIS`, or the destination that its results are sent to.
        state: one of :data:`STATES`.
        attempts: how often it was begun.
        due: when it is done at the earliest, in seconds since 1970.
        reason: what went wrong the last time, or was left out; a sentence.
        revision: goes up when there is something new to do; a study that was dropped and comes again begins elsewhere.
    """

    study: str
    task: str
    state: str
    attempts: int
    due: float
    reason: str
    revision: int


class Store:
    """The state of a node. Safe for several threads.

    Args:
        folder: of the files; made if it is not there.
        url: of the database, as :func:`report.database.open_database` takes it; by default SQLite in the folder.

    Raises:
        ValueError: the database cannot be opened, or speaks of another folder, or the folder is of another database.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.received, self.results, self.journals = (folder / one for one in ("received", "results", "journals"))
        for place in (self.received, self.results, self.journals):
            place.mkdir(parents=True, exist_ok=True)
        self._lock = folder / "files.lock"
        address = url or f"sqlite:///{folder / 'jobs.sqlite'}"
        self._engine = open_database(address, "monai_label_app:migrations/jobs")
        self._claim(folder / "id")

    def _claim(self, identity: Path) -> None:
        """See that the database and the folder belong together."""
        if not identity.exists():
            with whole(identity) as partial:
                partial.write_text(secrets.token_hex(16))
        own = identity.read_text()
        with self._engine.begin() as connection:
            row = connection.execute(select(NODE)).one_or_none()
            if row is None and any(any(place.iterdir()) for place in (self.received, self.results)):
                raise ValueError(
                    f"{identity.parent} holds what another database speaks of: name that one, by --database or "
                    "ENDOLENS_JOBS; if it is lost, move the folder away"
                )
            if row is None:
                connection.execute(insert(NODE).values(folder=own))
            elif row.folder != own:
                raise ValueError(f"the database speaks of another folder than {identity.parent}; name a new database")

    def require_writable(self) -> None:
        """SQLAlchemyError unless the database takes a change now."""
        with self._engine.begin() as connection:
            connection.execute(update(NODE).values(folder=NODE.c.folder))

    def tidy(self) -> None:
        """Remove the files that the database does not speak of: who was killed had not acknowledged them."""
        with self._engine.connect() as connection:
            received = set(connection.scalars(select(RECEIVED.c.uid)))
            results = set(connection.scalars(select(RESULTS.c.uid).where(~RESULTS.c.sent)))
        for place, known in ((self.received, received), (self.results, results)):
            for entry in place.iterdir():
                if entry.name.startswith("."):
                    _remove(entry)
                    continue
                if not entry.is_dir():
                    continue
                for file in entry.iterdir():
                    if file.stem not in known:
                        _remove(file)
                if not any(entry.iterdir()):
                    entry.rmdir()

    def files(self) -> FileLock:
        """To be held by whoever puts files in their places, or takes them away, until the database says the same.

        Several processes do: one who drops a study must not take away what has just come again.
        """
        return FileLock(self._lock)

    # What comes in

    def known(self, uids: Sequence[str]) -> set[str]:
        """Those of some SOP Instance UIDs that were received."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(RECEIVED.c.uid).where(RECEIVED.c.uid.in_(uids))))

    def dropped(self, uids: Collection[str]) -> set[str]:
        """Those of some SOP Instance UIDs whose study a person dropped once."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(DROPPED.c.uid).where(DROPPED.c.uid.in_(uids))))

    def identity(self, uid: str) -> tuple[str, str] | None:
        """Study and patient of a received object; None if there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(select(RECEIVED.c.study, RECEIVED.c.patient).where(RECEIVED.c.uid == uid))
            found = row.one_or_none()
        return (found.study, found.patient) if found else None

    def patient(self, study: str) -> str | None:
        """Whose study it is; None if nothing of it was received."""
        with self._engine.connect() as connection:
            return connection.scalars(select(RECEIVED.c.patient).where(RECEIVED.c.study == study).limit(1)).first()

    def place(self, study: str, uid: str) -> Path:
        """Where a received object lies."""
        return self.received / study / f"{uid}.dcm"

    def add(self, study: str, uid: str, patient: str, due: float) -> None:
        """Note an object that lies in its place; its study is to be analysed when due."""
        with self._engine.begin() as connection:
            connection.execute(insert(RECEIVED).values(uid=uid, study=study, patient=patient))
            _require(connection, study, ANALYSIS, due)

    def hasten(self, study: str, due: float) -> None:
        """Have a study that waits for its analysis analysed when due, and not later."""
        mine = (JOBS.c.study == study) & (JOBS.c.task == ANALYSIS) & (JOBS.c.state == WAITING)
        with self._engine.begin() as connection:
            connection.execute(update(JOBS).where(mine, JOBS.c.due > due).values(due=due))

    def polled(self, source: str) -> dict[str, int]:
        """Study → how many instances it had when all of them had been fetched from a source."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(POLLED.c.study, POLLED.c.instances).where(POLLED.c.source == source))
            return {row.study: row.instances for row in rows}

    def note_polled(self, source: str, study: str, instances: int) -> None:
        """Remember how many instances a study has, now that they have been fetched."""
        mine = (POLLED.c.source == source) & (POLLED.c.study == study)
        with self._engine.begin() as connection:
            if not connection.execute(update(POLLED).where(mine).values(instances=instances)).rowcount:
                connection.execute(insert(POLLED).values(source=source, study=study, instances=instances))

    # What is to be done

    def begin(self, task: str, longest: float) -> Job | None:
        """The job that is due for a task, its attempt counted: a process that dies of it will not try for ever.

        No results are sent while their study is to be analysed: there is no use in those of a study that has grown.

        Args:
            task: of the job.
            longest: seconds until it is due again, should this fail: one at first, twice as many each time, or these.
        """
        ready = (JOBS.c.task == task) & (JOBS.c.state == WAITING) & (JOBS.c.due <= time.time())
        if task != ANALYSIS:
            to_be_analysed = select(JOBS.c.study).where((JOBS.c.task == ANALYSIS) & (JOBS.c.state == WAITING))
            ready &= JOBS.c.study.not_in(to_be_analysed)
        with self._engine.connect() as connection:
            row = connection.execute(select(JOBS).where(ready).order_by(JOBS.c.due).limit(1)).one_or_none()
        if row is None:
            return None
        job = _job(row)
        again = time.time() + min(2.0 ** min(job.attempts, 30), longest)
        with self._engine.begin() as connection:
            begun = update(JOBS).where(_same(job)).values(attempts=job.attempts + 1, due=again)
            return job if connection.execute(begun).rowcount else None

    def put_back(self, job: Job) -> None:
        """An attempt that was not made after all."""
        with self._engine.begin() as connection:
            connection.execute(update(JOBS).where(_same(job)).values(attempts=job.attempts, due=job.due))

    def fail(self, job: Job, reason: str, most: int) -> bool | None:
        """Say why an attempt failed; the job is given up after ``most`` of them.

        Returns:
            Whether it was given up; None if it was dropped meanwhile, or there is something new to do.
        """
        state = DEAD if job.attempts + 1 >= most else WAITING
        failed = update(JOBS).where(_same(job)).values(state=state, reason=reason, changed=time.time())
        with self._engine.begin() as connection:
            return state == DEAD if connection.execute(failed).rowcount else None

    def analysed(self, job: Job, results: Sequence[str], reason: str, destinations: Iterable[str]) -> bool:
        """Note the results of a study, which lie in their place, and that they are to be sent.

        Returns:
            Whether they count: the study may have got more images meanwhile, or been dropped.
        """
        with self._engine.begin() as connection:
            done = {"state": DONE, "attempts": 0, "reason": reason, "changed": time.time()}
            if not connection.execute(update(JOBS).where(_same(job)).values(**done)).rowcount:
                return False
            mine = RESULTS.c.study == job.study
            connection.execute(delete(RESULTS).where(mine & ~RESULTS.c.sent & RESULTS.c.uid.not_in(results)))
            there = {(row.uid, row.task) for row in connection.execute(select(RESULTS).where(mine))}
            for task in destinations:
                for number, uid in enumerate(results):
                    if (uid, task) not in there:
                        row = {"uid": uid, "task": task, "study": job.study, "number": number, "sent": False}
                        connection.execute(insert(RESULTS).values(row))
                _require(connection, job.study, task, time.time())
        return True

    def discard(self, study: str) -> bool:
        """Remove the files of results that do not count.

        Returns:
            Whether the study is to be analysed again; it was dropped otherwise.
        """
        mine = RESULTS.c.study == study
        with self._engine.connect() as connection:
            known = set(connection.scalars(select(RESULTS.c.uid).where(mine & ~RESULTS.c.sent)))
            job = connection.execute(select(JOBS).where((JOBS.c.study == study) & (JOBS.c.task == ANALYSIS))).first()
        for file in (self.results / study).glob("*.dcm"):
            if file.stem not in known:
                file.unlink(missing_ok=True)
        with suppress(OSError):  # it is not there, or has something to be sent
            (self.results / study).rmdir()
        return job is not None

    def unsent(self, job: Job) -> list[Path]:
        """Files of the results that a destination has not got yet, in the order in which they were made."""
        mine = (RESULTS.c.study == job.study) & (RESULTS.c.task == job.task) & ~RESULTS.c.sent
        with self._engine.connect() as connection:
            uids = connection.scalars(select(RESULTS.c.uid).where(mine).order_by(RESULTS.c.number))
            return [self.results / job.study / f"{uid}.dcm" for uid in uids]

    def sent(self, job: Job, uid: str) -> None:
        """Note that a destination has a result."""
        with self._engine.begin() as connection:
            mine = (RESULTS.c.uid == uid) & (RESULTS.c.task == job.task)
            connection.execute(update(RESULTS).where(mine).values(sent=True))

    def delivered(self, job: Job) -> None:
        """Note that a destination has all results; their files go when every destination has them."""
        with self.files():
            with self._engine.begin() as connection:
                done = {"state": DONE, "attempts": 0, "reason": "", "changed": time.time()}
                connection.execute(update(JOBS).where(_same(job)).values(**done))
                left = (JOBS.c.study == job.study) & (JOBS.c.state != DONE)
                if connection.execute(select(JOBS.c.task).where(left).limit(1)).first():
                    return
            shutil.rmtree(self.results / job.study, ignore_errors=True)

    def forget(self, days: float) -> None:
        """Remove what is left of studies that were done so many days ago."""
        before = time.time() - days * 86400
        open_, latest = func.sum(case((JOBS.c.state == DONE, 0), else_=1)), func.max(JOBS.c.changed)
        with self._engine.connect() as connection:
            rows = connection.execute(select(JOBS.c.study, open_, latest).group_by(JOBS.c.study)).all()
        for study, still_open, changed in rows:
            if not still_open and changed < before:
                self._remove(study, JOBS.c.state == DONE, JOBS.c.changed < before)

    # What a person decides

    def jobs(self) -> list[Job]:
        """All, by study, the analysis first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(JOBS).order_by(JOBS.c.study, JOBS.c.task != ANALYSIS, JOBS.c.task))
            return [_job(row) for row in rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """Study → how many images were received, and for each destination how many results are not sent yet."""
        counts: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            images = select(RECEIVED.c.study, func.count()).group_by(RECEIVED.c.study)
            for study, count in connection.execute(images):
                counts.setdefault(study, {})[ANALYSIS] = count
            unsent = select(RESULTS.c.study, RESULTS.c.task, func.count()).where(~RESULTS.c.sent)
            for study, task, count in connection.execute(unsent.group_by(RESULTS.c.study, RESULTS.c.task)):
                counts.setdefault(study, {})[task] = count
        return counts

    def numbers(self) -> dict[tuple[str, str], int]:
        """(analysis or sending, state) → how many jobs."""
        numbers = {(doing, state): 0 for doing in (ANALYSIS, SENDING) for state in (WAITING, DEAD)}
        doing = case((JOBS.c.task == ANALYSIS, ANALYSIS), else_=SENDING)
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(doing, JOBS.c.state, func.count()).where(JOBS.c.state != DONE).group_by(doing, JOBS.c.state)
            )
            return numbers | {(doing, state): count for doing, state, count in rows}

    def retry(self, study: str | None = None) -> int:
        """Do again what was given up or waits for its next attempt, of one study or of all; how many jobs that are."""
        mine = JOBS.c.state == DEAD if study is None else (JOBS.c.study == study) & (JOBS.c.state != DONE)
        with self._engine.begin() as connection:
            again = {"state": WAITING, "attempts": 0, "due": time.time(), "revision": JOBS.c.revision + 1}
            return connection.execute(update(JOBS).where(mine).values(**again)).rowcount

    def drop(self, study: str, task: str | None = None) -> bool:
        """Forget a study with its images and results, or one destination of it. Whether there was something."""
        if task is None or task == ANALYSIS:
            images = select(RECEIVED.c.uid).where(RECEIVED.c.study == study)
            with self._engine.connect() as connection:
                uids = connection.scalars(images).all()
            self.leave(uids)
            return self._remove(study)
        mine = (JOBS.c.study == study) & (JOBS.c.task == task)
        with self._engine.begin() as connection:
            connection.execute(delete(RESULTS).where((RESULTS.c.study == study) & (RESULTS.c.task == task)))
            return bool(connection.execute(delete(JOBS).where(mine)).rowcount)

    def leave(self, uids: Collection[str]) -> None:
        """Images that no poller fetches again, unless their study gets another."""
        with self._engine.begin() as connection:
            if rows := [{"uid": uid, "mine": uid} for uid in dict.fromkeys(uids)]:
                connection.execute(delete(DROPPED).where(DROPPED.c.uid == bindparam("mine")), rows)
                connection.execute(insert(DROPPED), rows)

    def _remove(self, study: str, *conditions: ColumnElement[bool]) -> bool:
        """Remove a study whose analysis meets conditions; whether it did."""
        files: list[Path] = []
        with self.files():
            with self._engine.begin() as connection:
                mine = JOBS.c.study == study
                # The row is held from here on: an image that comes now begins the study anew.
                if not connection.execute(delete(JOBS).where(mine, JOBS.c.task == ANALYSIS, *conditions)).rowcount:
                    return False
                connection.execute(delete(JOBS).where(mine))
                for table, place in ((RECEIVED, self.received), (RESULTS, self.results)):
                    uids = connection.scalars(select(table.c.uid).where(table.c.study == study))
                    files += {place / study / f"{uid}.dcm" for uid in uids}
                    connection.execute(delete(table).where(table.c.study == study))
            # After the database, which must not speak of files that are gone.
            for file in files:
                file.unlink(missing_ok=True)
            for place in (self.received, self.results):
                with suppress(OSError):  # it is not there, or has something new
                    (place / study).rmdir()
        return True


def _require(connection: Connection, study: str, task: str, due: float) -> None:
    """There is something to do."""
    mine = (JOBS.c.study == study) & (JOBS.c.task == task)
    now = {"state": WAITING, "attempts": 0, "reason": "", "changed": time.time()}
    # One that waits for the rest of its study goes on to.
    waits = (JOBS.c.state == WAITING) & (JOBS.c.attempts == 0) & (JOBS.c.due > due)
    later = case((waits, JOBS.c.due), else_=due)
    if not connection.execute(update(JOBS).where(mine).values(revision=JOBS.c.revision + 1, due=later, **now)).rowcount:
        # Who works for a row that was dropped must not take this one for it.
        first = secrets.randbelow(_REVISIONS)
        connection.execute(insert(JOBS).values(study=study, task=task, revision=first, due=due, **now))


def _same(job: Job) -> ColumnElement[bool]:
    """The row of a job, unless there is something new to do, or it was dropped."""
    mine = (JOBS.c.study == job.study) & (JOBS.c.task == job.task)
    return mine & (JOBS.c.state == WAITING) & (JOBS.c.revision == job.revision)


def _job(row: Row) -> Job:
    return Job(row.study, row.task, row.state, row.attempts, row.due, row.reason, row.revision)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
