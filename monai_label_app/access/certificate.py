"""Certificate and key of a server, in PEM files."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509

from monai_label_app.access.identity import require_private


def load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a server, or who calls one, show a certificate.

    Raises:
        ValueError: others may read the key, or they are no certificate and its key; the message is one sentence.
    """
    try:
        # A key with a password would be asked for at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"{certificate} and {key} are no certificate and its key: {reason}") from None
    require_private(key)


def outdated(certificate: Path) -> str:
    """What is wrong with the days of a certificate that :func:`load` took, in a sentence; empty if nothing is."""
    now = datetime.now(timezone.utc)
    try:
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except ValueError:  # OpenSSL, which took it, knows more kinds
        return ""
    if now > first.not_valid_after_utc:
        return (
            f"the certificate {certificate} expired on {first.not_valid_after_utc:%Y-%m-%d}; who connects refuses it."
        )
    if now < first.not_valid_before_utc:
        return f"the certificate {certificate} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC."
    return ""
