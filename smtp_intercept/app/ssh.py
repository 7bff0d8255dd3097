"""The SSH sessions that this process descends from: SSH_CONNECTION of its ancestors, and the connections of an sshd
among them. Reads /proc only.

sudo, su and `env -i` drop the variable from a child, never from the shell that called them (sshd(8), ENVIRONMENT).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bridge.reach import Session
from smtp_intercept.app.holder import Connection, connections

VARIABLE = "SSH_CONNECTION"
SERVER = "sshd"  # and sshd-session, since OpenSSH 9.8
_PROC = Path("/proc")


def sessions(pid: int | None = None, proc: Path = _PROC) -> list[Session]:
    """Those of the process and its ancestors, the nearest first, each once. Needs root to read other users'."""
    found = [session for each in _ancestry(pid or os.getpid(), proc) for session in _of(proc / str(each))]
    return list(dict.fromkeys(found))


def _ancestry(pid: int, proc: Path) -> Iterator[int]:
    """The process, its parent, …; not PID 1, which nobody has logged in to."""
    while pid > 1:
        yield pid
        pid = _parent(_read(proc / str(pid) / "status"))


def _parent(status: str) -> int:
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("PPid", "0"))


def _of(process: Path) -> Iterator[Session]:
    with suppress(ValueError):
        yield from map(parse, _variables(process))
    if _read(process / "comm").startswith(SERVER):
        yield from (_session(connection) for connection in connections(process))


def _variables(process: Path) -> Iterator[str]:
    for variable in _read(process / "environ").split("\0"):
        name, _, value = variable.partition("=")
        if name == VARIABLE:
            yield value


def parse(value: str) -> Session:
    """The variable's value: the client's address and port, the server's. ValueError if it is none."""
    remote, remote_port, local, local_port = value.split()
    return Session(_bare(local), int(local_port), _bare(remote), int(remote_port))


def _session(connection: Connection) -> Session:
    return Session(str(connection.local), connection.local_port, str(connection.remote), connection.remote_port)


def _bare(address: str) -> str:
    """Without the zone of a link-local one."""
    return address.partition("%")[0]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # gone meanwhile
        return ""
