"""DICOM over TLS (PS3.15 annex B): certificates of the node, and whose others it believes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from pynetdicom.events import Event

from monai_label_app.access.certificate import load

HANDSHAKE_SECONDS = 5
"""Within which who connects shows what they have; until then they take the place of a sender."""


class _Deferring(ssl.SSLContext):
    """Shakes hands when it is told to: pynetdicom would do it where all others wait to be accepted."""

    def wrap_socket(self, sock: socket, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As SSLContext's own."""
        return super().wrap_socket(sock, *arguments, **{**options, "do_handshake_on_connect": False})


@dataclass(frozen=True)
class Security:
    """Of a node. Without files it speaks no TLS, and believes the authorities of the system.

    Attributes:
        certificate, key: PEM files; it listens by TLS if they are given, and shows them to destinations that ask.
        authority: PEM file of those that sign the certificates of others; who sends needs one then.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def listening(self) -> ssl.SSLContext | None:
        """For a node that listens; None without TLS.

        Raises:
            ValueError: the files are not what they should be.
        """
        if self.certificate is None:
            return None
        context = _Deferring(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.authority:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def calling(self) -> ssl.SSLContext:
        """For a destination, whose certificate must name the host that is called; raises as :meth:`listening`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.authority is None:
            context.load_default_certs()
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self.certificate and self.key:
            load(context, self.certificate, self.key)
        try:
            if self.authority:
                context.load_verify_locations(self.authority)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ValueError(f"{self.authority} cannot be used for TLS: {reason}") from None


def shake_hands(event: Event) -> None:
    """Begin TLS with who connected, in the thread that is theirs; who does not in time is hung up on."""
    connection = event.assoc.dul.socket.socket  # type: ignore[union-attr]
    assert isinstance(connection, ssl.SSLSocket)
    connection.settimeout(HANDSHAKE_SECONDS)
    try:
        connection.do_handshake()
        connection.settimeout(None)
    except OSError:
        connection.close()
