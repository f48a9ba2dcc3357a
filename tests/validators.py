"""Validators of others: dciodvfy of dicom3tools and tid1500reader of dcmqi."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOLS = Path(sys.executable).parent


def dciodvfy(path: Path) -> list[str]:
    """The errors that dciodvfy finds in a file; warnings are not among them."""
    done = subprocess.run([TOOLS / "dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    # It begins with the name of the information object, so silence would mean that it did not run.
    assert lines, f"dciodvfy said nothing about {path}"
    return [line for line in lines if line.startswith("Error")]


def tid1500reader(report: Path, folder: Path) -> dict[str, Any]:
    """What dcmqi reads in a TID 1500 report."""
    metadata = folder / "tid1500.json"
    subprocess.run(
        [TOOLS / "tid1500reader", "--inputDICOM", report, "--outputMetadata", metadata],
        capture_output=True,
        check=True,
    )
    content: dict[str, Any] = json.loads(metadata.read_text())
    return content
