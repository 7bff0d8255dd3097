"""What ethtool(8) shows and sets of a port, by the kernel's generic netlink family of that name; no program is called.

Knows rings, channels, coalescing and features. Names are ethtool's; a number that the driver does not have is left out.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.ethtool import ethtool_rings_msg, ethtoolbitset, ethtoolheader

# Kernel: include/uapi/linux/ethtool_netlink.h. pyroute2 has the rings alone.


class _Channels(genlmsg):  # type: ignore[misc]  # pyroute2 is not typed
    ethtoolheader = ethtoolheader
    nla_map = (
        ("ETHTOOL_A_CHANNELS_UNSPEC", "none"),
        ("ETHTOOL_A_CHANNELS_HEADER", "ethtoolheader"),
        ("ETHTOOL_A_CHANNELS_RX_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_TX_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_OTHER_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_COMBINED_MAX", "uint32"),
        ("ETHTOOL_A_CHANNELS_RX_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_TX_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_OTHER_COUNT", "uint32"),
        ("ETHTOOL_A_CHANNELS_COMBINED_COUNT", "uint32"),
    )


class _Coalesce(genlmsg):  # type: ignore[misc]
    ethtoolheader = ethtoolheader
    nla_map = (
        ("ETHTOOL_A_COALESCE_UNSPEC", "none"),
        ("ETHTOOL_A_COALESCE_HEADER", "ethtoolheader"),
        ("ETHTOOL_A_COALESCE_RX_USECS", "uint32"),
        ("ETHTOOL_A_COALESCE_RX_MAX_FRAMES", "uint32"),
        ("ETHTOOL_A_COALESCE_RX_USECS_IRQ", "uint32"),
        ("ETHTOOL_A_COALESCE_RX_MAX_FRAMES_IRQ", "uint32"),
        ("ETHTOOL_A_COALESCE_TX_USECS", "uint32"),
        ("ETHTOOL_A_COALESCE_TX_MAX_FRAMES", "uint32"),
        ("ETHTOOL_A_COALESCE_TX_USECS_IRQ", "uint32"),
        ("ETHTOOL_A_COALESCE_TX_MAX_FRAMES_IRQ", "uint32"),
        ("ETHTOOL_A_COALESCE_STATS_BLOCK_USECS", "uint32"),
        ("ETHTOOL_A_COALESCE_USE_ADAPTIVE_RX", "uint8"),
        ("ETHTOOL_A_COALESCE_USE_ADAPTIVE_TX", "uint8"),
    )


class _Features(genlmsg):  # type: ignore[misc]
    ethtoolheader = ethtoolheader
    ethtoolbitset = ethtoolbitset
    nla_map = (
        ("ETHTOOL_A_FEATURES_UNSPEC", "none"),
        ("ETHTOOL_A_FEATURES_HEADER", "ethtoolheader"),
        ("ETHTOOL_A_FEATURES_HW", "ethtoolbitset"),
        ("ETHTOOL_A_FEATURES_WANTED", "ethtoolbitset"),
        ("ETHTOOL_A_FEATURES_ACTIVE", "ethtoolbitset"),
        ("ETHTOOL_A_FEATURES_NOCHANGE", "ethtoolbitset"),
    )


@dataclass(frozen=True, slots=True)
class Topic:
    """One pair of requests. ``get`` and ``set`` are the commands, ``names`` ethtool's name → the attribute."""

    message: type[Any]
    prefix: str
    get: int
    set: int
    names: Mapping[str, str] = field(default_factory=dict)


RINGS = Topic(
    ethtool_rings_msg,
    "ETHTOOL_A_RINGS",
    get=15,
    set=16,
    names={"rx": "RX", "tx": "TX", "rx-max": "RX_MAX", "tx-max": "TX_MAX"},
)
CHANNELS = Topic(
    _Channels,
    "ETHTOOL_A_CHANNELS",
    get=17,
    set=18,
    names={
        **{kind: f"{kind.upper()}_COUNT" for kind in ("rx", "tx", "combined")},
        **{f"{kind}-max": f"{kind.upper()}_MAX" for kind in ("rx", "tx", "combined")},
    },
)
COALESCE = Topic(
    _Coalesce,
    "ETHTOOL_A_COALESCE",
    get=19,
    set=20,
    names={
        "rx-usecs": "RX_USECS",
        "rx-frames": "RX_MAX_FRAMES",
        "tx-usecs": "TX_USECS",
        "tx-frames": "TX_MAX_FRAMES",
        "adaptive-rx": "USE_ADAPTIVE_RX",
        "adaptive-tx": "USE_ADAPTIVE_TX",
    },
)
FEATURES = Topic(_Features, "ETHTOOL_A_FEATURES", 11, 12)


class Ethtool:
    """One netlink socket for each topic, of the network namespace that it is made in. Raises `NetlinkError`: ENODEV,
    EOPNOTSUPP, or the driver's own refusal."""

    def __init__(self) -> None:
        self._sockets: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for open_socket in self._sockets.values():
            open_socket.close()
        self._sockets.clear()

    def numbers(self, port: str, topic: Topic) -> dict[str, int]:
        """The present values and, of rings and channels, the highest possible."""
        reply = self._ask(port, topic)
        found = {name: reply.get_attr(f"{topic.prefix}_{part}") for name, part in topic.names.items()}
        return {name: int(value) for name, value in found.items() if value is not None}

    def set_number(self, port: str, topic: Topic, name: str, value: int) -> None:
        self._tell(port, topic, (f"{topic.prefix}_{topic.names[name]}", value))

    def features(self, port: str) -> tuple[dict[str, bool], frozenset[str]]:
        """Each that could be or is → whether it is on; and those that cannot be changed."""
        reply = self._ask(port, FEATURES)
        hardware, active, still = (_bits(reply, part) for part in ("HW", "ACTIVE", "NOCHANGE"))
        return {name: name in active for name in sorted(hardware | active)}, frozenset((active - hardware) | still)

    def set_feature(self, port: str, name: str, on: bool) -> None:
        """EOPNOTSUPP if it is not so afterwards: the kernel answers what a driver does not do with what it is."""
        bit = [("ETHTOOL_A_BITSET_BIT_NAME", name), *([("ETHTOOL_A_BITSET_BIT_VALUE", True)] if on else [])]
        bits = {"attrs": [("ETHTOOL_A_BITSET_BITS_BIT", {"attrs": bit})]}
        self._tell(port, FEATURES, ("ETHTOOL_A_FEATURES_WANTED", {"attrs": [("ETHTOOL_A_BITSET_BITS", bits)]}))
        if self.features(port)[0].get(name, False) is not on:
            raise NetlinkError(errno.EOPNOTSUPP, "the driver does not change it")

    def _ask(self, port: str, topic: Topic) -> Any:
        return self._request(port, topic, topic.get, NLM_F_REQUEST)[0]

    def _tell(self, port: str, topic: Topic, *attributes: tuple[str, Any]) -> None:
        self._request(port, topic, topic.set, NLM_F_REQUEST | NLM_F_ACK, *attributes)

    def _request(self, port: str, topic: Topic, command: int, flags: int, *attributes: tuple[str, Any]) -> list[Any]:
        message = topic.message()
        message["cmd"], message["version"] = command, 1
        header = {"attrs": [("ETHTOOL_A_HEADER_DEV_NAME", port)]}
        message["attrs"] = [(f"{topic.prefix}_HEADER", header), *attributes]
        open_socket = self._socket(topic)
        return list(open_socket.nlm_request(message, msg_type=open_socket.prid, msg_flags=flags))

    def _socket(self, topic: Topic) -> Any:
        if topic.get not in self._sockets:
            fresh = GenericNetlinkSocket()
            fresh.bind("ethtool", topic.message)
            self._sockets[topic.get] = fresh
        return self._sockets[topic.get]


def _bits(reply: Any, part: str) -> set[str]:
    """The names that are set in one bitset of the reply."""
    bits = reply.get_attr(f"ETHTOOL_A_FEATURES_{part}").get_attr("ETHTOOL_A_BITSET_BITS")
    every = bits.get_attrs("ETHTOOL_A_BITSET_BITS_BIT") if bits is not None else []
    flagless = reply.get_attr(f"ETHTOOL_A_FEATURES_{part}").get_attr("ETHTOOL_A_BITSET_NOMASK") is not None
    return {
        bit.get_attr("ETHTOOL_A_BITSET_BIT_NAME")
        for bit in every
        if flagless or bit.get_attr("ETHTOOL_A_BITSET_BIT_VALUE") is not None
    }
