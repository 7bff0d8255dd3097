"""Which fault comes when, all from a seed; and what mail may suffer while each lasts. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

EVERY_S = 10.0
FIRST_AFTER_S = 10.0  # all is well once, before anything is wrong


class Place(StrEnum):
    """Where the wire is: in a network namespace of its own, or in the host's, among all other programs."""

    OWN = "own"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Fault:
    """``lasts_s``: at least, at most. ``blind``: the gateway cannot inspect; what crosses it counts.
    ``uncounted_s``: nobody is there to count for so long (docs/conditions.md). ``stops``: mail may be refused or cut.
    ``settles_s``: what `status` cannot know yet, e.g. that a host has another MAC. ``silent_log``: the mail log may
    lack lines, which are counted. ``again``: a next hop may be given its mail twice, its 250 being lost. ``ends``: the
    mail servers of that host are ended."""

    words: str
    lasts_s: tuple[float, float] = (0.0, 0.0)
    blind: bool = False
    uncounted_s: float = 0.0
    stops: bool = False
    settles_s: float = 0.0
    silent_log: bool = False
    again: bool = False
    ends: str = ""
    places: tuple[Place, ...] = (Place.OWN, Place.HOST)


HEALED_S = 2.0  # what others have undone is put right within
KINDS = ("interceptor", "diverter", "mta", "resolver", "supervisor")
_HOST = (Place.HOST,)


def _killed(kind: str) -> Fault:
    mail = kind not in ("resolver", "diverter")
    return Fault(
        f"kill -9 of the {kind}",
        blind=kind not in ("resolver", "mta"),
        uncounted_s=2.0 if kind in ("diverter", "supervisor") else 0.0,
        stops=mail,
        again=mail,
    )


def _stopped(kind: str) -> Fault:
    blind = kind in ("interceptor", "diverter")
    return Fault(
        f"SIGSTOP of the {kind}, then SIGCONT",
        (1.0, 6.0),
        blind=blind,
        uncounted_s=2.0 if kind == "diverter" else 0.0,
        stops=True,
        again=kind == "mta",
    )


FAULTS: Mapping[str, Fault] = {
    **{f"kill-{kind}": _killed(kind) for kind in KINDS},
    **{f"stop-{kind}": _stopped(kind) for kind in KINDS},
    "restart": Fault(
        "SIGTERM to the daemon, and started again (systemctl restart)", blind=True, stops=True, again=True
    ),
    "hang-up": Fault("SIGHUP to every process"),
    "up-again": Fault("`tollbridge up` again (systemctl reload)"),
    "flush-room": Fault(
        "`nft flush ruleset` where the wire is", blind=True, uncounted_s=HEALED_S, stops=True, again=True
    ),
    "flush-routing": Fault(
        "`ip rule flush` where the wire is", blind=True, uncounted_s=HEALED_S, stops=True, again=True
    ),
    "flush-host": Fault("`nft flush ruleset` in the host", places=(Place.OWN,)),
    "firewall-room": Fault(
        "a firewall that drops what comes in is loaded where the wire is, then another",
        (2.0, 5.0),
        blind=True,
        uncounted_s=HEALED_S,
        stops=True,
        again=True,
    ),
    "firewall-host": Fault(
        "a firewall that drops what comes in is reloaded in the host", (2.0, 5.0), places=(Place.OWN,)
    ),
    "port-gone": Fault(
        "a port is gone, and comes back as it was", (1.0, 5.0), blind=True, uncounted_s=HEALED_S, stops=True, again=True
    ),
    "port-new": Fault(
        "a port is gone, and comes back as another link of that name",
        (0.5, 4.0),
        blind=True,
        uncounted_s=HEALED_S,
        stops=True,
        again=True,
    ),
    "no-carrier": Fault("a port has no carrier, then has it", (0.5, 5.0), blind=True, stops=True, again=True),
    "mtu": Fault("a port's MTU is 9000, then 1500", (2.0, 5.0), blind=True, uncounted_s=HEALED_S, stops=True),
    "client-mac": Fault("a client's address has another MAC", stops=True, settles_s=16.0, again=True),
    "server-mac": Fault("a server's address has another MAC", stops=True, settles_s=16.0, again=True),
    "clock-ahead": Fault("the clock is 40 days ahead, then right", (1.0, 5.0)),
    "clock-back": Fault("the clock is 3 days behind, then right", (1.0, 5.0)),
    "run-full": Fault("the run directory's disk is full", (2.0, 6.0)),
    "log-full": Fault("the mail log's disk is full", (2.0, 6.0), silent_log=True),
    "spool-full": Fault("the spool's disk is full", (2.0, 6.0), stops=True, again=True),
    "no-dns": Fault("no name server answers", (2.0, 6.0)),
    "flood": Fault("3,000 SYNs a second from a network of strangers", (3.0, 6.0), stops=False),
    "server-away": Fault("no mail server listens behind the box", (2.0, 6.0), stops=True, again=True, ends="server"),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """``chance`` is for the fault's own choices, e.g. which of several processes."""

    at_s: float
    name: str
    lasts_s: float
    chance: int

    @property
    def fault(self) -> Fault:
        return FAULTS[self.name]


def place(seed: int) -> Place:
    """Odd seeds are the default, even ones the harder life."""
    return Place.OWN if seed % 2 else Place.HOST


def plan(seed: int, seconds: float, where: Place, names: tuple[str, ...] = ()) -> list[Planned]:
    """Every ten seconds one; each comes once before any comes again. ``names`` chooses among them."""
    chance = random.Random(seed)
    return [
        Planned(at_s, name, round(chance.uniform(*FAULTS[name].lasts_s), 1), chance.getrandbits(16))
        for at_s, name in zip(_moments(seconds), _names(chance, where, names), strict=False)
    ]


def _moments(seconds: float) -> list[float]:
    """None so late that the end would not see it mended."""
    return [FIRST_AFTER_S + n * EVERY_S for n in range(max(0, int((seconds - FIRST_AFTER_S) // EVERY_S)))]


def _names(chance: random.Random, where: Place, chosen: tuple[str, ...]) -> Iterator[str]:
    possible = [name for name, fault in FAULTS.items() if where in fault.places and name in (chosen or FAULTS)]
    while possible:
        yield from chance.sample(possible, len(possible))
