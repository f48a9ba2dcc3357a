"""Lines of JSON that are only ever added to: what happened, when, by whom. A line is on disk before it counts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

BEGIN = "0" * 64
"""What the first line of a chain follows."""

LONGEST_LINE = 64 * 1024
"""Of a chain, in bytes."""

_BEGINS, _CUT_OFF = b'{"at": "', "cut_off"


def append(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line; it is told when (``at``, UTC). The file and its folder are made if they are not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _add(file, json.dumps({"at": _now(), **content}, ensure_ascii=False) + "\n")


def append_chained(path: Path, contents: Sequence[Mapping[str, Any]]) -> None:
    """Add lines as :func:`append`, by several processes at once. Each carries a hash of itself and of the one before,
    so that none of them can be changed, moved or taken out without a trace; see :func:`broken`. One that was cut off by
    a crash is named in the next by a hash of what is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")), path.open("ab+") as file:
        (before, rest), lines = _end(file), ""
        for content in contents:
            told = {"at": _now(), **content, **({_CUT_OFF: _hash_of(rest)} if rest else {})}
            before, rest = _hash(before, told), b""
            lines += json.dumps({**told, "hash": before}) + "\n"
        _add(file, lines)


def broken(path: Path) -> list[int]:
    """Numbers, from 1, of the lines that do not follow the one before them, or are not as they were written."""
    before, found = BEGIN, []
    for (number, line), (_, after) in pairwise(chain(_lines(path), [(0, b"")])):
        content = _content(line)
        if content is None:
            if not _was_cut_off(line, after):
                found.append(number)
            continue
        kept = content.get("hash")
        told = {key: value for key, value in content.items() if key != "hash"}
        # Byte by byte: of two values of one name, JSON knows the last alone.
        if kept != _hash(before, told) or line.removesuffix(b"\n") != json.dumps(content).encode():
            found.append(number)
        before = kept if isinstance(kept, str) else before
    return found


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines, the oldest first; one that was cut off by a crash never counted and is passed over."""
    return (content for _, line in _lines(path) if (content := _content(line)) is not None)


def _was_cut_off(line: bytes, after: bytes) -> bool:
    """Whether a line is the beginning of one of a chain, and nothing follows it or the next names it."""
    rest = line.removesuffix(b"\n")
    begins = rest.startswith(_BEGINS) or _BEGINS.startswith(rest)
    return begins and (line == rest or (_content(after) or {}).get(_CUT_OFF) == _hash_of(rest))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if path.is_file():
        with path.open("rb") as file:
            yield from enumerate(file, start=1)


def _content(line: bytes) -> dict[str, Any] | None:
    """What a line says; None of one that is cut off, or was never one."""
    try:
        content = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _add(file: IO[bytes], lines: str) -> None:
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        # One that was cut off by a crash must not swallow the next.
        lines = lines if file.read() == b"\n" else "\n" + lines
    file.write(lines.encode("utf-8", errors="replace"))
    file.flush()
    os.fsync(file.fileno())


def _end(file: IO[bytes]) -> tuple[str, bytes]:
    """Hash of the last line, and what is left after it of one that was cut off."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 2 * LONGEST_LINE))
    lines = file.read().split(b"\n")
    rest = lines[-1] if _content(lines[-1]) is None else b""
    kept = ((_content(line) or {}).get("hash") for line in reversed(lines))
    return next((one for one in kept if isinstance(one, str)), BEGIN), rest


def _hash(before: str, content: Mapping[str, Any]) -> str:
    return _hash_of((before + json.dumps(content, sort_keys=True)).encode())


def _hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
