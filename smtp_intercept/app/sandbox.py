"""What each process that hears strangers is left with once it works: capabilities, sockets, files, system calls; and
which of these those are left with that stay root.

What a kernel or a container does not grant is said, in the log and by `status`, and mail goes on.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import smtp_intercept
from bridge import seccomp, view
from bridge.denied import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    EXECUTING,
    Denial,
    denials,
    denials_of_root,
)
from bridge.privilege import Capability, confine
from smtp_intercept.app import processlog
from smtp_intercept.app.fields import Source
from smtp_intercept.app.filter_places import socket_directories
from smtp_intercept.app.rule_schema import written
from smtp_intercept.app.schema import Config
from smtp_intercept.inspect.written import files

# Other people's things, and the sockets by which a host is told what to do (D-Bus, containers).
_BELOW = {
    "/": "boot home media mnt root run srv tmp",
    "/etc": "tollbridge",
    "/var": "backups lib log mail spool tmp",
}
PLACES = tuple(Path(above, name) for above, names in _BELOW.items() for name in names.split())
# Where the host's names are asked for; resolv.conf is often a link.
NAMES = (Path("/run/systemd/resolve"), Path("/run/nscd"))
RESOLV_CONF = Path("/etc/resolv.conf")

_LOG = logging.getLogger("tollbridge")
_unguarded: list[str] = []


@dataclass(frozen=True, slots=True)
class Sandbox:
    """``families`` are those of the sockets that it opens itself; ``names``: it asks for the host's; ``own`` are the
    directories that it writes to."""

    keep: tuple[Capability, ...] = ()
    families: tuple[int, ...] = ()
    names: bool = False
    own: tuple[Path, ...] = ()


_IP = (AF_INET, AF_INET6)
_OF_ROOT = (*_IP, AF_UNIX, AF_NETLINK, AF_PACKET)  # as the units have it
SANDBOXES: dict[str, Callable[[Config], Sandbox]] = {
    "diverter": lambda _: Sandbox((Capability.NET_ADMIN,)),
    "interceptor": lambda _: Sandbox((Capability.NET_RAW,), (*_IP, AF_UNIX)),
    "resolver": lambda _: Sandbox((), (*_IP, AF_UNIX, AF_NETLINK), names=True),
    "reader": lambda _: Sandbox((), (AF_UNIX,)),
    "mta": lambda settings: Sandbox(
        (Capability.NET_RAW,) if settings.mta.source is Source.CLIENT else (),
        (*_IP, AF_UNIX, AF_NETLINK),
        names=True,
        own=(Path(settings.mta.spool),),
    ),
    "exporter": lambda _: Sandbox(),
    "tracker": lambda settings: Sandbox(own=(Path(settings.tracking.index),) if settings.tracking.index else ()),
}


def enter(box: Sandbox, settings: Config, run_dir: Path, uid: int, gid: int) -> None:
    """For good, but for `shut`. OSError if it cannot become that user."""
    _try("its view of the files is the host's", lambda: _narrow(box, settings, run_dir))
    confine(uid, gid, box.keep)


def shut(box: Sandbox) -> None:
    """The last: from now on it sends no signal, and starts no process."""
    _filter(denials(box.families, raw=False, pid=os.getpid()))


def shut_supervisor() -> None:
    """Before it starts the others, which it goes on to do as root. What it has of the kernel is theirs at most."""
    _filter(denials_of_root(_OF_ROOT))


def shut_keeper() -> None:
    """It lives where the bridge is by now, and starts programs (nft, the vendor's)."""
    _filter(denials_of_root(_OF_ROOT, EXECUTING))


def unguarded() -> list[str]:
    """The walls that this process lacks, in words."""
    return list(_unguarded)


def _filter(refused: Iterable[Denial]) -> None:
    _try("its system calls are not filtered", lambda: seccomp.deny(refused))


def myself() -> dict[str, Any]:
    """What every report begins with."""
    return {"pid": os.getpid(), "unguarded": _unguarded, "unsaid": processlog.lost()}


def _narrow(box: Sandbox, settings: Config, run_dir: Path) -> None:
    seen = [Path(sys.prefix), *map(Path, filter(None, sys.path)), Path(smtp_intercept.__file__).parents[1]]
    seen += [Path(path).parent for path, _ in files(map(written, settings.rule))]
    # A link must not open one of the places.
    seen += [path for path in socket_directories(settings) if path.resolve() not in (*PLACES, Path("/"))]
    if box.names:
        seen += [*NAMES, RESOLV_CONF.resolve().parent]
    others = [Path(own) for own in (settings.mta.spool, settings.tracking.index) if own is not None]
    for refusal in view.narrow([*PLACES, run_dir, *others], seen, box.own):
        _miss(refusal)


def _try(what: str, work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        _miss(f"{what}: {error.strerror}")


def _miss(what: str) -> None:
    _LOG.warning("a wall of this process is missing: %s", what)
    _unguarded.append(what)
