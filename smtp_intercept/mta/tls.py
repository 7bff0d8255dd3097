"""What is asked of a server's certificate: nothing where TLS only keeps listeners out, its name where it is verified.

Makes contexts; no connection.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from smtp_intercept.mta.nexthop import Security


class Contexts:
    """A context for each security, made once. ``authorities``: a PEM file instead of the system's."""

    def __init__(self, authorities: Path | None = None) -> None:
        self._authorities = str(authorities) if authorities else None
        self._made: dict[bool, ssl.SSLContext] = {}

    def __call__(self, security: Security) -> ssl.SSLContext:
        verified = security is Security.VERIFIED
        if verified not in self._made:
            self._made[verified] = self._verifying() if verified else _any()
        return self._made[verified]

    def _verifying(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._authorities)


def _any() -> ssl.SSLContext:
    """Whoever it is: the alternative would be no TLS at all (RFC 7435)."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
