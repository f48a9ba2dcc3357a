"""Files that are sent to a library: each is received whole and looked at, then all are stored together.

A file's name is shown and never a path. What nobody goes on with for an hour is gone, and all with the server.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from monai_label_app import intake
from monai_label_app.folder import temporary
from monai_label_app.intake import Outcome, Received
from monai_label_app.library import Library
from report.endoscopic_image import Examination

LIMIT_VARIABLE = "ENDOLENS_UPLOAD_MEGABYTES"
"""Environment variable: how large a file may be, in megabytes; 1024 unless set."""

KEPT_SECONDS = 3600
"""How long an upload is kept that nobody goes on with."""

MOST_UPLOADS, MOST_FILES = 32, 5000
"""Uploads that are open at once, and files of one."""

AT_ONCE = 6
"""Files that are received at once; each holds a thread of the server until it is there."""

RESERVE = 512 * 1024 * 1024
"""Bytes of the disk that stay free."""

_MEGABYTE = 1024 * 1024
_NAME = 120


class TooLargeError(Exception):
    """A file, or a number of them, above a limit; the message is one sentence."""


class NoRoomError(Exception):
    """The disk is full; the message is one sentence."""


class BusyError(Exception):
    """Too many send at once; the message is one sentence."""


class Stream(Protocol):
    """Where a file's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


@dataclass
class _Upload:
    folder: Path
    touched: float
    files: list[Received] = field(default_factory=list)


class Uploads:
    """The uploads to a library that are under way. Safe for several threads.

    Args:
        library: gets the images.
        limit: bytes of a file, at most; by default as :data:`LIMIT_VARIABLE` says.

    Raises:
        ValueError: the variable is no number.
    """

    def __init__(self, library: Library, limit: int | None = None) -> None:
        self.limit = _limit() if limit is None else limit
        self._library = library
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._uploads: dict[str, _Upload] = {}
        self._ending = ExitStack()
        self._root = self._ending.enter_context(temporary())

    def begin(self) -> str:
        """Open an upload; returns its key. BusyError if too many are open."""
        with self._lock:
            stale = [one for one in self._uploads if time.monotonic() - self._uploads[one].touched > KEPT_SECONDS]
            for key in stale:
                self._discard(self._uploads.pop(key))
            if len(self._uploads) >= MOST_UPLOADS:
                raise BusyError(f"{MOST_UPLOADS} uploads are open already; one of them must end first")
            key = secrets.token_hex(16)
            folder = self._root / key
            folder.mkdir()
            self._uploads[key] = _Upload(folder, time.monotonic())
        return key

    def receive(self, key: str, name: str, size: int, stream: Stream) -> Received:
        """Take in a file and see what it is. If it breaks off or is no endoscopic image, nothing of it is kept.

        Args:
            key: of an open upload.
            name: what the sender calls the file.
            size: number of bytes that the sender announces.
            stream: the bytes.

        Raises:
            LookupError: there is no such upload.
            BusyError: others send just now; it may be tried again soon.
            TooLargeError: the file is too large, or one too many.
            NoRoomError: the disk has no room for it.
            UnreadableError: it is no endoscopic image; the message says why.
        """
        name = _shown(name)
        with self._lock:
            upload = self._find(key)
            upload.touched = time.monotonic()
            if len(upload.files) >= MOST_FILES:
                raise TooLargeError(f"an upload has {MOST_FILES} files at most; store these first")
        self._require_room(name, size)
        path = upload.folder / secrets.token_hex(16)
        if not self._slots.acquire(blocking=False):
            raise BusyError(f"{AT_ONCE} files are being received already; send {name} again in a moment")
        try:
            self._write(stream, path, name)
            # One at a time: half a gigabyte is needed to look at a picture of 64 million pixels.
            with self._looking:
                received = intake.look(path, name)
            with self._lock:
                files = self._find(key).files
                received = replace(received, number=len(files) + 1)
                files.append(received)
                upload.touched = time.monotonic()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._slots.release()
        return received

    def store(self, key: str, examination: Examination) -> list[Outcome]:
        """Store what was received, as :func:`monai_label_app.intake.store` does, and end the upload.

        If that fails the upload stays open and can be stored again; nothing is there twice then.

        Raises:
            LookupError: there is no such upload.
            OSError, PacsError: as :meth:`monai_label_app.library.Library.store`.
        """
        with self._lock:
            upload = self._find(key)
            del self._uploads[key]
        try:
            with self._looking:
                outcomes = intake.store(sorted(upload.files, key=lambda one: one.name), examination, self._library)
        except BaseException:
            with self._lock:
                self._uploads[key] = upload
            raise
        self._discard(upload)
        return outcomes

    def abandon(self, key: str) -> None:
        """End an upload; what was received is gone. LookupError if there is none."""
        with self._lock:
            self._discard(self._find(key))
            del self._uploads[key]

    def close(self) -> None:
        """End all uploads, when the server ends."""
        self._ending.close()

    def _find(self, key: str) -> _Upload:
        if key not in self._uploads:
            raise LookupError(key)
        return self._uploads[key]

    def _discard(self, upload: _Upload) -> None:
        shutil.rmtree(upload.folder, ignore_errors=True)

    def _require_room(self, name: str, size: int) -> None:
        if size > self.limit:
            raise TooLargeError(f"{name} has {_megabytes(size)}, and a file may have {_megabytes(self.limit)}")
        # Once as it comes, and once more as it is stored.
        if shutil.disk_usage(self._root).free < 2 * size + RESERVE:
            raise NoRoomError(f"the server's disk has no room for {name}, {_megabytes(size)}")

    def _write(self, stream: Stream, path: Path, name: str) -> None:
        written = 0
        with path.open("wb") as file:
            while chunk := stream.read(_MEGABYTE):
                written += len(chunk)
                if written > self.limit:
                    raise TooLargeError(f"{name} has more than {_megabytes(self.limit)}")
                file.write(chunk)


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE, "1024")
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise ValueError(f"{LIMIT_VARIABLE} is {text!r}, which is not a number of megabytes")
    return int(text) * _MEGABYTE


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:,.1f} MB"


def _shown(name: str) -> str:
    """The last part of a name, as a line of printable text."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(one for one in last if one.isprintable()).strip()[:_NAME] or "a file without a name"
