"""Lines of JSON that are only ever added to: what happened, when, by whom. A line is on disk before it counts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

BEGIN = "0" * 64
"""What the first line of a chain follows."""

LONGEST_LINE = 64 * 1024
"""Of a chain, in bytes."""


def append(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line; it is told when (``at``, UTC). The file and its folder are made if they are not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _add(file, json.dumps({"at": _now(), **content}, ensure_ascii=False) + "\n")


def append_chained(path: Path, contents: Sequence[Mapping[str, Any]]) -> None:
    """Add lines as :func:`append`, by several processes at once. Each carries a hash of itself and of the one before,
    so that none of them can be changed, moved or taken out without a trace; see :func:`broken`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")), path.open("ab+") as file:
        before, lines = _last_hash(file), ""
        for content in contents:
            told = {"at": _now(), **content}
            before = _hash(before, told)
            lines += json.dumps({**told, "hash": before}) + "\n"
        _add(file, lines)


def broken(path: Path) -> list[int]:
    """Numbers, from 1, of the lines that do not follow the one before them, or are not as they were written."""
    before, found = BEGIN, []
    for number, content in _lines(path):
        kept = content.pop("hash", "")
        if kept != _hash(before, content):
            found.append(number)
        before = kept
    return found


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines, the oldest first; one that was cut off by a crash never counted and is passed over."""
    return (content for _, content in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                yield number, content


def _add(file: IO[bytes], lines: str) -> None:
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        # One that was cut off by a crash must not swallow the next.
        lines = lines if file.read() == b"\n" else "\n" + lines
    file.write(lines.encode("utf-8", errors="replace"))
    file.flush()
    os.fsync(file.fileno())


def _last_hash(file: IO[bytes]) -> str:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 2 * LONGEST_LINE))
    for line in reversed(file.read().splitlines()):
        try:
            return str(json.loads(line)["hash"])
        except (ValueError, KeyError, TypeError):
            continue
    return BEGIN


def _hash(before: str, content: Mapping[str, Any]) -> str:
    return hashlib.sha256((before + json.dumps(content, sort_keys=True)).encode()).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
