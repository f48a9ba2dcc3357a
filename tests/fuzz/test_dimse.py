"""A real `endolens listen` that is sent malformed messages and objects: it refuses them, and goes on."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    P_DATA,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from tests.dicom_files import NATIVE, of_every_syntax
from tests.e2e.listening import Node, association, listening, send_bytes
from tests.fuzz.damage import MEGABYTES, SECONDS, Door, damaged, damaged_dicom

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REFUSED = {0xC000, 0xA700}


@pytest.fixture(scope="module")
def node(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    state = tmp_path_factory.mktemp("fuzzed") / "state"
    options = ["--send", "NOBODY@127.0.0.1:1", "--model", checkpoint, "--quiet", "3600", "--reserve", "1"]
    with listening(state, *options) as node:
        yield node


def require_sound(node: Node) -> None:
    """It answers a C-ECHO, held no more memory than it may, told of no exception, and has nothing half received."""
    called = association(node.port, [])
    assert called.is_established and called.send_c_echo().Status == 0
    called.release()
    assert node.process
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{node.process.pid}/status").read_text())
    assert peak and int(peak[1]) // 1024 < MEGABYTES
    assert "Traceback" not in node.said(), node.said()[-5000:]
    assert not list(node.state.rglob("*.partial"))


def request() -> bytes:
    """A-ASSOCIATE-RQ of a sender, with contexts for C-ECHO and for an endoscopic image."""
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "SCOPE", "ENDOLENS"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3.4"
    asked.user_information = [length, implementation]
    asked.presentation_context_definition_list = [
        build_context("1.2.840.10008.1.1"),
        build_context("1.2.840.10008.5.1.4.1.1.77.1.1"),
    ]
    for number, context in enumerate(asked.presentation_context_definition_list):
        context.context_id = 2 * number + 1
    message = A_ASSOCIATE_RQ()
    message.from_primitive(asked)
    return bytes(message.encode())


def data(content: bytes) -> bytes:
    """P-DATA-TF with a command."""
    sent, message = P_DATA(), P_DATA_TF()
    sent.presentation_data_value_list = [[1, b"\x03" + content]]
    message.from_primitive(sent)
    return bytes(message.encode())


def broken(random: Random) -> bytes:
    """An association in which something is wrong, or none at all."""
    echo = bytes.fromhex(
        "00000000040000003800000000000200120000 00312e322e3834302e31303030382e312e3100"
        "00000001020000003000 00001001020000000100 00000008020000000101".replace(" ", "")
    )
    opening = request()
    return random.choice(
        (
            damaged(random, opening),
            damaged(random, opening),
            opening + damaged(random, data(echo)),
            opening + damaged(random, data(echo)) + A_RELEASE_RQ().encode(),
            opening + data(damaged(random, echo)),
            opening + data(random.randbytes(random.choice((1, 20, 3000)))),
            opening + opening,
            data(echo),
            opening[:1] + b"\0\xff\xff\xff\xff" + opening[6:],
            bytes([random.randrange(256)]) + opening[1:],
            opening[: random.randrange(len(opening))],
            b"GET / HTTP/1.1\r\n\r\n",
            random.randbytes(random.choice((1, 6, 300, 100_000))),
        )
    )


def test_what_is_no_message_ends_its_association_and_no_other(node: Node, pytestconfig: pytest.Config) -> None:
    door = Door("dimse-messages", pytestconfig.getoption("--seed"), 30)
    for random in door:
        content = broken(random)
        with socket.create_connection(("127.0.0.1", node.port), timeout=SECONDS) as connection:
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except TimeoutError:
                door.fault(f"no end after {SECONDS} seconds", content)
            except OSError:  # hung up on
                pass
    door.require_no_fault()
    require_sound(node)


def test_an_object_that_is_malformed_is_refused_and_nothing_of_it_is_kept(
    node: Node, polyp: NDArray[np.uint8], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    whole = [file.read_bytes() for file in of_every_syntax(np.ascontiguousarray(polyp[:64, :72]), tmp_path).values()]
    whole = [one for one in whole if dcmread(io.BytesIO(one)).file_meta.TransferSyntaxUID != NATIVE["deflated"]]
    door = Door("dimse-objects", pytestconfig.getoption("--seed"), 25)
    taken = 0
    for random in door:
        content = random.choice(whole)
        good = dcmread(io.BytesIO(content))
        start = 132 + 12 + good.file_meta.FileMetaInformationGroupLength
        changed = damaged_dicom(random, content) if random.random() < 0.5 else content
        sent = damaged(random, changed[start:]) if changed is content or random.random() < 0.3 else changed[start:]
        status = send_bytes(node.port, good, sent)
        taken += status == 0
        if status not in REFUSED | {0}:
            door.fault(f"status {status:04X}", content[:start] + sent)
    door.require_no_fault()
    require_sound(node)
    assert len(list((node.state / "received").rglob("*.dcm"))) <= taken
    for line in node.said().splitlines():
        assert not line.startswith(" "), node.said()
