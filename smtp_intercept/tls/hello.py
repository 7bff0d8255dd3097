"""The ClientHello: the server's name, the protocols and the versions that a client asks for, before anybody answers.

Pure. Refuses nothing: what cannot be read asks for nothing, and is OpenSSL's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# With post-quantum keys one has 2 KB; what is longer is not looked into.
MAX_HELLO_BYTES = 16_384
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_RANDOM_BYTES = 32
# RFC 6066 §3, RFC 7301 §3.1, RFC 8446 §4.2.1.
_SERVER_NAME, _PROTOCOLS, _VERSIONS = 0, 16, 43
_HOST = 0
# As in the DNS, and the underscore that some have; an address is none (RFC 6066 §3).
_NAME = re.compile(r"(?=.{1,253}\Z)(?!.*\.[0-9]+\Z|[0-9]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,62}|\.(?=[a-z0-9_]))*")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """``name`` of the server in lower case, "" if there is none that is one; ``protocols`` of ALPN; ``versions`` as
    their numbers, 0x0303 for TLS 1.2."""

    name: str = ""
    protocols: tuple[bytes, ...] = ()
    versions: tuple[int, ...] = ()


UNREADABLE = ClientHello()


def read_client_hello(octets: bytes) -> ClientHello | None:
    """From the client's first octets; None: more of them must come. `UNREADABLE` is what is none."""
    message, at = bytearray(), 0
    while at < len(octets):
        size_bytes = int.from_bytes(octets[at + 3 : at + _RECORD_HEADER])
        if octets[at] != _HANDSHAKE or (len(octets) >= at + _RECORD_HEADER and not size_bytes):  # RFC 8446 §5.1
            return UNREADABLE
        message += octets[at + _RECORD_HEADER : at + _RECORD_HEADER + size_bytes]
        if message and message[0] != _CLIENT_HELLO:
            return UNREADABLE
        upto = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER])
        if len(message) >= max(upto, _MESSAGE_HEADER):
            return _read(bytes(message[_MESSAGE_HEADER:upto]))
        at += _RECORD_HEADER + size_bytes
    return UNREADABLE if len(octets) >= MAX_HELLO_BYTES else None


class _Short(Exception):  # noqa: N818 - nobody outside hears of it
    """A length says more than there is."""


class _Reader:
    """Octets from the front."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self._at = octets, 0

    def __bool__(self) -> bool:
        return self._at < len(self._octets)

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._octets):
            raise _Short
        return self._octets[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """What has its length, of so many octets, before it."""
        return self.take(self.number(size))


def _read(body: bytes) -> ClientHello:
    try:
        return _fields(_Reader(body))
    except _Short:
        return UNREADABLE


def _fields(reader: _Reader) -> ClientHello:
    version = reader.number(2)
    reader.take(_RANDOM_BYTES)
    reader.vector(1)  # session
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression
    extensions = dict(_extensions(_Reader(reader.vector(2)))) if reader else {}
    versions = _numbers(extensions.get(_VERSIONS, b"")) or (version,)
    return ClientHello(_name(extensions.get(_SERVER_NAME, b"")), _list(extensions.get(_PROTOCOLS, b"")), versions)


def _extensions(reader: _Reader) -> Iterator[tuple[int, bytes]]:
    while reader:
        yield reader.number(2), reader.vector(2)


def _name(extension: bytes) -> str:
    """The first that is a host's."""
    if not extension:
        return ""
    names = _Reader(_Reader(extension).vector(2))
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST:
            text = name.decode("latin-1").lower().removesuffix(".")
            return text if _NAME.fullmatch(text) else ""
    return ""


def _list(extension: bytes) -> tuple[bytes, ...]:
    if not extension:
        return ()
    reader, found = _Reader(_Reader(extension).vector(2)), list[bytes]()
    while reader:
        found.append(reader.vector(1))
    return tuple(found)


def _numbers(extension: bytes) -> tuple[int, ...]:
    if not extension:
        return ()
    versions = _Reader(extension).vector(1)
    return tuple(int.from_bytes(versions[at : at + 2]) for at in range(0, len(versions) - 1, 2))
