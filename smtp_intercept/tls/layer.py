"""TLS over one connection, in memory: octets of the wire on one side, plain ones on the other.

No I/O: whoever has the connection reads and writes it. Keeps nothing but the record under way.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

_PIECE_BYTES = 262_144
# What a fatal alert says where nothing better is known (RFC 8446 §6.2): handshake_failure.
_HANDSHAKE_FAILURE = 40


class BrokenError(Exception):
    """It cannot go on: the peer's alert, or octets that are no TLS. In words of OpenSSL's."""


class Layer:
    """One peer's. ``ended``: it has said that it will send no more (close_notify); without that, an end of the stream
    is a truncation. ``certificate_asked``: the server would have one of the client."""

    __slots__ = ("_closed", "_inward", "_outward", "_tls", "ended")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        self._inward, self._outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _object(context, self._inward, self._outward, server_side, name)
        self.ended = self._closed = False

    def handshake(self, octets: bytes = b"") -> bool:
        """It is done. `BrokenError`; what is to be sent, also then, has `to_send`."""
        self._inward.write(octets)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise BrokenError(_words(error)) from None
        return True

    def read(self, octets: bytes) -> bytes:
        """What these and those before them say, as far as whole records go. `BrokenError`: and nothing will follow what
        was read before."""
        self._inward.write(octets)
        pieces = list[bytes]()
        while not self.ended:
            try:
                piece = self._tls.read(_PIECE_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError) as stop:
                self.ended = isinstance(stop, ssl.SSLZeroReturnError)
                break
            except ssl.SSLError as error:
                if pieces:
                    break  # said again by the next read
                raise BrokenError(_words(error)) from None
            self.ended = not piece
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, data: bytes) -> bytes:
        """As it goes over the wire; nothing once it is closed."""
        with suppress(ssl.SSLError):
            if data and not self._closed:
                self._tls.write(data)
        return self.to_send()

    def close(self) -> bytes:
        """close_notify, once."""
        if not self._closed:
            self._closed = True
            with suppress(ssl.SSLError):  # it waits for the peer's own
                self._tls.unwrap()
        return self.to_send()

    def to_send(self) -> bytes:
        """What the handshake, or TLS itself, has for the peer."""
        return self._outward.read()

    @property
    def pending_bytes(self) -> int:
        """Of the record under way."""
        return self._inward.pending

    @property
    def certificate_asked(self) -> bool:
        return bool(getattr(self._tls, "certificate_asked", False))

    def chain(self) -> list[bytes]:
        """The server's certificates, DER, its own first."""
        return chain_of(self._tls)

    def fields(self) -> dict[str, object]:
        """For the session's record in the log."""
        cipher = self._tls.cipher()
        return {"version": self._tls.version(), "cipher": cipher and cipher[0]}


_DER = 2  # _ssl.ENCODING_DER


def _object(
    context: ssl.SSLContext, inward: ssl.MemoryBIO, outward: ssl.MemoryBIO, server_side: bool, name: str
) -> ssl.SSLObject:
    """A name that Python will not send is not sent."""
    try:
        return context.wrap_bio(inward, outward, server_side=server_side, server_hostname=name or None)
    except ValueError:  # UnicodeError is one
        return context.wrap_bio(inward, outward, server_side=server_side)


def chain_of(peer: Any) -> list[bytes]:
    """What the peer of an `ssl.SSLObject` or `ssl.SSLSocket` has shown, DER. (Python 3.13 has it without the inner
    object.)"""
    inner = getattr(peer, "_sslobj", None)
    found = inner.get_unverified_chain() if inner is not None else None
    return [each.public_bytes(_DER) for each in found or ()]


def alert(description: int = _HANDSHAKE_FAILURE) -> bytes:
    """A fatal one, in clear: the answer to a ClientHello (RFC 8446 §6)."""
    return b"\x15\x03\x03\x00\x02\x02" + description.to_bytes()


def _words(error: ssl.SSLError) -> str:
    return (error.reason or type(error).__name__).lower().replace("_", " ")
