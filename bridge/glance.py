"""Links as the kernel has them, at a glance: for commands that answer before a library is loaded.

`links` does everything else that is asked of rtnetlink.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass

from bridge.netlink import ACK, DUMP, REQUEST, answers, attributes

_GET_LINK = 18  # RTM_GETLINK (linux/rtnetlink.h)
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_INFO_KIND = 1, 3, 10, 18, 1  # linux/if_link.h
_UP = 1  # IFF_UP
_INFO = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change


@dataclass(frozen=True, slots=True)
class Glance:
    """``master`` is the bridge that it is a port of; "" if it is none's."""

    up: bool
    master: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One link among all. ``kind`` is the kernel's word for what it is made of, "" for a device."""

    name: str
    mac: str
    kind: str


def links() -> dict[str, Listed]:
    """All links of the network namespace that the thread is in, by name."""
    asked = _INFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found = (_listed(answer) for answer in answers(socket.NETLINK_ROUTE, _GET_LINK, asked, REQUEST | DUMP))
    return {link.name: link for link in found}


def _listed(answer: bytes) -> Listed:
    has = dict(attributes(answer[_INFO.size :]))
    made_of = dict(attributes(has.get(_IFLA_LINKINFO, b"")))
    return Listed(
        _text(has[_IFLA_IFNAME]), has.get(_IFLA_ADDRESS, b"").hex(":"), _text(made_of.get(_IFLA_INFO_KIND, b""))
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def link(name: str) -> Glance | None:
    """None if there is none of this name."""
    if not (index := index_of(name)):
        return None
    asked = _INFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    answer = next(answers(socket.NETLINK_ROUTE, _GET_LINK, asked, REQUEST | ACK), b"")
    if len(answer) < _INFO.size:
        return None
    flags = _INFO.unpack_from(answer)[3]
    master = dict(attributes(answer[_INFO.size :])).get(_IFLA_MASTER)
    return Glance(bool(flags & _UP), name_of(int.from_bytes(master, sys.byteorder)) if master else "")


def index_of(name: str) -> int:
    """0 if there is no such link."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def name_of(index: int) -> str:
    """ "" if there is no such link."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
