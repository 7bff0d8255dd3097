"""What STARTTLS shows to clients, read from its files while there is privilege."""

from __future__ import annotations

import ssl
from pathlib import Path

from smtp_intercept.app.mistakes import Mistake, MistakeError
from smtp_intercept.app.schema import Mta


def certificate(mta: Mta) -> ssl.SSLContext | None:
    """None without one. `MistakeError` names the file that cannot be used, and why."""
    if mta.certificate is None or mta.key is None:
        return None
    mistakes = [
        Mistake(("mta", name), f"{path} {why}", "name a PEM file that root may read")
        for name, path in (("certificate", mta.certificate), ("key", mta.key))
        if (why := _unreadable(Path(path)))
    ]
    if mistakes:
        raise MistakeError(*mistakes)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(mta.certificate, mta.key, password=_nobody_to_ask)
    except (OSError, ValueError) as error:
        reason = f"{mta.certificate} and {mta.key} cannot be used: {getattr(error, 'strerror', None) or error}"
        remedy = "both are PEM files, the key without a pass phrase and the certificate's own"
        raise MistakeError(Mistake(("mta", "certificate"), reason, remedy)) from None
    return context


def _nobody_to_ask() -> str:
    """Else OpenSSL would ask the terminal, and wait."""
    raise ValueError("the key has a pass phrase")


def _unreadable(path: Path) -> str:
    try:
        if not path.is_file():  # to open a pipe would wait for its writer
            return "is not a file" if path.exists() else "is not there"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""
