"""Whether steps would cut off the administrator who asks for them: the way his session goes × what is about to change.

Pure. Says what is in danger; whether that is to be dared, others decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from bridge.lane import HOST_LEG
from bridge.moves import MoveLink, ReturnLink
from bridge.present import LinkFacts
from bridge.steps import (
    AddRoute,
    DeleteLink,
    RemoveAddress,
    RemoveRoute,
    Route,
    SetLink,
    Step,
)

MAIN_TABLE = 254  # RT_TABLE_MAIN (linux/rtnetlink.h)


@dataclass(frozen=True, slots=True)
class Session:
    """One TCP connection to this host: addresses without prefix length or zone."""

    local: str
    local_port: int
    remote: str
    remote_port: int


@dataclass(frozen=True, slots=True)
class Path:
    """``holder`` is the link that carries the session's own address; answers leave by ``leaves``, chosen by a route
    with a prefix of ``prefix`` bits."""

    session: Session
    holder: str
    leaves: str
    prefix: int

    def __str__(self) -> str:
        aside = f" and is answered by {self.leaves}" if self.leaves not in ("", self.holder) else ""
        return f"comes in by {self.holder}{aside}"

    @property
    def links(self) -> frozenset[str]:
        return frozenset((self.holder, self.leaves))


def danger(path: Path, pending: Iterable[Step], links: Mapping[str, LinkFacts]) -> str | None:
    """What the first of these steps does to the session's way, in words; None if none touches it."""
    for step in pending:
        match step:
            case RemoveAddress(link, address) if _ip(address) == ip_address(path.session.local):
                return f"take {path.session.local} from {link}"
            case DeleteLink(link) if link in path.links:
                return f"delete {link}"
            case MoveLink(link, room) if link in path.links:
                return f"move {link} into the network namespace {room}"
            case ReturnLink(link, room) if HOST_LEG in path.links:
                return f"take the port {link} from the wire that {HOST_LEG} leads to"
            case SetLink(link, "master", bridge) if link in path.links and bridge:
                return f"make {link} a port of {bridge}"
            case SetLink(link, "master") if link in links and links[link].master in path.links:
                return f"take the port {link} from {links[link].master}"
            case SetLink(link, "up", False) if link in path.links:
                return f"take {link} down"
            case AddRoute(route) if route.link != path.leaves and _takes(route, path):
                return f"send answers to {path.session.remote} by {route.link} in place of {path.leaves}"
            case RemoveRoute(route) if route.link == path.leaves and _takes(route, path):
                return f"remove the route to {path.session.remote}"
            case _:
                pass
    return None


def _takes(route: Route, path: Path) -> bool:
    """Whether packets to the session's other end would go by it. Metrics are not weighed: equal is too near."""
    network, remote = ip_network(route.destination, strict=False), ip_address(path.session.remote)
    return (
        (route.table, route.kind) == (MAIN_TABLE, "unicast")
        and network.version == remote.version
        and remote in network
        and network.prefixlen >= path.prefix
    )


def _is_default(route: Route) -> bool:
    return route.table == MAIN_TABLE and ip_network(route.destination).prefixlen == 0


def _ip(address: str) -> object:
    return ip_interface(address).ip


def carried(pending: Sequence[Step], links: Mapping[str, LinkFacts]) -> Iterator[str]:
    """What this host is reached by and is about to move, a line each."""
    holder = HOST_LEG if any(isinstance(step, MoveLink) for step in pending) else "the bridge"
    routes = [step.route for step in pending if isinstance(step, RemoveRoute)]
    for link in dict.fromkeys(route.link for route in routes if _is_default(route)):
        yield f"{link} carries the default route: it goes to {holder}"
    moved = {step.link for step in pending if isinstance(step, RemoveAddress)}
    holding = {link.name for link in links.values() if link.addresses and link.name != "lo"}
    if moved and moved >= holding:
        yield f"{', '.join(sorted(moved))} carries the only address of this host: it goes to {holder}"
