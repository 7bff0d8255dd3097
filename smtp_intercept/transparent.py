"""Sockets that speak for others: listening on every address, dialling from a client's own address and port.

One kind of I/O: it makes sockets and reads their options; it never reads or writes what they carry.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeAlias

from bridge.flow import DIVERT, MAGIC
from bridge.lane import LANE_MAC, device_of

# (address, port), for IPv6 also (address, port, flow, scope) as the kernel gives it.
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

# Makes a non-blocking TCP socket of that family, bound to nothing.
Blank: TypeAlias = Callable[[socket.AddressFamily], socket.socket]

# Not in Python's socket module: linux/in6.h.
_IPV6_TRANSPARENT = 75
_TRANSPARENT = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
}
_ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}

# linux/tcp.h. 2: the SYN is kept with its link layer's header; freed when it is read.
_TCP_SAVE_SYN, _TCP_SAVED_SYN, _WITH_MACS = 27, 28, 2
_ETHERNET_BYTES, _HEADERS_BYTES = 14, 512  # all headers of a SYN must fit, or nothing is given
_IP_ETHERTYPES = frozenset({b"\x08\x00", b"\x86\xdd"})

# Leave by the lane.
DIVERTED = MAGIC | DIVERT
# Connections that may wait for `accept`: while the daemon is stopped for a moment none is refused, and a full
# backlog would answer with SYN cookies, whose last ACK finds no socket.
BACKLOG = 65_535
# The client's port cannot be had: taken, its last connection still in TIME_WAIT, or below 1024 without the right.
_PORT_TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Dialled:
    """A socket whose connection is under way, or there. ``hidden``: the server sees the client's address;
    ``source_port_kept``: and its port."""

    sock: socket.socket
    source_port_kept: bool
    hidden: bool = True


def listen(
    family: socket.AddressFamily, port: int, device: str | None, mark: int | None, backlog: int = BACKLOG
) -> socket.socket:
    """A listener on every address of ``family``, its own or not, for connections that come in by ``device``.

    Needs CAP_NET_RAW, below port 1024 CAP_NET_BIND_SERVICE too. OSError if another service has the port there.
    """
    sock = _transparent(family, mark, device)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with suppress(OSError):  # kernels before 5.10: without the MACs in the mail log
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, _WITH_MACS)
        sock.bind((_ANYWHERE[family], port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Dialler:
    """Connects to servers in their clients' names or, not ``hidden``, from the box's own address: of ``own`` the first
    of the server's family, of none the one that routing picks. A family that the box has no address in stays hidden:
    mail goes on. ``blank`` makes sockets where its own addresses are, if that is not here."""

    hidden: bool = True
    own: Sequence[IPv4Interface | IPv6Interface] = ()
    mark: int | None = DIVERTED
    blank: Blank | None = None

    def __call__(self, client: Address, server: Address, mark: int | None = None) -> Dialled:
        """``mark`` replaces our own for this connection. OSError is our own network's; the server's answer comes with
        the connection."""
        family = _family(server)
        own = self._own(4 if family == socket.AF_INET else 6)
        if self.hidden or (self.own and own is None):
            mark = self.mark if mark is None else mark
            return call(client, server, mark, None if mark is None else device_of(mark))
        return Dialled(_call_own(own, server, self.blank), source_port_kept=False, hidden=False)

    def _own(self, version: int) -> str | None:
        return next((str(interface.ip) for interface in self.own if interface.version == version), None)


def call(
    client: Address, server: Address, mark: int | None, device: str | None = None, blank: Blank | None = None
) -> Dialled:
    """Begin to connect to ``server`` as ``client``: from its address and port, else from its address and a fresh port.
    That a port cannot be had is known at once. What comes by another ``device`` is not for the socket. ``blank`` makes
    sockets of the network namespace that the lane is in, if that is not ours."""
    try:
        sock = _bind(_transparent(_family(client), mark, device, blank), client)
        return Dialled(_call(sock, server), source_port_kept=True)
    except OSError as failure:
        if failure.errno not in _PORT_TAKEN:
            raise
    fresh: Address = (client[0], 0) if len(client) == 2 else (client[0], 0, *client[2:])
    sock = _bind(_transparent(_family(fresh), mark, device, blank), fresh)
    return Dialled(_call(sock, server), source_port_kept=False)


async def dial(
    client: Address, server: Address, mark: int | None, device: str | None = None, blank: Blank | None = None
) -> Dialled:
    """Connect to ``server`` as ``client`` (`call`). OSError is the server's refusal, or the network's."""
    dialled = call(client, server, mark, device, blank)
    await _connected(dialled.sock)
    return dialled


def saved_macs(accepted: socket.socket) -> tuple[str, str | None] | None:
    """The client's MAC and the one that it sent its SYN to, the server's or the next hop's towards it: None where the
    lane had to put its own in that place. None instead of both if the kernel kept no SYN (cookies), or the second
    time."""
    try:
        syn = accepted.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, _HEADERS_BYTES)
    except OSError:
        return None
    if len(syn) < _ETHERNET_BYTES or syn[12:14] not in _IP_ETHERTYPES:
        return None
    server = syn[:6].hex(":")
    return syn[6:12].hex(":"), None if server == LANE_MAC else server


async def dial_own(own: str | None, server: Address) -> socket.socket:
    """Connect to ``server`` from the box's address ``own``, or from the one that routing picks."""
    sock = _call_own(own, server)
    await _connected(sock)
    return sock


def reset_on_close(sock: socket.socket) -> None:
    """Whoever closes ``sock`` will send a RST and drop what has not been sent. A dead socket stays as it is."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _made(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _plain(family: socket.AddressFamily, blank: Blank | None = None) -> socket.socket:
    sock = (blank or _made)(family)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _transparent(
    family: socket.AddressFamily, mark: int | None, device: str | None, blank: Blank | None = None
) -> socket.socket:
    sock = _plain(family, blank)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*_TRANSPARENT[family], 1)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if device is not None:  # another lane may know the same addresses
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    except OSError:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, address: Address) -> socket.socket:
    """A fresh port (0) is chosen when the server is known: chosen here, it would have to be free towards every
    server, and one busy client would run out of ports."""
    try:
        if not address[1]:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _call_own(own: str | None, server: Address, blank: Blank | None = None) -> socket.socket:
    sock = _plain(_family(server), blank)
    return _call(sock if own is None else _bind(sock, (own, 0)), server)


def _call(sock: socket.socket, server: Address) -> socket.socket:
    failure = sock.connect_ex(server)
    if failure not in {0, errno.EINPROGRESS}:
        sock.close()
        raise OSError(failure, os.strerror(failure))
    return sock


async def _connected(sock: socket.socket) -> None:
    """Not by the loop's `sock_connect`: uvloop's asks a thread to resolve the address, which is resolved."""
    try:
        await _writable(sock)
        if failure := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failure, os.strerror(failure))
    except BaseException:
        sock.close()
        raise


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock.fileno(), _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
