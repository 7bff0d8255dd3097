"""What waits in the queue when no MTA says so: read from the spool itself. Changes nothing there."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smtp_intercept.mta.faults import NoQueueError, SpoolError


def waiting(spool: Path) -> dict[str, Any] | None:
    """The queue in numbers, as the running MTA reports them, with ``spool``; ``error`` if it cannot be read; None if
    there is none."""
    if not spool.exists():
        return None
    from smtp_intercept.mta.postmaster import queue_in  # most boxes have no queue, and ask often

    try:
        with queue_in(spool) as queue:
            found = asdict(queue.summary())
    except NoQueueError:
        return None
    except SpoolError as error:
        return {"spool": str(spool), "error": str(error)}
    oldest_at = found.pop("oldest_at")
    return {"spool": str(spool), **found, "oldest_s": None if oldest_at is None else round(time.time() - oldest_at)}
