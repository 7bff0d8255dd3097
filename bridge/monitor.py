"""Hears that somebody has changed links, addresses, routes, rules or nft tables: netlink's multicast groups.

Tells that, not what: what it means, a comparison finds. Elements of sets, which the gateway's own rules and daemon
change all the time, are no event, nor are the neighbours that come and go.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_NETFILTER = 12  # NETLINK_NETFILTER
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# linux/rtnetlink.h: LINK, NEIGH, the addresses, routes, rules and settings (rp_filter, forwarding) of both families.
_ROUTE_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 24, 25)
_NFT_GROUPS = (7,)  # NFNLGRP_NFTABLES
_NEIGHBOURS = frozenset({28, 29})  # RTM_NEWNEIGH, RTM_DELNEIGH
# NFNL_SUBSYS_NFTABLES with NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, and NFT_MSG_NEWGEN, which follows all of them.
_NFT_ELEMENTS = frozenset(10 << 8 | message for message in (12, 14, 15))
_PERMANENT = 0x80  # NUD_PERMANENT
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=BxxxiH")  # ndmsg: family, interface, state
# What the kernel keeps for us: a flood of events costs this and no more to read, and what is lost is one more event.
_KEPT_OCTETS = 64 << 10


class Monitor:
    """Of this network namespace, and of others from when they are added. Needs CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._ends: list[socket.socket] = []
        self.add_this()

    def add_this(self) -> None:
        """The network namespace that the thread is in now."""
        self._ends += [_open(socket.NETLINK_ROUTE, _ROUTE_GROUPS), _open(_NETFILTER, _NFT_GROUPS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether something has been changed, within this time."""
        ready, _, _ = select.select(self._ends, (), (), max(timeout_s, 0.0))
        # Each of them: what is about the same change must not be an event of its own.
        return sum(map(_drained, ready)) > 0


def _drained(sock: socket.socket) -> bool:
    """Read to the end, and whether any of it matters."""
    matters = False
    for _ in range(_KEPT_OCTETS // _HEADER.size):
        try:
            data = sock.recv(_KEPT_OCTETS)
        except BlockingIOError:
            break
        except OSError:  # ENOBUFS: some were lost
            matters = True
        else:
            matters = matters or any(_matters(kind, body) for kind, body in _messages(data))
    return matters


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _matters(kind: int, body: bytes) -> bool:
    if kind in _NEIGHBOURS and len(body) >= _NEIGHBOUR.size:
        return bool(_NEIGHBOUR.unpack_from(body)[2] & _PERMANENT)
    return kind not in _NFT_ELEMENTS


def _open(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT_OCTETS)
        sock.bind((0, 0))
        for group in groups:
            with contextlib.suppress(OSError):  # a kernel without IPv6
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        sock.close()
        raise
    return sock
