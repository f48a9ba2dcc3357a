"""A real archive: what stops in the midst goes on, by one process and by a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from monai_label_app.archive import work
from monai_label_app.archive.query import parse
from monai_label_app.archive.run import Totals, one_by_one, run
from monai_label_app.archive.work import Outcome, Task
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.pacs import Pacs, PacsError
from monai_label_app.results import Wanted
from tests.e2e.conftest import ENDOLENS, Orthanc, free_port, running_orthanc
from tests.e2e.listening import command, stills, stored, undisturbed, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

QUERY = "Modality=ES&StudyDate=20200101-20200104"


def fill(orthanc: Orthanc, studies: int, images: int) -> list[Dataset]:
    """Store studies of four days."""
    made = [one for number in range(1, studies + 1) for one in stills(number, images)]
    for one in made:
        one.StudyDate = f"2020010{int(one.StudyInstanceUID.split('.')[-1]) % 4 + 1}"
    orthanc.store_by_dimse(made)
    return made


def expected(images: list[Dataset], checkpoint: Path, folder: Path) -> dict[str, list[str]]:
    """Study → its images and its results."""
    results = undisturbed(images, checkpoint, folder)
    for one in images:
        results[one.StudyInstanceUID].append(one.SOPInstanceUID)
    return {study: sorted(uids) for study, uids in results.items()}


def summed_up(folder: Path) -> list[str]:
    """The studies that a summary names, sorted."""
    lines = (folder / "summary.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["study"] for line in lines)


def test_an_archive_that_goes_down_is_taken_up_again_and_each_study_found(
    checkpoint: Path, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "PAUSES", (0.1,))
    ports, out = (free_port(), free_port()), tmp_path / "out"
    # It answers with no more than eleven studies, also if it is asked to begin later; fewer where they have results.
    with running_orthanc(tmp_path / "orthanc", *ports, LimitFindResults=10) as orthanc:
        images = fill(orthanc, 12, 1)
        task = Task(orthanc.dicomweb, Wanted(), 10.0, out)

        def stopped(studies: Iterator[str], task: Task, classifier: Classifier) -> Iterator[Outcome]:
            for number, outcome in enumerate(one_by_one(studies, task, classifier)):
                yield outcome
                if number == 2:
                    orthanc.process.terminate()
                    orthanc.process.wait(20)

        with pytest.raises(PacsError, match=r"no PACS answers .*what is done is kept"):
            run(parse(QUERY), task, classifier, out, stopped)
        assert len(summed_up(out)) == 3
        with pytest.raises(PacsError, match="no PACS answers"):
            run(parse(QUERY), task, classifier, out)
    with running_orthanc(tmp_path / "orthanc", *ports, LimitFindResults=10) as orthanc:
        assert run(parse(QUERY), task, classifier, out) == Totals(9, 9, before=3, failed=0, named=0)
        there = stored(orthanc)
        assert there == expected(images, checkpoint, tmp_path / "calm")
        (study, *_) = there
        (late,) = stills(int(study.split(".")[-1]), 2)[1:]
        late.StudyDate = next(one.StudyDate for one in images if one.StudyInstanceUID == study)
        bad = stills(99, 1)[0]
        bad.StudyDate, bad.PixelData = "20200101", encapsulate([b"this is no JPEG."])
        Pacs(orthanc.dicomweb).store([late, bad])
        # What has grown is done again; what fails is named.
        options = ("--pacs", orthanc.dicomweb, "--query", QUERY, "--out", out, "--model", checkpoint)
        done = command("analyze", *options)
        assert "studies analysed: 1, frames: 2, done before: 11" in done.output, done.output
        assert (done.exit_code, "1 studies could not be analysed" in done.output) == (1, True)
        (failure,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
        assert (failure["study"], failure["state"]) == ("1.2.3.99", "failed")
        assert stored(orthanc)["1.2.3.99"] == ["1.2.3.99.1.1"]


@dataclass(frozen=True)
class Nodes:
    """A Ray cluster of two nodes on this machine."""

    cluster: Any

    @property
    def second(self) -> Any:
        """The node that is no head."""
        (node,) = self.cluster.worker_nodes
        return node

    def at_work(self) -> list[psutil.Process]:
        """Processes of the second node that are in the midst of a study."""
        raylet = psutil.Process(self.second.all_processes["raylet"][0].process.pid)
        return [one for one in raylet.children() if one.name().startswith("ray::_Worker.an")]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on 127.0.0.1 alone
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"),
    }
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, mock.patch.dict(os.environ, settings, RAY_TMPDIR=folder):
        from ray.cluster_utils import Cluster

        cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield Nodes(cluster)
        cluster.shutdown()


def test_killed_workers_nodes_and_drivers_cost_nothing_but_time(
    nodes: Nodes, orthanc: Orthanc, checkpoint: Path, tmp_path: Path
) -> None:
    images = fill(orthanc, 16, 2)
    out, log = tmp_path / "out", tmp_path / "log"
    options = ["--pacs", orthanc.dicomweb, "--query", QUERY, "--out", str(out), "--model", str(checkpoint)]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            arguments = [ENDOLENS, "analyze", *options, "--ray", nodes.cluster.address]
            return subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)

    def done() -> int:
        return len(summed_up(out)) if (out / "summary.jsonl").exists() else 0

    driver = start()
    until(nodes.at_work, log.read_text, 300)
    (worker,) = nodes.at_work()
    worker.send_signal(signal.SIGKILL)
    until(lambda: done() >= 4, log.read_text, 300)
    driver.kill()
    driver.wait()
    before = done()
    assert 4 <= before < 16
    driver = start()
    until(lambda: done() > before, log.read_text, 300)
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    assert driver.wait(300) == 0, log.read_text()
    # The driver may have died between the line of a study and its entry; the line does not count then.
    assert any(f"done before: {one}" in log.read_text() for one in (before, before - 1)), log.read_text()
    assert "Traceback" not in log.read_text()
    there = stored(orthanc)
    assert there == expected(images, checkpoint, tmp_path / "calm")
    assert summed_up(out) == sorted(there)
    assert not list((tmp_path / "cache").rglob(".partial-*/*"))
