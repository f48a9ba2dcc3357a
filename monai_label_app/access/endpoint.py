"""Where a server listens, and whether it may."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Endpoint:
    """An address of this machine.

    Attributes:
        host: name or IP address.
        port: of TCP.
        token_file: holds the token that everybody is asked for; None if nobody is.
        session_key: file that holds what sessions of browsers are signed by; None for the token.
        insecure: others may reach it though nothing asks them who they are.
        tls_certificate, tls_key: PEM files; it speaks TLS if they are given.
    """

    host: str
    port: int
    token_file: Path | None = None
    insecure: bool = False
    session_key: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Its address for a browser on this machine, without a slash at the end."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"

    def open(self, guarded: bool, issuers: bool = True) -> socket.socket:
        """Listen.

        Args:
            guarded: who comes is asked who they are.
            issuers: an issuer of OpenID Connect could be what asks.

        Raises:
            ValueError: others could reach it and nothing would ask them, the certificate cannot be used, the port is
                taken, or the host is not this machine's.
        """
        if self.tls_certificate and self.tls_key:
            from monai_label_app.access.certificate import load

            load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.tls_certificate, self.tls_key)
        if not (self.loopback or guarded or self.insecure):
            issuer = ", set MONAI_LABEL_AUTH_ENABLE (see docs/security.md)," if issuers else ""
            raise ValueError(
                f"{self.host} can be reached from other machines, and nothing would ask them who they are: "
                f"give --token-file FILE{issuer} or say --insecure"
            )
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            listener = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise ValueError(f"cannot listen on {self.host}:{self.port}: {error.strerror}") from None
        # Whoever is accepted inherits it. Without it an answer's end waits 40 ms for the receipt of its beginning.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener


def is_loopback(host: str) -> bool:
    """Whether a host's name or IP address leads to the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
