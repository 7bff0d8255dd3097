"""What `status` tells of the tracking index. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEHIND_BYTES = 16 << 20  # what is added to a busy log in half a minute


def warnings(page: Mapping[str, Any]) -> list[str]:
    """Why `tollbridge trace` does not know the latest mail; nothing of a box that has no index."""
    restarts = page["restarts"].get("tracker")
    gone = "tracker" in page["ended"] or "tracker" not in page["processes"]
    if restarts is not None and (gone or (restarts > 0 and page["tracking"] is None)):  # it begins again and again
        return ["the tracker has ended: `tollbridge trace` does not know the latest mail; the journal says why"]
    return index_warnings(page["tracking"] or {})


def index_warnings(index: Mapping[str, Any]) -> list[str]:
    """Of what the running tracker reports; nothing of an empty one."""
    found = [f"the tracking index stands still: {index['stands']}"] if index.get("stands") else []
    if (behind := index.get("behind_bytes", 0)) > BEHIND_BYTES:
        found.append(f"the tracking index is {behind >> 20} MiB of the mail log behind")
    return found
