"""Condition × policy: what becomes of mail, and what `status` says. The table is docs/conditions.md, word for word.

``python -m tests.kernel.conditions > docs/conditions.md``
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smtp_intercept.app.simulate import CONDITIONS

POLICIES = ("pass", "block")
OPEN = "running, but the switch is open: mail is not inspected"


@dataclass(frozen=True, slots=True)
class Cell:
    """``crosses``: a client that dials again is served, within seconds. ``counted``: why it was not inspected, or what
    of it, by one of these names; "" is by none. ``headline`` is how `tollbridge status` begins, ``status`` its exit
    status."""

    crosses: bool
    inspected: bool
    counted: tuple[str, ...]
    headline: str
    status: int

    def __str__(self) -> str:
        what = ("inspected" if self.inspected else "uninspected") if self.crosses else "**nothing**"
        counted = " or ".join(f"`{name}`" if name else "nothing" for name in self.counted) or "–"
        return f"{what} | {counted} | {self.headline}, {self.status}"


def _well(*counted: str) -> Cell:
    return Cell(True, True, counted, "inspecting", 0)


def _open(*counted: str) -> tuple[Cell, Cell]:
    """Fails open, or with "block" shut."""
    return Cell(True, False, counted, OPEN, 3), Cell(False, False, counted, OPEN, 3)


_IN_PART = "inspecting IN PART"
_DOWN = "up, not running: mail is not inspected"
# condition → with "pass", with "block".
CELLS: dict[str, tuple[Cell, Cell]] = {
    "none": (_well(), _well()),
    "no-daemon": (Cell(True, False, ("not_live",), _DOWN, 3), Cell(False, False, ("not_live",), _DOWN, 3)),
    "interceptor-dead": _open("no_listener", "not_live"),
    "interceptor-hung": _open("interceptor_silent", "not_live"),
    "diverter-dead": _open("not_live", ""),  # in the two seconds until the switch opens nobody is there to count
    "diverter-hung": _open("not_live"),
    "mta-hung": (_well("mta_silent"), Cell(False, True, ("mta_silent",), "inspecting", 0)),
    "foreign-input": _open("not_live"),
    "foreign-forward": (Cell(True, True, (), _IN_PART, 3), Cell(True, True, (), _IN_PART, 3)),
    "rules-flushed": (_well(), _well()),
    "rules-of-routing-flushed": (_well(), _well()),
    "port-gone": (
        Cell(False, False, (), "running, but NO BRIDGE", 3),
        Cell(False, False, (), "running, but NO BRIDGE", 3),
    ),
    "run-full": (_well(), _well()),
    "log-full": (_well("log_lines_lost"), _well("log_lines_lost")),
    "journal-blocked": (_well("unsaid"), _well("unsaid")),
    "mtu-raised": (_well(), _well()),
}

HEAD = """# What becomes of mail when something is wrong

Made from the table of `tests/kernel/conditions.py`, of which `tests/kernel/test_conditions.py` shows every cell in a
running gateway: `python -m tests.kernel.conditions > docs/conditions.md`. A row says what holds when the condition has
lasted three seconds, for mail that would be intercepted. "Counted" is the reason in `tollbridge status --json`, under
`not_inspected` (under `mail`: `mta_silent`, `log_lines_lost`; beside it: `unsaid`). What peers bring about stands
[below](#what-peers-bring-about). Inspection comes back by itself after each of them, or with the next `tollbridge run`.
With `block`, and without a network namespace of the wire's own, connections that are opened between a flush of all
rules and their return (at most two seconds) cross: nothing of ours is left then to stop them.

| condition | `on_failure` | mail crosses | counted | `status`: headline, exit status |
|---|---|---|---|---|
"""


PEERS_HEAD = """
## What peers bring about

It costs them: `on_failure` is about the gateway's own health. "Counted" is in `tollbridge status --json`. A busy client
is slowed, not lost: after a 421 or a dropped SYN every mail server comes again.

| what a peer does | what it gets | others' mail | counted | shown by |
|---|---|---|---|---|
"""
_PRESSING, _FLOOD, _LIMITS = "tests/kernel/test_pressing.py", "tests/kernel/test_flood.py", "tests/smtp/test_limits.py"
_ACCOUNTS, _INSPECTED = "tests/smtp/test_accounts.py", "inspected"
# What, what it gets, what becomes of others' mail, where it is counted, which tests show it.
PEERS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "opens connections faster than `new_connections_per_s_per_network`, or one client faster than half of it",
        "its SYNs are dropped",
        _INSPECTED,
        "`put_off`: `rate_network`, `rate_client`",
        (_PRESSING, _FLOOD),
    ),
    (
        "SYNs from everywhere, beyond `new_connections_per_s`",
        "what is within the rate is intercepted",
        "beyond the rate as `on_failure` says",
        "`not_inspected`: `rate`",
        (_FLOOD,),
    ),
    (
        "more sessions than `client_percent` or `network_percent` of what is free",
        "421 4.7.0",
        _INSPECTED,
        "`put_off`: `client_shares_used_up`, `network_shares_used_up`",
        (_PRESSING, "tests/smtp/test_shares.py"),
    ),
    (
        "so many networks that no place is left",
        "as `on_overload` says",
        "as `on_overload` says",
        "`not_inspected`: `interceptor_full`, or `mail`: `deferred`",
        (_FLOOD, "tests/kernel/test_overload.py"),
    ),
    ("lines that cost time to read", "it is served last", _INSPECTED, "–", (_PRESSING, _ACCOUNTS)),
    (
        "has more of its octets kept than its share of `held_bytes`",
        "it is not read; after 30 s 421 4.3.1; the MTA too",
        _INSPECTED,
        "`mail`: `deferred`",
        (_ACCOUNTS, "tests/mta/test_billing.py"),
    ),
    (
        "sends, or reads, octet by octet; says much and brings no mail",
        "421 4.4.2; who does not read is reset",
        _INSPECTED,
        "`put_off`: `timeouts`",
        (_PRESSING, _LIMITS),
    ),
    (
        "a client that cannot be followed",
        "421 4.7.0, unless `on_client_doubt` passes it",
        _INSPECTED,
        "`mail`: `client_doubts`",
        ("tests/kernel/test_hostile.py",),
    ),
    (
        "mail in a VLAN that is not listed, in a tunnel, or under IPsec AH, which takes both ends",
        "it crosses unread",
        _INSPECTED,
        "`not_inspected`: `tagged`, the tunnel's name, `authenticated`",
        ("tests/kernel/test_vlan.py", "tests/kernel/test_wire.py"),
    ),
)


def _shown(tests: tuple[str, ...]) -> str:
    return ", ".join(f"`{test.rpartition('/')[2]}`" for test in tests)


def lines() -> Iterator[str]:
    """The page."""
    yield HEAD
    for name, cells in CELLS.items():
        for policy, cell in zip(POLICIES, cells, strict=True):
            yield f"| {CONDITIONS[name].words if policy == POLICIES[0] else ''} | {policy} | {cell} |\n"
    yield PEERS_HEAD
    for what, gets, others, counted, tests in PEERS:
        yield f"| {what} | {gets} | {others} | {counted} | {_shown(tests)} |\n"


if __name__ == "__main__":
    print("".join(lines()), end="")
