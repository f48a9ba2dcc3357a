"""A real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.validators import missing


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own, in a folder that everybody may enter."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None:
        missing("postgresql")
    # PostgreSQL refuses to run as root.
    user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
    data = folder / "data"
    control = [*user, programs / "pg_ctl", "-D", data, "-w", "-s"]
    subprocess.run([*user, programs / "initdb", "-D", data, "-A", "trust", "-U", "endolens"], check=True)
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], check=True)
    try:
        yield f"postgresql+psycopg://endolens@/postgres?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True)
