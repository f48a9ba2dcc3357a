"""The door of a node: an object is looked at, and on disk and in the database before it is acknowledged."""

from __future__ import annotations

import errno
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from sqlalchemy.exc import DataError, SQLAlchemyError

from monai_label_app.files import read_header
from monai_label_app.folder import settle
from monai_label_app.frames import UnreadableError
from monai_label_app.intake import look, patient_of
from monai_label_app.listening.store import Store
from monai_label_app.observed.metrics import RECEIVED
from report.attributes import is_own_result
from report.database import reason

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

STORED, PRESENT, OWN = "stored", "present", "own"
REFUSED, NO_ROOM = "refused", "no room"


class NoRoomError(Exception):
    """There is no room for it now, on the disk or in the database; the message is one sentence."""


class Arriving:
    """An object as it comes: a file that is not held in memory. pynetdicom writes to it as to one of the system's.

    A disk that fails is told when all has come, by the status that answers it; the sender would not learn it otherwise.

    Args:
        folder: it is written to.
        reserve: bytes that stay free on the disk.
    """

    def __init__(self, folder: Path, reserve: int) -> None:
        self.path = folder / f".{secrets.token_hex(8)}.partial"
        self.name, self.file = str(self.path), self  # as pynetdicom asks for them
        self.failure: OSError | None = None
        self.study = ""  # its UID, once that was read
        self._folder, self._reserve = folder, reserve
        self._open: BinaryIO | None = None
        with self._noting():
            self._open = self.path.open("wb")

    def write(self, content: bytes) -> None:
        """Add bytes; nothing more once that failed."""
        with self._noting():
            if self._open:
                require_room(self._folder, self._reserve + len(content))
                self._open.write(content)

    def flush(self) -> None:
        """All that was written is in the file, unless that fails."""
        with self._noting():
            if self._open:
                self._open.flush()

    def close(self) -> None:
        """Nothing more comes."""
        with self._noting():
            if self._open:
                self._open.close()
        self._open = None

    def remove(self) -> None:
        """Give up what has come, if it was not moved to its place."""
        self.close()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            if self._open:
                opened, self._open = self._open, None
                with suppress(OSError):  # it tries once more to write what it holds
                    opened.close()
            self.path.unlink(missing_ok=True)


def require_room(folder: Path, size: int) -> None:
    """OSError unless so many bytes are free on the disk of a folder."""
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, "it is full")


class Receiver:
    """Takes objects into a store, each whole or not at all. Safe for several threads.

    Args:
        store: gets them.
        quiet: seconds without a new object after which a study is taken for complete.
        reserve: bytes that stay free on the disk, for the results of what is there already.
    """

    def __init__(self, store: Store, quiet: float, reserve: int) -> None:
        self._store, self._quiet, self._reserve = store, quiet, reserve
        self._lock = threading.Lock()
        self._open_since = time.time()

    @property
    def complete(self) -> bool:
        """Whether a study could have been sent to its end: long enough, all that came has been taken."""
        return time.time() >= self._open_since + self._quiet

    def arriving(self) -> Arriving:
        """A file for an object that comes, to be taken when it is whole, or else removed."""
        return Arriving(self._store.received, self._reserve)

    def take(self, arrived: Arriving, name: str, longest: float = 0) -> str:
        """Take an object in; its file is gone afterwards.

        Args:
            arrived: a DICOM file.
            name: what the sender calls it, for the sentences.
            longest: seconds that the rest of its study may take, where it is known that there is more; see :meth:`end`.

        Returns:
            ``stored``; ``present``, it was there before; or ``own``, a result of this software, which is no input.

        Raises:
            UnreadableError: it is damaged, no endoscopic image, or another patient's than the rest of its study.
            NoRoomError: it cannot be kept now.
        """
        outcome = REFUSED
        try:
            with self._lock:
                outcome = self._take(arrived, name, max(longest, self._quiet))
        except DataError as error:  # no fault of the database: a name with a NUL, for instance
            raise UnreadableError(f"{name} holds what no database takes: {reason(error)}") from error
        except SQLAlchemyError as error:
            self._open_since, outcome = time.time(), NO_ROOM
            raise NoRoomError(f"the database does not take it: {reason(error)}") from error
        except OSError as error:
            self._open_since, outcome = time.time(), NO_ROOM
            raise NoRoomError(f"the disk does not take it: {error.strerror or error}") from error
        finally:
            RECEIVED.labels(outcome).inc()
            arrived.remove()
        return outcome

    def end(self, study: str) -> None:
        """All of a study has come: it need not wait longer than any.

        Raises:
            NoRoomError: the database does not take that now.
        """
        try:
            self._store.hasten(study, time.time() + self._quiet)
        except SQLAlchemyError as error:
            raise NoRoomError(f"the database does not take it: {reason(error)}") from error

    def _take(self, arrived: Arriving, name: str, quiet: float) -> str:
        arrived.close()
        if arrived.failure:
            raise arrived.failure
        require_room(self._store.received, self._reserve)
        partial = arrived.path
        try:
            header = read_header(partial)
            arrived.study = str(header.get("StudyInstanceUID", ""))
            if is_own_result(header):
                return OWN
            if self._is_known(header, name):
                return PRESENT
            look(partial, name)
            study, uid = str(header.StudyInstanceUID), str(header.SOPInstanceUID)
            place = self._store.place(study, uid)
            settle(partial)
            with self._store.files():
                place.parent.mkdir(exist_ok=True)
                partial.replace(place)
                settle(place.parent)
                settle(place.parent.parent)
                # If this fails the file stays: what was committed is not always told. The next start tidies it away.
                self._store.add(study, uid, patient_of(header), time.time() + quiet)
            return STORED
        except UnreadableError as error:
            # Where it lies here is nobody's business.
            raise UnreadableError(str(error).replace(str(partial), name)) from None

    def _is_known(self, header: Dataset, name: str) -> bool:
        """Whether the object is there already; nothing is overwritten, or put into another patient's study."""
        study, patient = str(header.StudyInstanceUID), patient_of(header)
        known = self._store.identity(str(header.SOPInstanceUID))
        if known is not None and known != (study, patient):
            told = f"{name} has the UID of an image of another study or patient; it came as one of study {study}"
            raise UnreadableError(told)
        if self._store.patient(study) not in (None, patient):
            raise UnreadableError(f"{name} names another patient than the rest of its study, {study}")
        return known is not None


def is_full(error: BaseException | None) -> bool:
    """Whether an error comes of a full disk, or of a database that cannot be asked: what waits, and does not fail."""
    while error is not None:
        if isinstance(error, SQLAlchemyError) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False
