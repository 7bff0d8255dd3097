"""Whom the processes become: a user for each kind, so that one that is broken has no power over another.

The package makes them (sysusers.d). Without it their numbers are taken of those that no system gives to anybody.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterator

# The mail in the queue is the MTA's.
USERS = {
    "mta": "tollbridge",
    "diverter": "tollbridge-diverter",
    "interceptor": "tollbridge-smtp",
    "resolver": "tollbridge-dns",
    "tracker": "tollbridge-tracker",
    "exporter": "tollbridge-exporter",
    "reader": "tollbridge-reader",
}
HELPERS = frozenset({"resolver", "reader"})  # whom sessions ask, to their end
# They only look at what the others do, and nobody waits for them (`beside`) …
BESIDE = frozenset({"tracker", "exporter"})
# … and these see no mail: without them it is inspected as ever.
UNSEEING = BESIDE | HELPERS
# Between those of systemd's dynamic users and `nobody` (systemd's UIDS-GIDS); in a container of 65,536 numbers too.
UNUSED = range(65520, 65534)


class NoAccountError(Exception):
    """There is no user for a process; the message has the remedy."""


def account(kind: str) -> tuple[int, int]:
    """The user's and the group's number. `NoAccountError`."""
    try:
        entry = pwd.getpwnam(USERS[kind])
        return entry.pw_uid, entry.pw_gid
    except KeyError:
        pass
    unused = [*_unused()]
    if len(unused) < len(USERS):
        raise NoAccountError(f"there is no user {USERS[kind]}: adduser --system --group {USERS[kind]}")
    number = unused[[*USERS].index(kind)]
    return number, number


def _unused() -> Iterator[int]:
    return (number for number in UNUSED if not _has(pwd.getpwuid, number) and not _has(grp.getgrgid, number))


def _has(look: Callable[[int], object], number: int) -> bool:
    try:
        look(number)
    except KeyError:
        return False
    return True
