"""Reads single things of our nft tables from the kernel, by netlink: counters, a table's presence, a small set.

nft(8) 1.0.6 lists every element of every set before it says anything at all, which takes seconds with full tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridge.netlink import ACK, DUMP, REQUEST, answers, attributes

_NETFILTER, _SUBSYSTEM = 12, 10 << 8  # NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES (linux/netfilter/nfnetlink.h)
_GET_TABLE, _GET_ELEMENTS, _GET_GENERATION, _GET_OBJECTS = 1, 13, 16, 19  # linux/netfilter/nf_tables.h
_FAMILIES = {"inet": 1, "netdev": 5, "bridge": 7}  # NFPROTO_*


def has_table(family: str, name: str) -> bool:
    """Whether there is such a table."""
    return next(_answers(_GET_TABLE, family, _string(1, name), REQUEST | ACK), None) is not None


def generation() -> int:
    """A number that changes with every change of this namespace's tables. What iptables of the older kind does, or a
    device that goes, changes none."""
    answer = next(_answers(_GET_GENERATION, "inet", b"", REQUEST | ACK), b"")
    return int.from_bytes(dict(attributes(answer)).get(1, b""))


def counters(family: str, table: str) -> dict[str, int]:
    """Packets by the name of the counter; empty if there is no such table."""
    found = {}
    for answer in _answers(_GET_OBJECTS, family, _string(1, table) + _number(3, 1), REQUEST | DUMP):
        kind, data = dict(attributes(answer)), {}
        if int.from_bytes(kind.get(3, b"")) == 1:  # NFT_OBJECT_COUNTER
            data = dict(attributes(kind.get(4, b"")))
            found[kind[2].rstrip(b"\0").decode()] = int.from_bytes(data.get(2, b""))
    return found


def keys(family: str, table: str, name: str) -> list[bytes]:
    """The keys of a set's elements, each part of a concatenation padded to four octets; empty if there is none."""
    asked = _string(1, table) + _string(2, name)
    lists = (dict(attributes(answer)).get(3, b"") for answer in _answers(_GET_ELEMENTS, family, asked, REQUEST | DUMP))
    elements = (dict(attributes(element)) for all_ in lists for _, element in attributes(all_))
    return [dict(attributes(element[1]))[1] for element in elements if 1 in element]


def _answers(message: int, family: str, asked: bytes, flags: int) -> Iterator[bytes]:
    """The attributes of each message of the answer."""
    body = struct.pack("=BBH", _FAMILIES[family], 0, 0) + asked
    return (payload[4:] for payload in answers(_NETFILTER, _SUBSYSTEM | message, body, flags))


def _string(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=HH", 8, kind) + value.to_bytes(4)
