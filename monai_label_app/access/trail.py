"""Who saw, analysed, changed, signed and exported what, and when: lines that are only added to, and name no patient."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_label_app.access.identity import Identity
from monai_label_app.access.roles import SAW
from monai_label_app.journal import append_chained, read
from monai_label_app.observed.checks import Check

TRAIL = ".endolens/accesses.jsonl"
"""Where it is kept, beside the labels of the studies."""

SEEN_AGAIN_SECONDS = 15 * 60
"""Who sees the same again within this time sees it still: it is told once."""

_REMEMBERED = 10_000
_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){2,}(?![\w])")

_log = logging.getLogger(__name__)


class Trail:
    """The trail in a file, which several servers of one machine may share. Safe for several threads.

    Args:
        path: made when something is told for the first time.

    Attributes:
        kept: False while the file cannot be written; what is told meanwhile waits in memory.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.kept = path, True
        self._changed, self._busy = threading.Condition(), False
        self._told = self._written = 0
        self._waiting: list[dict[str, Any]] = []
        self._seen: OrderedDict[int, float] = OrderedDict()

    def tell(self, who: Identity, action: str, place: str, status: int, request: str = "") -> None:
        """Write down that something was done; it is on disk when this returns.

        Args:
            who: did it.
            action: one of :mod:`monai_label_app.access.roles`.
            place: path and query that it was asked for by, decoded; UIDs are taken from there, and nothing else.
            status: of the answer.
            request: names the request in the log.
        """
        objects = list(dict.fromkeys(one for one in _UID.findall(place) if len(one) <= 64))
        if action == SAW and self._still(hash((who.user, *objects, status // 100))):
            return
        told = {"user": who.user, "role": who.role.name.lower(), "action": action, "status": status}
        with self._changed:
            self._told += 1
            mine = self._told
            self._waiting.append({**told, "objects": objects, "request": request})
            # Those who come while the disk is busy are written together, by one of them.
            self._changed.wait_for(lambda: self._written >= mine or not self._busy)
            if self._written >= mine:
                return
            self._busy, last = True, self._told
            batch, self._waiting = self._waiting, []
        later = batch
        try:
            later = self._write(batch)
        finally:
            with self._changed:
                self._waiting = [*later, *self._waiting][-_REMEMBERED:]
                self._busy, self._written = False, last
                self._changed.notify_all()

    def _write(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write lines; returns those that are to be written later."""
        try:
            append_chained(self._path, batch)
        except OSError as error:
            self.kept = False
            _log.error("the audit trail cannot be written: %s", error.strerror)
            return batch
        self.kept = True
        return []

    def check(self) -> Check:
        """Whether it can be written."""
        for file in (self._path, self._path.with_suffix(".lock")):
            if file.exists() and not file.is_file():
                return Check("audit trail", f"{file} is no file", "move it away")
            if not self.kept or (file.exists() and not os.access(file, os.W_OK)):
                return Check("audit trail", f"{file} cannot be written", "give it and its folder to the server's user")
        return Check("audit trail", f"{self._path}")

    def _still(self, key: int) -> bool:
        now = time.monotonic()
        with self._changed:
            still = now - self._seen.get(key, float("-inf")) < SEEN_AGAIN_SECONDS
            if not still:
                self._seen[key] = now
                self._seen.move_to_end(key)
                while len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)
        return still


def accesses(path: Path, user: str | None = None, uid: str | None = None) -> Iterator[dict[str, Any]]:
    """What is in a trail, the oldest first; of a user, of an object, or all."""
    for one in read(path):
        if (user is None or one.get("user") == user) and (uid is None or uid in objects(one)):
            yield one


def objects(told: dict[str, Any]) -> Sequence[str]:
    """The UIDs that a line of a trail names."""
    found = told.get("objects")
    return found if isinstance(found, list) else []
