"""Where results are sent to: a PACS by STOW-RS, or an application entity by C-STORE."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread
from pynetdicom import AE

from monai_label_app.library import is_address
from monai_label_app.listening.security import Security
from monai_label_app.pacs import TIMEOUT, Pacs, PacsError

_ENTITY = re.compile(
    r"(?P<tls>dicom-tls://)?(?P<title>[^@\\\s][^@\\]{0,15})@(?P<host>[\w.:-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})"
)
_STORED = (0x0000, 0xB000, 0xB006, 0xB007)
"""Status of a C-STORE that says that the object is there, with or without a warning (PS3.4 table B.2-1)."""


class Destination(Protocol):
    """Gets results."""

    def send(self, files: Sequence[Path], sent: Callable[[Path], None]) -> None:
        """Send objects of one study; one that is there already is not doubled.

        Args:
            files: DICOM files; one that is gone was replaced by something newer, and is passed over.
            sent: called with each that is there; what it raises ends the sending.

        Raises:
            PacsError: it does not answer, or refuses one of them; those before it are there.
        """


def open_destination(address: str, title: str, security: Security) -> Destination:
    """The destination of an address.

    Args:
        address: ``http://…`` or ``https://…`` of a DICOMweb service, ``AET@host:port``, or ``dicom-tls://AET@host:port``.
        title: AE title that calls.
        security: for the last.

    Raises:
        ValueError, PacsError: it is no address, or the files of the security cannot be used.
    """
    if is_address(address):
        return DicomWeb(Pacs(address))
    parts = _ENTITY.fullmatch(address)
    if parts is None or not 0 < int(parts["port"]) < 65536:
        shown = re.sub("//[^/@]*@", "//…@", address)  # what may be a password
        raise ValueError(f"{shown} is neither a DICOMweb address (http://…) nor of the form AET@host:port")
    context = security.calling() if parts["tls"] else None
    return Entity(address, parts["title"], parts["host"].strip("[]"), int(parts["port"]), title, context)


class DicomWeb:
    """A PACS by STOW-RS."""

    def __init__(self, pacs: Pacs) -> None:
        self._pacs = pacs

    def send(self, files: Sequence[Path], sent: Callable[[Path], None]) -> None:
        """As :meth:`Destination.send`."""

        def passing() -> Iterator[Dataset]:
            for file, dataset in _read(files):
                yield dataset
                sent(file)  # the next is asked for, so this one is there

        self._pacs.store(passing())


class Entity:
    """An application entity by C-STORE, over TLS if there is a context for it."""

    def __init__(
        self, address: str, title: str, host: str, port: int, calling: str, context: ssl.SSLContext | None
    ) -> None:
        self._address, self._title, self._host, self._port = address, title, host, port
        self._calling, self._tls = calling, (context, host) if context else None

    def send(self, files: Sequence[Path], sent: Callable[[Path], None]) -> None:
        """As :meth:`Destination.send`."""
        entity = AE(self._calling)
        entity.connection_timeout = entity.acse_timeout = TIMEOUT[0]
        entity.dimse_timeout = entity.network_timeout = TIMEOUT[1]
        kinds = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for _, one in _read(files, pixels=False)}
        for kind in sorted(kinds):
            entity.add_requested_context(*kind)
        if not kinds:
            return
        association = entity.associate(self._host, self._port, ae_title=self._title, tls_args=self._tls)
        if not association.is_established:
            raise PacsError(
                f"{self._address} {'refuses to be called' if association.is_rejected else 'does not answer'}"
            )
        try:
            for file, dataset in _read(files):
                self._store(association, dataset)
                sent(file)
        finally:
            association.release()

    def _store(self, association, dataset: Dataset) -> None:  # type: ignore[no-untyped-def]
        try:
            answer = association.send_c_store(dataset)
        except (ValueError, RuntimeError) as error:
            # No context was accepted for it, or the association has ended.
            raise PacsError(f"{self._address} does not take {dataset.SOPInstanceUID}: {error}") from error
        if "Status" not in answer:
            raise PacsError(f"{self._address} ended the association")
        if answer.Status not in _STORED:
            comment = f", {answer.ErrorComment}" if answer.get("ErrorComment") else ""
            raise PacsError(f"{self._address} refused {dataset.SOPInstanceUID} (status {answer.Status:04X}H{comment})")


def _read(files: Sequence[Path], pixels: bool = True) -> Iterator[tuple[Path, Dataset]]:
    for file in files:
        try:
            dataset = dcmread(file, stop_before_pixels=not pixels)
        except FileNotFoundError:
            continue
        yield file, dataset
