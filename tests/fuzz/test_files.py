"""`endolens analyze` of malformed files: it ends with results or a sentence, and leaves nothing half done."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG4HP41

from tests.dicom_files import by_pillow, image, of_every_syntax, write
from tests.fuzz.damage import MEGABYTES, SECONDS, Door, damaged, damaged_dicom, is_sentence
from tests.video_files import encode, numbered, wrapped

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]

NOTICE = "tiny: test model, not for clinical use"


class Reader:
    """A process that analyses files; it is started anew after a crash or a hang."""

    def __init__(self, model: Path, folder: Path) -> None:
        self._command = [sys.executable, "-m", "tests.fuzz.reading", str(model)]
        self._log = folder / "log"
        self._process: subprocess.Popen[str] | None = None

    def ask(self, file: Path) -> dict[str, Any] | str:
        """How the analysis of a file ends; or a sentence, where the process does not live to tell."""
        if self._process is None:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY
                )
            self._answer(180)
        assert self._process.stdin
        self._process.stdin.write(f"{file}\n")
        self._process.stdin.flush()
        try:
            if line := self._answer(SECONDS):
                answer: dict[str, Any] = json.loads(line)
                return answer
            return f"the process ends by signal or code {self.end()}: {self._log.read_text()[-300:]}"
        except queue.Empty:
            self.end()
            return f"it hangs for {SECONDS} seconds"

    def _answer(self, seconds: float) -> str:
        assert self._process and self._process.stdout
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda read: lines.put(read()), args=(self._process.stdout.readline,)).start()
        return lines.get(timeout=seconds)

    def end(self) -> int:
        """End the process; how it ended before, if it did."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code


@pytest.fixture(scope="module")
def reader(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(checkpoint, tmp_path_factory.mktemp("reader"))
    yield reader
    reader.end()


def stills(polyp: NDArray[np.uint8], folder: Path) -> list[Path]:
    """DICOM images in every transfer syntax and of every kind of pixels that is read."""
    pixels = np.ascontiguousarray(polyp[:64, :72])
    grey = pixels[..., 0].astype(np.uint16) << 4
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 2}
    return [
        *of_every_syntax(pixels, folder).values(),
        write(image(np.stack([pixels] * 3)), folder / "frames.dcm"),
        write(image(grey, RescaleIntercept=-9, **window), folder / "grey.dcm"),
    ]


def pictures(polyp: NDArray[np.uint8], folder: Path) -> list[Path]:
    pixels = np.ascontiguousarray(polyp[:64, :72])
    kinds = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "tiff": "TIFF"}
    for suffix, kind in kinds.items():
        options = {"compression": "tiff_lzw"} if suffix == "tiff" else {}
        (folder / f"whole.{suffix}").write_bytes(by_pillow(pixels, kind, **options))
    return [folder / f"whole.{suffix}" for suffix in kinds]


def videos(polyp: NDArray[np.uint8], folder: Path) -> list[Path]:
    frames = [numbered(number) for number in range(20)]
    codecs = {"a.mp4": "libx264", "b.mkv": "libx265", "c.mpg": "mpeg2video", "d.avi": "mpeg4"}
    return [encode(folder / name, frames, codec) for name, codec in codecs.items()]


def recordings(polyp: NDArray[np.uint8], folder: Path) -> list[Path]:
    """Video Endoscopic Images."""
    h264, hevc, mpeg2, _ = videos(polyp, folder)
    coded = {"h264.dcm": (h264, MPEG4HP41), "hevc.dcm": (hevc, HEVCMP51), "mpeg2.dcm": (mpeg2, MPEG2MPML)}
    return [write(wrapped(file, syntax, 20, 25), folder / name) for name, (file, syntax) in coded.items()]


def damaged_file(random: Random, content: bytes) -> bytes:
    return (damaged_dicom if content[128:132] == b"DICM" and random.random() < 0.6 else damaged)(random, content)


@pytest.mark.parametrize(("make", "count"), [(videos, 12), (recordings, 10), (pictures, 20), (stills, 40)])
def test_a_malformed_file_has_results_or_a_sentence(
    reader: Reader, polyp: NDArray[np.uint8], tmp_path: Path, pytestconfig: pytest.Config,
    make: Callable[[NDArray[np.uint8], Path], list[Path]], count: int,
) -> None:  # fmt: skip
    whole = make(polyp, tmp_path)
    for file in whole:
        assert wrong(answer := reader.ask(file), file) == "" and answer["code"] == 0, answer  # type: ignore[index]
    door = Door(make.__name__, pytestconfig.getoption("--seed"), count)
    for random in door:
        source = random.choice(whole)
        content = damaged_file(random, source.read_bytes())
        file = tmp_path / f"damaged{source.suffix}"
        file.write_bytes(content)
        if what := wrong(reader.ask(file), file):
            door.fault(f"{source.name}: {what}", content)
    door.require_no_fault()


def wrong(answer: dict[str, Any] | str, file: Path) -> str:
    """What is not as it must be; empty if nothing is."""
    if isinstance(answer, str):
        return answer
    if answer["fault"]:
        return str(answer["fault"])
    if answer["megabytes"] > MEGABYTES:
        return f"it takes {answer['megabytes']} MB"
    if answer["code"] == 0:
        return ""
    said = [line for line in answer["said"].splitlines() if line.strip() not in ("", "Analysing", NOTICE)]
    sentences = [re.fullmatch("(?:left out|Error): (.+)", line) for line in said]
    if not said or not said[-1].startswith("Error: ") or not all(one and is_sentence(one[1]) for one in sentences):
        return f"no sentence: {answer['said']}"
    in_part = "what is there was analysed" in answer["said"]
    return f"it leaves {answer['left']}" if answer["left"] and not in_part else ""
