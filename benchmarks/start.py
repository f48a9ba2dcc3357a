"""How soon ``endolens serve`` answers its first request, beside importing ``monailabel.app`` alone.

Each is a fresh process, in turn. The first runs until the import is done, the second, over the sample study, until the
EndoLens page has come. Compared is the processor time of each, for that is the same on a busy machine; the time on the
clock is printed too.

Example: python -m benchmarks.start
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import httpx
import psutil

from benchmarks.dissection import Measure
from monai_label_app.sample import STUDY
from tests.e2e.conftest import ENDOLENS, free_port

IMPORT = "import monai_label_app.compatibility, monailabel.app; print('there', flush=True); input()"
LOOK = 0.05
"""Seconds between two questions whether a server answers."""


def processor_seconds(pid: int) -> float:
    """What a process and those that it has waited for took so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def until(command: list[str], ready: Callable[[subprocess.Popen[str]], None]) -> tuple[float, float]:
    """Processor time and time on the clock until a process is ready."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        ready(process)
        return processor_seconds(process.pid), time.perf_counter() - start
    finally:
        process.kill()
        process.communicate()


def imported() -> tuple[float, float]:
    """Until monailabel.app is imported."""

    def ready(process: subprocess.Popen[str]) -> None:
        assert process.stdout
        while process.stdout.readline() != "there\n":
            assert process.poll() is None

    return until([sys.executable, "-c", IMPORT], ready)


def answered(studies: str) -> tuple[float, float]:
    """Until the server answers."""
    port = free_port()

    def ready(process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/endolens/", timeout=120).raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(LOOK)
        raise AssertionError("the server has ended")

    return until([ENDOLENS, "serve", "--studies", studies, "--port", str(port)], ready)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="The median of so many is taken.")
def main(rounds: int) -> None:
    """Print the ratio; the aim is at most 1.2."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "study").symlink_to(STUDY)
        # The first round warms up.
        pairs = [(imported(), answered(folder)) for _ in range(rounds + 1)][1:]
    for index, what in enumerate(("processor time", "time on the clock")):
        alone, served = ([pair[which][index] for pair in pairs] for which in (0, 1))
        ratio = statistics.median(one / other for one, other in zip(served, alone, strict=True))
        click.echo(Measure(f"First answer: the import's {what}", ratio, "×", 1.2))
        click.echo(f"  {statistics.median(served):.1f} s beside {statistics.median(alone):.1f} s")


if __name__ == "__main__":
    main()
