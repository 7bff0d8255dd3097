r"""The manual's Figure 1 as a lab: who stands on which wire, what is protected, and what the demo configures.

::

    remote MUA ──┐                     ┌ p1 ── internal relay (protected)
                 ├── p0 ── gateway ────┤
    external MTA ┘                     └ p2 ──┬─ internal mailbox server (not protected)
                                              └─ internal user

Only data, and the row of the table. The relay has a port of its own: its way to the mailbox server crosses the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smtp_intercept.app.lab.network import Station, Wires

DOMAIN = "example.com"
USER, COLLEAGUE, STRANGER = "user@example.com", "colleague@example.com", "friend@example.org"
# Which of the remote MUA's addresses a pick-up rule is about.
PLAIN, DROPPED, REJECTED, PASSED = range(4)

FIGURE_1: Wires = {
    "outside": (
        Station("mua", (*(f"192.0.2.{n}/24" for n in range(10, 14)), *(f"2001:db8::{n}/64" for n in range(10, 14)))),
        Station("mta", ("192.0.2.15/24", "2001:db8::15/64")),
    ),
    "relay": (Station("relay", ("192.0.2.20/24", "2001:db8::20/64")),),
    "inside": (
        Station("mailbox", ("192.0.2.30/24", "2001:db8::30/64")),
        Station("user", ("192.0.2.40/24", "2001:db8::40/64")),
    ),
}
SUBMISSION = 587  # RFC 6409
LOGIN = "mua:open sesame"
# Who serves on which port: mail on 25, and the relay takes mail of its users on 587, with AUTH alone.
SERVERS: dict[tuple[str, int], dict[str, Any]] = {
    ("relay", 25): {"login": LOGIN},
    ("mailbox", 25): {},
    ("mta", 25): {},
    ("relay", SUBMISSION): {"login": LOGIN, "login_required": True},
}

_RULES = {
    "drop": ("192.0.2.11", "2001:db8::11"),
    "reject": ("192.0.2.12", "2001:db8::12"),
    "pass": ("192.0.2.13", "2001:db8::13"),
}

CONFIG: dict[str, Any] = {
    "intercept": {"ports": [25, SUBMISSION]},
    "pickup": {
        "incoming": "intercept",
        "outgoing": "pass",
        "port": {"p1": {"outgoing": "intercept"}},
        "rule": [{"client": client, "action": action} for action, clients in _RULES.items() for client in clients],
    },
    "protected": [{"domain": DOMAIN, "servers": ["192.0.2.20", "2001:db8::20"]}],
}

VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True)
class Row:
    """One case of the demo's table."""

    case: str
    ip: str
    expected: str
    seen: str
    holds: bool


def row(case: str, version: int, expected: str, seen: str, holds: bool) -> Row:
    """A row about one IP version."""
    return Row(case, f"IPv{version}", expected, seen, holds)
