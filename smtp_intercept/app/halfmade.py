"""What `status` tells of a change that did not end (`unfinished`), or of what has gone since. Reads only."""

from __future__ import annotations

import time
from typing import Any

from bridge.glance import index_of
from bridge.ledger import Ledger, mine
from bridge.steps import Inside, UnloadRuleset, plain
from smtp_intercept.app.rundir import RunDir, read_json


def page(run_dir: RunDir, *, rules: bool) -> dict[str, Any]:
    """For `status`: who is at work now, what was begun and not ended, and what was made and has gone since.
    ``rules``: those of the mail lane are there. Asked in the wire's network namespace, and only about that."""
    ledger = Ledger(run_dir.ledger)
    inside = [plain(undo) for undo in ledger.entries.values() if isinstance(undo, Inside) == bool(ledger.room)]
    gone = [link for link in sorted(mine(inside)) if not index_of(link)]
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
