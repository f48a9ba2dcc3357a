"""An archive by Ray beside a plain loop: the ratio of their times, and the driver's memory meanwhile.

Both fetch the same stills from an Orthanc on this machine and store their results there, turn by turn.

Example: python -m benchmarks.archive; python -m benchmarks.archive --frames 1000 --rounds 1
"""

from __future__ import annotations

import copy
import io
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import psutil
import pydicom
from pydicom import Dataset

from monai_label_app.sample import STUDY
from tests.e2e.conftest import ENDOLENS, Orthanc, free_port, running_orthanc

PLAIN, RAY = "a plain loop", "Ray"
LOOK = 0.5
"""Seconds between two looks at the driver's memory."""


@dataclass
class Course:
    """Of a run: seconds in all; and at each look seconds since the start, studies that were done, MiB of the driver."""

    seconds: float = 0.0
    looks: list[tuple[float, int, float]] = field(default_factory=list)

    @property
    def steady(self) -> float:
        """Seconds from the first study that was done to the last, a study."""
        working = [(at, done) for at, done, _ in self.looks if done]
        (begun, first), (ended, last) = working[0], working[-1]
        return (ended - begun) / max(last - first, 1)

    def memory(self) -> str:
        """MiB when a tenth, two tenths, … of the studies were done."""
        total = self.looks[-1][1]
        shown = [next(size for _, done, size in self.looks if done >= total * tenth / 10) for tenth in range(1, 11)]
        return " ".join(f"{size:.0f}" for size in shown)


def studies(count: int, stills: int, year: int) -> Iterator[list[Dataset]]:
    """Studies of the sample's stills, each a patient's of its own."""
    files = [pydicom.dcmread(file) for file in sorted(STUDY.iterdir())]
    for study in range(1, count + 1):
        made = []
        for number in range(1, stills + 1):
            still = copy.deepcopy(files[number % len(files)])
            still.PatientID, still.StudyDate = f"{year}-{study}", f"{year}{study % 12 + 1:02}01"
            still.StudyInstanceUID, still.SeriesInstanceUID = f"1.2.{year}.{study}", f"1.2.{year}.{study}.1"
            still.InstanceNumber, still.SOPInstanceUID = number, f"1.2.{year}.{study}.1.{number}"
            still.file_meta.MediaStorageSOPInstanceUID = still.SOPInstanceUID
            made.append(still)
        yield made


def store(orthanc: Orthanc, images: Iterable[Dataset]) -> None:
    """Put images into an Orthanc, the quickest way."""
    with httpx.Client(timeout=60) as client:
        for image in images:
            stream = io.BytesIO()
            image.save_as(stream, enforce_file_format=True)
            client.post(f"{orthanc.http}/instances", content=stream.getvalue()).raise_for_status()


def watched(orthanc: Orthanc, year: int, out: Path, *options: str) -> Course:
    """Analyse the studies of a year by the command, and watch its driver."""
    query = f"Modality=ES&StudyDate={year}0101-{year}1231"
    command = [ENDOLENS, "analyze", "--pacs", orthanc.dicomweb, "--query", query, "--out", str(out), *options]
    summary, course, start = out / "summary.jsonl", Course(), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        done = summary.read_bytes().count(b"\n") if summary.exists() else 0
        course.looks.append((time.perf_counter() - start, done, driver.memory_info().rss / 2**20))
        time.sleep(LOOK)
    course.seconds = time.perf_counter() - start
    if process.returncode:
        assert process.stderr
        raise click.ClickException(process.stderr.read().decode())
    return course


@click.command()
@click.option("--frames", default=10_000, show_default=True, help="For each of the two.")
@click.option("--stills", default=50, show_default=True, help="Of a study.")
@click.option("--model", help="As endolens analyze takes it.  [default: the demonstration model]")
@click.option("--rounds", default=2, show_default=True, help="Each does its share of the frames, by both.")
def main(frames: int, stills: int, rounds: int, model: str | None) -> None:
    """Print the ratio of the times, which is to be at most 1.1, and the driver's memory."""
    courses: dict[str, list[Course]] = {PLAIN: [], RAY: []}
    count = max(1, frames // stills // rounds)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_orthanc(Path(folder) / "orthanc", free_port(), free_port(), SyncStorageArea=False) as orthanc,
    ):
        for number in range(rounds):
            turns = [(PLAIN, 2000 + number), (RAY, 2100 + number)]
            for _, year in turns:
                for study in studies(count, stills, year):
                    store(orthanc, study)
            for name, year in turns if number % 2 == 0 else reversed(turns):
                options = [*(["--ray"] if name == RAY else []), *(["--model", model] if model else [])]
                course = watched(orthanc, year, Path(folder) / f"out-{year}", *options)
                courses[name].append(course)
                each = 1000 * course.steady / stills
                click.echo(f"{name}: {count * stills} frames in {course.seconds:.0f} s, {each:.0f} ms a frame at work; "
                           f"MiB of the driver, tenth by tenth: {course.memory()}")  # fmt: skip
    whole = sum(one.seconds for one in courses[RAY]) / sum(one.seconds for one in courses[PLAIN])
    steady = statistics.mean(one.steady for one in courses[RAY]) / statistics.mean(one.steady for one in courses[PLAIN])
    click.echo(f"by Ray it takes {whole:.2f} times as long as by a plain loop (aim: 1.1 at most); "
               f"without starting and ending {steady:.2f} times")  # fmt: skip


if __name__ == "__main__":
    main()
