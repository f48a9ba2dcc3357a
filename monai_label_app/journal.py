"""Lines of JSON that are only ever added to: what happened, when, by whom. A line is on disk before it counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def append(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line; it is told when (``at``, UTC). The file and its folder are made if they are not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    line = json.dumps({"at": at, **content}, ensure_ascii=False) + "\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # One that was cut off by a crash must not swallow the next.
            line = line if file.read() == b"\n" else "\n" + line
        file.write(line.encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines, the oldest first; one that was cut off by a crash never counted and is passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content
