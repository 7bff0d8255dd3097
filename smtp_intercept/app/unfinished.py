"""What `up` or `down` began on this host and did not end: a mark on disk from before the first step until after the
last, so that `status` tells of what is half made, and how it is mended.

A first `up` that does not end takes its steps back itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bridge.host import Host
from bridge.ledger import Ledger, mine
from bridge.links import Links
from bridge.steps import Inside, Step, UnloadRuleset, plain
from smtp_intercept.app.rundir import RunDir, read_json, write_json
from smtp_intercept.app.signals import Interrupted
from smtp_intercept.app.wanted import is_tuning


class LeftoverError(Exception):
    """What was begun could neither be ended nor be taken back whole."""


@dataclass(frozen=True, slots=True)
class Begun:
    """``first``: the host had no bridge of ours, and shall have none if this does not end."""

    first: bool


@contextmanager
def change(run_dir: RunDir, verb: str, host: Host) -> Iterator[Begun]:
    """Whatever ends the steps early. Raises OSError, with nothing done, if it cannot be marked."""
    before = host.undoing
    begun = Begun(first=all(map(is_tuning, before)))
    begin(run_dir, verb)
    try:
        yield begun
    except BaseException as error:
        if begun.first:
            _take_back(run_dir, host, before, error)
        raise
    end(run_dir)


def _take_back(run_dir: RunDir, host: Host, before: frozenset[Step], error: BaseException) -> None:
    if isinstance(error, Interrupted):
        print(f"tollbridge: {error}: undoing", file=sys.stderr)
    run_dir.pending.unlink(missing_ok=True)
    failures = host.down(among=lambda undo: undo not in before)
    if not failures:
        end(run_dir)
        return
    left = "not all could be taken back; tollbridge down tries again"
    raise LeftoverError("\n".join([str(error), *failures, left])) from error


def begin(run_dir: RunDir, verb: str) -> None:
    run_dir.make()
    write_json(run_dir.unfinished, {"verb": verb, "at": time.time()})


def end(run_dir: RunDir) -> None:
    run_dir.unfinished.unlink(missing_ok=True)


def page(run_dir: RunDir, *, rules: bool) -> dict[str, Any]:
    """For `status`: who is at work now, what was begun and not ended, and what was made and has gone since.
    ``rules``: those of the mail lane are there. Asked in the wire's network namespace, and only about that."""
    ledger = Ledger(run_dir.ledger)
    inside = [plain(undo) for undo in ledger.entries.values() if isinstance(undo, Inside) == bool(ledger.room)]
    with Links() as links:
        gone = [link for link in sorted(mine(inside)) if links.index(link) is None]
    if UnloadRuleset() in inside and not rules:
        gone.append("the nft rules")
    return {"at_work": run_dir.holder("up"), "begun": read_json(run_dir.unfinished), "gone": gone}


def headline(found: dict[str, Any]) -> str:
    """In a line; "" if all is whole."""
    if found["at_work"]:
        return f"being changed: `tollbridge up` or `down` is at work (process {found['at_work']})"
    if found["begun"]:
        verb = found["begun"]["verb"]
        when = time.strftime("%F %T", time.localtime(found["begun"]["at"]))
        return (
            f"HALF MADE: `tollbridge {verb}` of {when} did not end; end it: tollbridge up, or undo it: tollbridge down"
        )
    if found["gone"]:
        return f"INCOMPLETE: somebody has removed {', '.join(found['gone'])}; repair it: tollbridge up"
    return ""
