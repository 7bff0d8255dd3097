"""What would cut a session off, and what would not, as tables; pure.

::

    203.0.113.9 ── router 198.51.100.1 ── p0 198.51.100.2          a box that is managed through a port to be bridged
    192.0.2.9 ──────────────────────── eth9 192.0.2.2              and through one of its own
"""

from __future__ import annotations

import pytest

from bridge.present import LinkFacts
from bridge.reach import Path, Session, carried, danger
from bridge.steps import (
    AddAddress,
    AddRoute,
    CreateLink,
    DeleteLink,
    RemoveAddress,
    RemoveRoute,
    Route,
    SetLink,
    SetSysctl,
    Step,
)

BY_PORT = Path(Session("198.51.100.2", 22, "203.0.113.9", 51514), "p0", "p0", 0)
BY_ITS_OWN = Path(Session("192.0.2.2", 22, "192.0.2.9", 51514), "eth9", "eth9", 24)
BY_BRIDGE = Path(Session("198.51.100.2", 22, "203.0.113.9", 51514), "br0", "br0", 0)
LINKS = {
    "lo": LinkFacts("lo", addresses=("127.0.0.1/8",)),
    "p0": LinkFacts("p0", addresses=("198.51.100.2/24",)),
    "p1": LinkFacts("p1", master="br0"),
    "eth9": LinkFacts("eth9", addresses=("192.0.2.2/24",)),
}
DEFAULT = Route("0.0.0.0/0", "p0", gateway="198.51.100.1")


@pytest.mark.parametrize(
    ("path", "step", "said"),
    [
        (BY_PORT, RemoveAddress("p0", "198.51.100.2/24"), "take 198.51.100.2 from p0"),
        (BY_PORT, RemoveAddress("p0", "198.51.100.20/24"), None),
        (BY_PORT, SetLink("p0", "master", "br0"), "make p0 a port of br0"),
        (BY_PORT, SetLink("p1", "master", "br0"), None),
        (BY_PORT, SetLink("p0", "up", True), None),
        (BY_PORT, SetLink("p0", "up", False), "take p0 down"),
        (BY_PORT, RemoveRoute(DEFAULT), "remove the route to 203.0.113.9"),
        (BY_PORT, RemoveRoute(Route("10.0.0.0/8", "p0")), None),
        (BY_PORT, RemoveRoute(Route("0.0.0.0/0", "p0", table=77)), None),
        (BY_PORT, AddRoute(Route("0.0.0.0/0", "br0")), "send answers to 203.0.113.9 by br0 in place of p0"),
        (BY_PORT, AddRoute(Route("203.0.113.0/24", "br0")), "send answers to 203.0.113.9 by br0 in place of p0"),
        (BY_PORT, AddRoute(Route("0.0.0.0/0", "lo", table=2525, kind="local")), None),
        (BY_PORT, AddRoute(Route("::/0", "br0")), None),
        (BY_ITS_OWN, AddRoute(Route("0.0.0.0/0", "br0")), None),
        (BY_ITS_OWN, RemoveAddress("p0", "198.51.100.2/24"), None),
        (BY_ITS_OWN, SetLink("eth9", "master", "br0"), "make eth9 a port of br0"),
        (BY_BRIDGE, DeleteLink("br0"), "delete br0"),
        (BY_BRIDGE, SetLink("p1", "master", ""), "take the port p1 from br0"),
        (BY_BRIDGE, SetLink("p0", "master", "br0"), None),
        (BY_BRIDGE, CreateLink("smtp0", "bridge"), None),
        (BY_BRIDGE, AddAddress("br0", "198.51.100.3/24"), None),
        (BY_BRIDGE, SetSysctl("net.ipv4.tcp_fwmark_accept", "1"), None),
    ],
    ids=str,
)
def test_what_touches_the_way(path: Path, step: Step, said: str | None) -> None:
    assert danger(path, [SetSysctl("x", "1"), step], LINKS) == said


@pytest.mark.parametrize(
    ("pending", "others", "said"),
    [
        ([RemoveRoute(DEFAULT)], True, ["p0 carries the default route: it goes to the bridge"]),
        ([RemoveRoute(Route("0.0.0.0/0", "p0", table=77))], True, []),
        ([RemoveAddress("p0", "198.51.100.2/24")], True, []),
        (
            [RemoveAddress("p0", "198.51.100.2/24")],
            False,
            ["p0 carries the only address of this host: it goes to the bridge"],
        ),
        ([], False, []),
    ],
)
def test_what_the_host_is_reached_by(pending: list[Step], others: bool, said: list[str]) -> None:
    links = {name: link for name, link in LINKS.items() if others or name != "eth9"}
    assert list(carried(pending, links)) == said


def test_a_way_in_words() -> None:
    aside = Path(BY_PORT.session, "p0", "eth9", 0)
    assert list(map(str, (BY_PORT, aside))) == ["comes in by p0", "comes in by p0 and is answered by eth9"]
