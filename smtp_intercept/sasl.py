"""Of a SASL exchange: who the client says he is, and whether it ends in a security layer, from which on octets have
lengths and no lines (RFC 4422 §3.7).

Pure. Of credentials it reads nothing but that, and keeps nothing but the name.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from smtp_intercept.wire import begins_transaction, safe_text

# RFC 4422 §3.7: a length of four octets, and no layer known takes more than 2^24 - 1.
FIRST_OCTET, LENGTH_BYTES = 0, 4
_DIRECTIVE = re.compile(rb'\s*([a-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)', re.DOTALL)
MAX_USER = 255  # letters of a name; what is longer is cut
_SEALED = 0x02  # RFC 4121 §4.2.2
_NO_LAYER = 0x01  # RFC 4752 §3.3, a bit mask


def _qop(response: bytes) -> bool | None:
    """DIGEST-MD5's own word (RFC 2831 §2.1.2); without one it is "auth"."""
    said = {name: value.strip(b'" ') for name, value in _DIRECTIVE.findall(response)}
    return said.get(b"qop", b"auth") != b"auth" if b"digest-uri" in said else None


def _wrapped(token: bytes) -> bool | None:
    """GSSAPI's last token wraps the layer that was chosen, and nothing is sealed yet (RFC 4752 §3.1, 4121 §4.2.6.2)."""
    if token[:2] != b"\x05\x04" or len(token) < 20 or token[2] & _SEALED:
        return None
    checksum, turned = int.from_bytes(token[4:6]), int.from_bytes(token[6:8])
    rest = token[16:]
    turned %= len(rest)
    plain = (rest[turned:] + rest[:turned])[: len(rest) - checksum]
    return plain[0] != _NO_LAYER if plain else None


# By mechanism: those that have a layer, and how to see what was chosen; None: not to be seen.
_LAYERED: Mapping[bytes, Callable[[bytes], bool | None]] = MappingProxyType(
    {
        b"DIGEST-MD5": _qop,
        b"GSSAPI": _wrapped,
        b"GSS-SPNEGO": lambda token: None,
        b"KERBEROS_V4": lambda token: None,
        b"SRP": lambda token: None,
    }
)


def first_frame(octets: bytes, most_bytes: int) -> int | None:
    """How many octets of the client's its first protected buffer has, 0 if it is not whole; None: these are none, or
    such that a server without a layer could read a message in them. RFC 4954 §4: the first command is EHLO."""
    size_bytes = LENGTH_BYTES + int.from_bytes(octets[:LENGTH_BYTES])
    if len(octets) < LENGTH_BYTES:
        return 0
    if size_bytes > most_bytes or begins_transaction(octets[:size_bytes]):
        return None
    return size_bytes if len(octets) >= size_bytes else 0


def _found(pattern: bytes) -> Callable[[bytes], bytes]:
    whole = re.compile(pattern, re.DOTALL)
    return lambda response: found[1] if (found := whole.fullmatch(response)) else b""


# By mechanism: the name in the client's first response, b"" if it is not what the mechanism says. LOGIN's second one is
# the password, and no name whatever the first was.
_NAMES: Mapping[bytes, Callable[[bytes], bytes]] = MappingProxyType(
    {
        b"PLAIN": _found(rb"[^\0]*\0([^\0]+)\0[^\0]+"),  # RFC 4616 §2: the one whose password it is
        b"LOGIN": _found(rb"(.+)"),
        b"CRAM-MD5": _found(rb"(.+) [0-9a-f]{32}"),  # RFC 2195 §2
        b"XOAUTH2": _found(rb"user=([^\x01]+)\x01.*"),
        b"OAUTHBEARER": _found(rb"[^,]*,a=([^,]+),.*"),  # RFC 7628 §3.1
        b"SCRAM": _found(rb"[^,]*,[^,]*,n=([^,]+),.*"),  # RFC 5802 §5.1
        b"DIGEST-MD5": lambda response: dict(_DIRECTIVE.findall(response)).get(b"username", b"").strip(b'"'),
    }
)


class Exchange:
    """One AUTH command (its argument) and the lines that follow it. ``layered``: octets with lengths may follow its
    success. ``user`` is who is in if it succeeds, "" if that cannot be told."""

    __slots__ = ("_name", "_read", "layered", "user")

    def __init__(self, argument: bytes) -> None:
        mechanism, *response = argument.upper().split(None, 1) or [b""]
        self._name = _NAMES.get(b"SCRAM" if mechanism.startswith(b"SCRAM-") else mechanism)
        self._read = _LAYERED.get(mechanism)
        self.layered, self.user = self._read is not None, ""
        if response:
            self._learn_name(argument.split(None, 1)[1])

    def _learn_name(self, line: bytes) -> None:
        """From the first response, and no other."""
        read, self._name = self._name, None
        if read is not None:
            with suppress(ValueError):  # no base64, or another's idea of it
                self.user = safe_text(read(b64decode(line.strip(), validate=True)))[:MAX_USER]

    def hear(self, line: bytes) -> None:
        """A line of the client's."""
        self._learn_name(line)
        if self._read is None:
            return
        try:
            chosen = self._read(b64decode(line))
        except ValueError:  # no base64
            return
        if chosen is not None:
            self.layered = chosen
