"""What the two lanes are made of: names, addresses and marks that every part of the bridge agrees on. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge import flow

if TYPE_CHECKING:
    from bridge.steps import SetNic

LANE = "smtp0"
LANE_MAC = "02:74:62:00:00:01"  # locally administered; never on a wire
NEXT_HOP_MAC = "02:74:62:00:00:02"  # stands for "not known yet" between the routing table and the egress chain
NEXT_HOP4 = "169.254.116.98"
NEXT_HOP6 = "fe80::7462"
INWARD_TABLE = 2525  # route table: marked frames from the lane belong to this host
OUTWARD_TABLE = 2526  # and what marked sockets send leaves by the lane
OUTWARD_TAGGED = 25_000  # plus the VID: the same for one VLAN
# Of our rules of routing, behind the table "local" alone: others have some for whole networks (strongSwan's is 220),
# and ours are for marked packets.
PREFERENCE = 25
QUEUE_NUMBER = 25  # of the first diverter; the others' follow

# The management leg, where the lanes have a room of their own: the host's end, and a port of the bridge's.
HOST_LEG, ROOM_LEG = "tb0", "tb0p"

# How long a beat keeps the switch closed. Design: one missed second is noise, two are a dead daemon.
LIVE_TIMEOUT_S = 2
# nft collects what has expired, or was deleted, once a second; until then it has its place.
COLLECTED_S = 1
# A SYN teaches its next hops for this long; dialling its server, or sending data, keeps them.
LEARNED_S = 10
# The same where servers are dialled by another way: then the first frame of ours to the client is the banner.
LEARNED_UNTIL_BANNER_S = 60
# A connection's own frames say where its peers are: a router that takes over is followed within this time.
FRESH_S = 1
# Longer than any session may be idle.
NEXT_HOP_S = 7200
# How long an entry rests behind the last FIN or RST of its connection: the repetitions of a FIN are sent.
REST_S = 30
# A frame of a connection that is not kept, if our own stack should answer: the banner of a server that was dialled from
# another port than the client's may take its time. Who is not among them is not found again.
HEARD_S = 60
HEARD = 131_072
# A session may end without a word on the wire: its peer has gone, and the kernel gives up (15 repetitions, some 900 s).
# One place among the sessions leaves so many entries until they are `NEXT_HOP_S` old.
SILENT_ENDS = NEXT_HOP_S // 900
# From SYN to the ACK that completes a SYN-cookie handshake.
ADMITTED_S = 10
# Longer than TIME_WAIT (60 s, include/net/tcp.h).
BRIDGED_S = 120
# The same addresses may be bridged after they were inspected, or the other way round, once in this time.
CHANGED_S = 1
# From a packet's first fragment to its last; so many packets of mail at a time.
FRAGMENTS_S, FRAGMENTS = 5, 16384
# A SYN of ours that a router on a stick sends back is known by its sequence number, for so long.
DIALLED_S = 10
# A host asks for its neighbour's MAC again when nothing has confirmed it: after 45 s at most, and 8 to be sure (Linux,
# arp(7)). Each handshake that we complete in the neighbour's stead confirms it: for so long there is none.
SILENT_S, SILENT = 60, 16384
# Who has answered another SYN of the same pair since then is not silent: one dial of many is lost now and then.
ANSWERING_S = 3
# Connections of ours that cross the box twice.
ROUND = 16384
# A switch forgets a silent host after 300 s and then floods what is sent to it; we remember longer.
BEHIND_S = 1800
# Hosts that are remembered behind one port.
STATIONS = 16384
# Client networks, and clients, whose rate is measured at a time, one entry each. A burst is one second's rate, so that
# after a second of silence there is nothing left to remember.
NETWORKS = 131072
RATE_S = 2
# Connections bridged although a socket of ours remembers their addresses.
BRIDGED = 65536
# VLANs whose mail is inspected: each costs a bridge, a link for each port and its own rules.
MAX_VLANS = 64


@dataclass(frozen=True, slots=True)
class Lane:
    """One mail lane: that of untagged mail (``vlan`` 0), or that of one VLAN, in which no frame has its tag."""

    vlan: int = 0

    @property
    def link(self) -> str:
        """Its bridge."""
        return f"{LANE}.{self.vlan}" if self.vlan else LANE

    @property
    def suffix(self) -> str:
        """Tells its chains, maps and sets from those of other lanes."""
        return f"_v{self.vlan}" if self.vlan else ""

    @property
    def outward(self) -> int:
        """The table by which what its marked sockets send leaves."""
        return OUTWARD_TAGGED + self.vlan if self.vlan else OUTWARD_TABLE

    def seed(self, seed: int) -> int:
        """The same addresses have other hashes in each lane."""
        return (seed + self.vlan * 0x9E37_79B1) & 0xFFFF_FFFF


def device_of(mark: int) -> str:
    """The lane that sockets with this mark belong to: the same addresses in two VLANs are two connections."""
    return Lane(flow.vlan_of(mark)).link


@dataclass(frozen=True, slots=True)
class PortLegs:
    """One bridged port and the veth pair that joins it to the lane; with a VID, to that VLAN's lane: one more veth pair
    carries the tagged frames of all of them, and ends in one VLAN link for each."""

    port: str
    index: int
    vlan: int = 0

    @property
    def wire(self) -> str:
        """The end that exchanges frames with the port."""
        return f"{LANE}tw{self.index}" if self.vlan else f"{LANE}w{self.index}"

    @property
    def trunk(self) -> str:
        """The other end of the veth pair for tagged frames; what no VLAN link takes from it is lost."""
        return f"{LANE}tl{self.index}"

    @property
    def lane(self) -> str:
        """The port of the lane bridge."""
        return f"{LANE}l{self.index}" + (f".{self.vlan}" if self.vlan else "")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel side may use. Rates in SYNs per second, sizes in entries: each table holds what its rate brings
    during its lifetime, so that it is never the one that is full. ``next_hops`` bounds them, where memory is short."""

    new_connections_per_s: int = 10_000
    new_connections_per_s_per_network: int = 1_000
    sessions: int = 10_000
    next_hops: int | None = None

    @property
    def new_connections_per_s_per_client(self) -> int:
        """One client, even where it is the only one to press its network, leaves the others there as much."""
        return max(1, self.new_connections_per_s_per_network // 2)

    def taught(self, learned_s: int) -> int:
        """What SYNs teach."""
        return self._bounded(self.new_connections_per_s * (learned_s + COLLECTED_S))

    @property
    def kept(self) -> int:
        """Connections that our own stack has part in: those that run, those that rest, and those that ended unheard."""
        rest = self.new_connections_per_s * (REST_S + COLLECTED_S)
        return self._bounded(rest + self.sessions * (1 + SILENT_ENDS))

    def hops(self, learned_s: int) -> int:
        """Both."""
        return self._bounded(self.taught(learned_s) + self.kept)

    @property
    def admitted(self) -> int:
        """All SYNs that the rate lets in during `ADMITTED_S`."""
        return self.new_connections_per_s * (ADMITTED_S + COLLECTED_S)

    @property
    def dialled(self) -> int:
        """The servers that are dialled during `DIALLED_S`, a connection each."""
        return self.new_connections_per_s * (DIALLED_S + COLLECTED_S)

    def _bounded(self, size: int) -> int:
        return size if self.next_hops is None else min(size, self.next_hops)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The bridge that the administrator asked for, in the bridge's own words.

    ``room`` names the network namespace that it lives in; "": it lives in the host's. ``ports`` and ``management``
    keep the configuration's order; ``vlans`` are the VIDs of the tagged mail to inspect; ``closed`` names the ports on
    which mail to the box itself is dropped; ``sysctls_at_least`` are floors. They are the hardware profile's, and so
    are the settings of the ports: ``tuned_first`` before they are joined, for that may take a link down, ``tuned_last``
    once they are up.
    """

    bridge: str
    ports: tuple[str, ...]
    mail_ports: tuple[int, ...] = (25,)
    adopt: bool = False
    vlans: tuple[int, ...] = ()
    stp: bool = False
    block: bool = False
    management: tuple[str, ...] = ()
    gateway: tuple[str, ...] = ()
    closed: frozenset[str] = frozenset()
    limits: Limits = Limits()
    queues: int = 1
    learned_s: int = LEARNED_S
    sysctls_at_least: Mapping[str, int] = field(default_factory=dict)
    tuned_first: tuple[SetNic, ...] = ()
    tuned_last: tuple[SetNic, ...] = ()
    room: str = ""

    @property
    def is_wire(self) -> bool:
        """Two ports of its own and no ring: what comes in by one goes out by the other, whatever its MACs."""
        return len(self.ports) == 2 and not self.stp and not self.adopt
