"""A real `endolens listen`, and modalities that send to it."""

from __future__ import annotations

import copy
import io
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pydicom
from click.testing import CliRunner, Result
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from monai_label_app.cli import main
from monai_label_app.sample import STUDY
from tests.e2e.conftest import ENDOLENS, Orthanc, free_port


class Node:
    """A node with its state in a folder; it is started, killed and started again."""

    def __init__(self, state: Path, *options: str | Path) -> None:
        self.state, self.port = state, free_port()
        self._options = [*map(str, options), "--state", str(state), "--port", str(self.port)]
        self.log = state.with_name(f"{state.name}.log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it does not listen yet."""
        with self.log.open("ab") as log:
            command = [ENDOLENS, "listen", *self._options]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        """End it as an administrator does; its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()


@contextmanager
def listening(state: Path, *options: str | Path) -> Iterator[Node]:
    """A node that listens; it must end cleanly."""
    node = Node(state, *options)
    node.start()
    assert node.process
    try:
        until(lambda: node.listens() or node.process.poll() is not None, node.said)
        yield node
        assert node.end() == 0, node.said()
    finally:
        node.kill()


def until(done: Callable[[], object], said: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def association(
    port: int, datasets: Sequence[Dataset], called: str = "ENDOLENS", calling: str = "SCOPE"
) -> Association:
    """Call a node, with the contexts for some objects."""
    entity = AE(calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 20
    entity.add_requested_context("1.2.840.10008.1.1")
    for kind in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
        entity.add_requested_context(*kind)
    return entity.associate("127.0.0.1", port, ae_title=called)


def send(port: int, datasets: Sequence[Dataset]) -> list[Dataset]:
    """C-STORE; what is answered to each."""
    called = association(port, datasets)
    assert called.is_established
    answers = [called.send_c_store(one) for one in datasets]
    called.release()
    return answers


def send_bytes(port: int, dataset: Dataset, content: bytes) -> int:
    """C-STORE of bytes that stand in the place of an encoded data set; the status."""
    called = association(port, [dataset])
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    request.DataSet = io.BytesIO(content)
    context = next(one for one in called.accepted_contexts if one.abstract_syntax == dataset.SOPClassUID)
    called._reactor_checkpoint.clear()  # its own thread would take the answer
    until(lambda: called._is_paused, lambda: "the association does not pause")
    called.dimse.send_msg(request, context.context_id)
    _, answer = called.dimse.get_msg(block=True)
    called._reactor_checkpoint.set()
    called.release()
    return int(answer.Status)


def stills(study: int, count: int) -> list[Dataset]:
    """The first stills of the sample as images of a study of a patient of their own."""
    made = []
    for number, file in enumerate(sorted(STUDY.iterdir())[:count], start=1):
        still = copy.deepcopy(pydicom.dcmread(file))
        still.PatientID = f"patient {study}"
        still.StudyInstanceUID, still.SeriesInstanceUID = f"1.2.3.{study}", f"1.2.3.{study}.1"
        still.SOPInstanceUID = still.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{study}.1.{number}"
        made.append(still)
    return made


def stored(orthanc: Orthanc) -> dict[str, list[str]]:
    """Study → SOP Instance UIDs of what an Orthanc has of it, sorted; one that is there twice is named twice."""

    def ask(path: str) -> list[dict[str, Any]]:
        return list(httpx.get(f"{orthanc.http}/{path}", timeout=60).raise_for_status().json())

    return {
        study["MainDicomTags"]["StudyInstanceUID"]: sorted(
            one["MainDicomTags"]["SOPInstanceUID"] for one in ask(f"studies/{study['ID']}/instances")
        )
        for study in ask("studies?expand")
    }


def command(*arguments: object) -> Result:
    """The command line, without a process of its own."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


def undisturbed(datasets: Sequence[Dataset], model: Path, folder: Path) -> dict[str, list[str]]:
    """Study → SOP Instance UIDs of its results, sorted, as `endolens analyze` writes them."""
    place = folder / "images"
    place.mkdir(parents=True)
    for one in datasets:
        one.save_as(place / f"{one.SOPInstanceUID}.dcm", enforce_file_format=True)
    command("analyze", place, "--out", folder / "results", "--model", model)
    studies: dict[str, list[str]] = {}
    for file in sorted((folder / "results").rglob("*.dcm")):
        studies.setdefault(str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID), []).append(file.stem)
    return {study: sorted(uids) for study, uids in studies.items()}
