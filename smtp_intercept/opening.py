"""How a client's stream may begin that is not SMTP: TLS from the start, and the PROXY protocol, versions 1 and 2.

Pure. Asked until the banner has come; behind it such octets are lines like any other, and the server's to answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from smtp_intercept.events import Doubt
from smtp_intercept.wire import begins_transaction

# A handshake record of any version (RFC 8446 §5.1), what a server begins with, and its alert.
TLS = b"\x16\x03"
_TLS_SERVERS = (0x16, 0x15)
_RECORD_HEADER, _CLIENT_HELLO = 5, 1
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # the PROXY protocol's specification, §2.2
_NO_LINES = len(b"\r\n\r\n\0\r\n")  # of it: nobody else begins so
# §2.1: the longest line of version 1.
V1_BYTES = 107
# Addresses take 36 octets, the rest are TLVs; a client certificate in them is the longest that is known.
V2_BYTES = 16_384
_V1 = re.compile(
    rb"PROXY (?:TCP[46] ([0-9a-fA-F:.]{2,39}) [0-9a-fA-F:.]{2,39} ([0-9]{1,5}) [0-9]{1,5}|UNKNOWN[^\r\n]*)\r\n"
)
_ANY_V1 = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)[ \r]")
# By address family and transport, §2.2: octets of one address; any other gives none.
_V2_ADDRESS = {0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16}


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of ``size_bytes``; ``client`` is None where the balancer speaks for itself, or will not say."""

    size_bytes: int
    client: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Hello:
    """A whole ClientHello, a record of ``size_bytes``."""

    size_bytes: int


# What has come may be the beginning of something else than a line.
UNFINISHED = Header(0, None)


class Opening:
    """One stream's. ``balancer``: its client may begin with the PROXY protocol; nobody else is believed."""

    __slots__ = ("_balancer", "_lines")

    def __init__(self, balancer: bool) -> None:
        self._balancer = balancer
        self._lines: bytes | None = b""  # since the start, as long as they may be a signature's

    def begin(self, buffer: bytes, position: int) -> Header | Hello | Doubt | None:
        """What the octets at the start of a line mean; None: a line begins."""
        if self._lines != b"":
            return None
        if buffer.startswith(TLS, position):
            return read_hello(buffer[position:])
        return read_header(buffer[position:]) if self._balancer else None

    def line(self, line: bytes) -> Doubt | None:
        """A whole line that `begin` took for one."""
        before, self._lines = self._lines, None
        if before is None:
            return None
        if not before and _ANY_V1.match(line):
            return Doubt.PROXIED
        if SIGNATURE.startswith(so_far := before + line):
            self._lines = so_far
            return Doubt.PROXIED if len(so_far) >= _NO_LINES else None
        return None


def read_hello(stream: bytes) -> Header | Hello | Doubt:
    """The ClientHello at the start of a stream."""
    size_bytes = _RECORD_HEADER + int.from_bytes(stream[3:_RECORD_HEADER])
    if len(stream) > _RECORD_HEADER and stream[_RECORD_HEADER] != _CLIENT_HELLO:
        return Doubt.FOREIGN
    if len(stream) <= _RECORD_HEADER or len(stream) < size_bytes:
        return UNFINISHED
    return Doubt.FOREIGN if begins_transaction(stream[:size_bytes]) else Hello(size_bytes)


def begins_tls(octets: bytes) -> bool:
    """A server's first ones answer a ClientHello."""
    return octets[0] in _TLS_SERVERS


def read_header(stream: bytes) -> Header | Doubt | None:
    """The header at the start of a balancer's stream; None if there is none."""
    for signature, read in ((SIGNATURE, _read_v2), (b"PROXY ", _read_v1)):
        if stream.startswith(signature):
            return read(stream)
        if signature.startswith(stream):
            return UNFINISHED
    return None


def _read_v1(stream: bytes) -> Header | Doubt:
    end = stream.find(b"\n", 0, V1_BYTES) + 1
    if not end:
        return UNFINISHED if len(stream) < V1_BYTES else Doubt.PROXIED
    found = _V1.fullmatch(stream, 0, end)
    if found is None:
        return Doubt.PROXIED
    try:
        return Header(end, (str(ip_address(found[1].decode())), int(found[2])) if found[1] else None)
    except ValueError:
        return Doubt.PROXIED


def _read_v2(stream: bytes) -> Header | Doubt:
    if len(stream) < 16:
        return UNFINISHED
    version, family, length = stream[12], stream[13], int.from_bytes(stream[14:16])
    octets = _V2_ADDRESS.get(family, 0)
    if version not in {0x20, 0x21} or length > V2_BYTES or (version == 0x21 and length < 2 * octets + 4 * bool(octets)):
        return Doubt.PROXIED
    if len(stream) < 16 + length:
        return UNFINISHED
    if begins_transaction(stream[: 16 + length]):  # what its client said may be in it, as the name in a ClientHello
        return Doubt.PROXIED
    if version == 0x20 or not octets:  # LOCAL: the balancer's own
        return Header(16 + length, None)
    ports = 16 + 2 * octets
    return Header(16 + length, (str(ip_address(stream[16 : 16 + octets])), int.from_bytes(stream[ports : ports + 2])))
