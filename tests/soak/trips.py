"""The ways of a soak's mail: who sends which share of it, where to, and which mail servers are on its way. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CLIENT, SERVER = "client", "server"
POSTFIX, EXIM = "postfix", "exim"
LIVE, QUEUED, LIVE6, OUTSIDE = "192.0.2.20", "192.0.2.21", "2001:db8::20", "192.0.2.10"
# Where each real mail server is, by host, and where it takes what it is to send (loopback).
ADDRESSES: Mapping[str, Mapping[str, str]] = {
    CLIENT: {POSTFIX: "192.0.2.16", EXIM: "192.0.2.17"},
    SERVER: {POSTFIX: "192.0.2.22", EXIM: "192.0.2.23"},
}
# And where it is to whom the box's MTA delivers.
QUEUED_AT: Mapping[str, str] = {POSTFIX: "192.0.2.24", EXIM: "192.0.2.25"}
SUBMISSION: Mapping[str, int] = {POSTFIX: 2526, EXIM: 2527}


@dataclass(frozen=True, slots=True)
class Trip:
    """``share`` of all mail, sent at ``host`` to ``to`` for ``domain``; if ``by`` is not "", by that mail server.
    ``queued``: the box's MTA takes it. ``behind``: that mail server is where it arrives, and hands it on."""

    share: float
    host: str
    to: str
    domain: str
    by: str = ""
    queued: bool = False
    behind: str = ""

    @property
    def servers(self) -> int:
        """How many of them try again on its way."""
        return bool(self.by) + self.queued + bool(self.behind)

    @property
    def real(self) -> bool:
        """Whether it meets a mail server that is not ours."""
        return bool(self.by or self.behind)


def _by_proxy() -> dict[str, Trip]:
    at = ADDRESSES[SERVER]
    return {
        "live": Trip(0.28, CLIENT, LIVE, "example.com"),
        "six": Trip(0.10, CLIENT, LIVE6, "example.com"),
        "livepostfix": Trip(0.08, CLIENT, at[POSTFIX], "example.com", behind=POSTFIX),
        "liveexim": Trip(0.06, CLIENT, at[EXIM], "example.com", behind=EXIM),
        "postfixlive": Trip(0.04, CLIENT, LIVE, "example.com", by=POSTFIX),
        "eximlive": Trip(0.02, CLIENT, LIVE, "example.com", by=EXIM),
        "eximpostfix": Trip(0.02, CLIENT, at[POSTFIX], "at.postfix.example.com", by=EXIM, behind=POSTFIX),
    }


def _by_mta() -> dict[str, Trip]:
    return {
        "queue": Trip(0.10, CLIENT, QUEUED, "example.org", queued=True),
        "queuepostfix": Trip(0.04, CLIENT, QUEUED_AT[POSTFIX], "postfix.example.org", queued=True, behind=POSTFIX),
        "queueexim": Trip(0.03, CLIENT, QUEUED_AT[EXIM], "exim.example.org", queued=True, behind=EXIM),
        "postfixqueue": Trip(0.03, CLIENT, QUEUED, "example.org", by=POSTFIX, queued=True),
    }


def _out() -> dict[str, Trip]:
    at = ADDRESSES[CLIENT]
    return {
        "out": Trip(0.10, SERVER, OUTSIDE, "example.net"),
        "outpostfix": Trip(0.03, SERVER, at[POSTFIX], "example.net", behind=POSTFIX),
        "outexim": Trip(0.03, SERVER, at[EXIM], "example.net", behind=EXIM),
        "postfixout": Trip(0.02, SERVER, OUTSIDE, "example.net", by=POSTFIX),
        "eximout": Trip(0.02, SERVER, OUTSIDE, "example.net", by=EXIM),
    }


def addresses(host: str, mta: str) -> tuple[str, ...]:
    """Where it listens; it sends from the first."""
    return ADDRESSES[host][mta], *((QUEUED_AT[mta],) if host == SERVER else ())


TRIPS: Mapping[str, Trip] = {**_by_proxy(), **_by_mta(), **_out()}


def next_hops(host: str) -> dict[str, str]:
    """By domain: where the mail servers of a host send what was submitted there. All else has arrived."""
    return {trip.domain: trip.to for trip in TRIPS.values() if trip.by and trip.host == host}
