"""A node that is killed, over and over, at any moment: each study has its results in the PACS, once and whole.

The long run: ``pytest tests/e2e/test_durability.py --kills 100``, with 30 studies for each database.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom import Dataset

from monai_label_app.listening.store import DONE, Store
from report.structured_report import is_findings_report, read_findings
from tests.e2e.conftest import Orthanc, free_port, running_orthanc
from tests.e2e.listening import Node, association, stills, stored, undisturbed, until
from tests.postgresql import postgresql

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUIET = 2.0
IMAGES = 3
PATIENCE = ["--attempts", "1000", "--backoff", "2", "--quiet", str(QUIET), "--reserve", "0"]
FULL = 0xA700
BALLAST = "ballast"


class Modality(threading.Thread):
    """Sends studies, and each image until it is acknowledged, then never again."""

    def __init__(self, port: int, studies: list[list[Dataset]], random_seed: int) -> None:
        super().__init__(daemon=True)
        self._port, self._studies, self._random = port, studies, random.Random(random_seed)
        self.may_send, self.refused = 0, 0

    def run(self) -> None:
        for number, study in enumerate(self._studies, start=1):
            while self.may_send < number:
                time.sleep(0.05)
            for image in study:
                while not self._send(image):
                    time.sleep(0.1)
                time.sleep(self._random.uniform(0, 0.3))

    def _send(self, image: Dataset) -> bool:
        with suppress(RuntimeError, ValueError):  # of an association that has ended
            called = association(self._port, [image])
            if called.is_established:
                status = called.send_c_store(image).get("Status")
                called.release()
                self.refused += status == FULL
                return status == 0
        return False


class Killer:
    """Kills a node in the midst of each of its doings, at seeded moments."""

    def __init__(self, node: Node, modality: Modality, orthanc: Orthanc, chance: random.Random) -> None:
        self._node, self._modality, self._orthanc, self._chance = node, modality, orthanc, chance
        self._disk = node.state.parent
        self.hit: Counter[str] = Counter()

    def life(self, doing: str) -> None:
        """Start the node, and kill it soon after it does something; if it does not, a while later all the same."""
        stored, refused = self._stored(), self._modality.refused
        reached, later = {
            "starting": (lambda: True, 2.0),
            "receiving": (self._node.listens, 1.5),
            "refusing": (lambda: fill(self._disk) and self._modality.refused > refused + 2, 1.0),
            "analysing": (lambda: any((self._node.state / "results").glob(".analysis-*")), 0.5),
            "sending": (lambda: self._stored() > stored, 0.3),
        }[doing]
        self._node.start()
        deadline = time.monotonic() + 30
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.005)
        self.hit[doing] += time.monotonic() < deadline
        time.sleep(self._chance.uniform(0, later))
        self._node.kill()
        (self._disk / BALLAST).unlink(missing_ok=True)

    def _stored(self) -> int:
        with suppress(httpx.HTTPError):
            return len(self._orthanc.instances())
        return 0


class Pacs(ExitStack):
    """An Orthanc that goes down, and comes back with what it had."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._up = folder, False
        self.orthanc = Orthanc(f"http://127.0.0.1:{free_port()}", free_port(), None)  # type: ignore[arg-type]

    def switch(self, up: bool) -> None:
        if self._up and not up:
            self.close()
        elif up and not self._up:
            port = int(self.orthanc.http.rpartition(":")[2])
            self.enter_context(running_orthanc(self._folder, port, self.orthanc.dimse_port))
        self._up = up


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_is_killed_when_each_study_has_its_results_once(
    database: str, checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kills = request.config.getoption("--kills") or {"sqlite": 6, "postgresql": 3}[database]
    seed = request.config.getoption("--seed")
    studies = [stills(number, IMAGES) for number in range(1, max(5, kills * 3 // 10) + 1)]
    calm = undisturbed([one for study in studies for one in study], checkpoint, tmp_path / "calm")
    chance = random.Random(seed)
    with ExitStack() as stack:
        state = stack.enter_context(small_disk(tmp_path / "disk")) / "state"
        options = [*PATIENCE, "--model", checkpoint]
        if database == "postgresql":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o777)
            options += ["--database", stack.enter_context(postgresql(folder))]
        pacs = stack.enter_context(Pacs(tmp_path / "orthanc"))
        options += ["--send", pacs.orthanc.dicomweb, "--send", f"ORTHANC@127.0.0.1:{pacs.orthanc.dimse_port}"]
        node = Node(state, *options)
        stack.callback(lambda: node.process and node.kill())
        modality = Modality(node.port, studies, seed)
        modality.start()
        killer = Killer(node, modality, pacs.orthanc, chance)
        for number, doing in enumerate(doings(kills, chance)):
            # They come over the whole time, and where one is needed for what the node is to do.
            wanted = max(1 + number * len(studies) // kills, modality.may_send + (doing in ("sending", "refusing")))
            modality.may_send = min(len(studies), wanted)
            pacs.switch(doing == "sending" or chance.random() < 0.7)
            killer.life(doing)
        pacs.switch(True)
        modality.may_send = len(studies)
        node.start()
        until(node.listens, node.said)  # all may be done already, and it is ended at once
        until(lambda: not modality.is_alive(), node.said)
        store = Store(state, None if database == "sqlite" else str(options[options.index("--database") + 1]))
        done = [DONE] * len(studies) * 3
        until(lambda: [one.state for one in store.jobs()] == done, lambda: (store.jobs(), node.said()))
        assert node.end() == 0
        assert stored(pacs.orthanc) == calm
        assert_the_same(pacs.orthanc, tmp_path)
        print(f"\n{database}: {kills} kills, {dict(killer.hit)} at what was meant, {modality.refused} refusals")
        assert len(+killer.hit) > 1
        assert modality.refused or not state.parent.is_mount()


def doings(kills: int, chance: random.Random) -> list[str]:
    """What a node is to do when it is killed, all alike often; once in twenty times its disk is full."""
    chosen = [("starting", "receiving", "analysing", "sending")[number % 4] for number in range(kills)]
    chance.shuffle(chosen)
    for number in range(kills // 2, kills, 20):
        chosen[number] = "refusing"
    return chosen


def assert_the_same(orthanc: Orthanc, tmp_path: Path) -> None:
    """What the PACS has says the same, in pixels and findings, as what an undisturbed analysis wrote."""
    there = tmp_path / "there"
    there.mkdir()
    calm = {file.stem: pydicom.dcmread(file) for file in (tmp_path / "calm" / "results").rglob("*.dcm")}
    for file in orthanc.download(there):
        one = pydicom.dcmread(file)
        expected = calm[one.SOPInstanceUID]
        if is_findings_report(one):
            assert read_findings(one) == read_findings(expected)
        else:
            assert one.PixelData == expected.PixelData


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 48 MB; where one may not be mounted, an ordinary folder, which is never full."""
    place.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], capture_output=True, check=False
    ).returncode
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> bool:
    """Leave not a byte free on a small disk; whether there is one."""
    if disk.is_mount():
        with suppress(OSError), (disk / BALLAST).open("ab", buffering=0) as file:
            while True:
                file.write(bytes(65536))
    return disk.is_mount()
