"""OpenSSL's contexts: towards clients with a certificate from memory, towards servers with no demands.

One kind of I/O: OpenSSL reads keys from files only, so they are shown to it in one that has no name.
"""

from __future__ import annotations

import os
import ssl
from contextlib import closing
from typing import Any

# Mail takes weak TLS for better than none, and whoever judges is not OpenSSL: what both peers would use without us.
_CIPHERS = "DEFAULT:@SECLEVEL=0"
_CERTIFICATE_REQUEST = 13  # RFC 8446 §4
_OPTIONS = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


def towards_client(chain: bytes, key: bytes, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """With this certificate, PEM. ValueError (`ssl.SSLError` is one): they do not fit, or are none."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, minimum)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    number = os.memfd_create("key", os.MFD_CLOEXEC)
    with closing(os.fdopen(number, "wb")) as file:
        file.write(chain.rstrip() + b"\n" + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{number}", password=_nobody_to_ask)
    return context


def _nobody_to_ask() -> str:
    """Else OpenSSL would ask the terminal, and wait."""
    raise ValueError("the key has a pass phrase")


def towards_server(minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """Verifies nothing itself: a handshake that is broken off says less than one that is judged. Its objects have
    ``certificate_asked`` as soon as their server wants one of the client."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, minimum)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context._msg_callback = _hear  # type: ignore[attr-defined] # no other way says so
    return context


def _context(protocol: int, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = minimum
    context.set_ciphers(_CIPHERS)
    context.options |= _OPTIONS
    return context


def _hear(connection: Any, direction: str, version: Any, content_type: Any, message_type: Any, data: bytes) -> None:
    if direction == "read" and message_type == _CERTIFICATE_REQUEST and content_type == _HANDSHAKE:
        connection.certificate_asked = True


_HANDSHAKE = 22
