"""Keeps `up` from locking out who typed it: refuses, without `--confirm`, what would cut his own SSH session.

Says what else the host is reached by. Knows no consoles: who is not on SSH may do what he likes.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.links import Links
from bridge.paths import path_of
from bridge.reach import carried, danger
from bridge.steps import Step
from smtp_intercept.app import ssh, streams

REMEDY = (
    "if that goes wrong you are locked out. Take it with a net: tollbridge up --confirm 120, and then, from this "
    "session or a new one, tollbridge confirm; without that it is undone by itself. Or type it on the console"
)


class LockOutError(Exception):
    """The steps would cut an SSH session that this command was typed in."""


def refuse(pending: Sequence[Step]) -> None:
    """Raises `LockOutError`, with the session, what would be done to it and the remedy."""
    with Links() as links:
        facts = links.facts()
    for session in ssh.sessions():
        path = path_of(session)
        if path is not None and (what := danger(path, pending, facts)):
            raise LockOutError(
                f"not without --confirm: your SSH session (from {session.remote} port {session.remote_port} to "
                f"{session.local} port {session.local_port}) {path}, and this would {what}; {REMEDY}"
            )


def warn(pending: Sequence[Step]) -> None:
    """Of what the host is reached by and will be moved."""
    with Links() as links:
        facts = links.facts()
    net = "`up --confirm SECONDS` undoes itself if it does not work"
    streams.warn(f"{line}; {net}" for line in carried(pending, facts))
