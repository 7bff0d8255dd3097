"""Where the filters of the configuration listen, for those who make way to them, and what stands in it.

Looks at files and connects to nothing; loads nothing of what talks to filters.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from smtp_intercept.app.accounts import USERS, NoAccountError, account
from smtp_intercept.app.schema import Config
from smtp_intercept.milter.address import read_address


def asks_filters(config: Config) -> bool:
    """Whether any rule does."""
    return any(rule.then.filter for rule in config.rule)


def over_tcp(config: Config) -> bool:
    """Whether any filter is reached by an address, which a network namespace has its own of."""
    return asks_filters(config) and any(not isinstance(read_address(each.address), str) for each in config.filter)


def socket_directories(config: Config) -> list[Path]:
    """Of filters that have a path."""
    return [Path(path).parent for each in config.filter if isinstance(path := read_address(each.address), str)]


def unreached(config: Config, kinds: Iterable[str]) -> Iterator[str]:
    """Of sockets that have a path: what keeps processes of these kinds from them, in words."""
    kinds = [*kinds]
    for index, each in enumerate(config.filter):
        if isinstance(path := read_address(each.address), str):
            yield from (f"filter[{index}].address: {why}" for why in _hindered(Path(path), kinds))


def _hindered(path: Path, kinds: Iterable[str]) -> Iterator[str]:
    try:
        above = path.parent.stat()
    except OSError:
        yield f"{path.parent} is not there yet, and a daemon that starts before it never sees a socket in it"
        return
    try:
        found = path.stat()
    except OSError:
        yield f"nobody listens at {path}"
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield f"{path} is not a socket"
        return
    for kind in kinds:
        for place, at, bit, what in ((path.parent, above, 0o1, "look into"), (path, found, 0o2, "write to")):
            if not _may(kind, at, bit):
                yield (
                    f"user {USERS[kind]} may not {what} {place} (mode {stat.S_IMODE(at.st_mode):03o}): let everybody, "
                    "or have the filter listen on an address and a port"
                )
                break


def _may(kind: str, at: os.stat_result, bit: int) -> bool:
    """Whether that kind of process, which has no group but its own."""
    try:
        uid, gid = account(kind)
    except NoAccountError:  # told of elsewhere
        return True
    shift = 6 if uid == at.st_uid else 3 if gid == at.st_gid else 0
    return bool(at.st_mode >> shift & bit)
