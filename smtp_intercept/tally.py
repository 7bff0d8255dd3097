"""What a gateway counts, from its start.

Pure.
"""

from __future__ import annotations

from collections import Counter

from smtp_intercept.session import Session

COUNTERS = (
    "sessions",
    "handed_over",
    "messages",
    "tls_started",
    "doubts",
    "aborted",
    "idle",
    "timeouts",
    "refused",
    "deferred",
    "errors",
    "dial_failures",
    "source_ports_lost",
    "accept_failures",
    "bytes_from_client",
    "bytes_from_server",
)
# Outcomes that are counted.
_COUNTED = {
    "aborted": "aborted",
    "idle": "idle",
    "timeout": "timeouts",
    "refused": "refused",
    "deferred": "deferred",
    "error": "errors",
}


def tally() -> Counter[str]:
    """All at 0, so that a reader finds each of them."""
    return Counter(dict.fromkeys(COUNTERS, 0))


def count_session(counts: Counter[str], session: Session, outcome: str) -> None:
    """One that is over: what passed, and how it ended."""
    counts["bytes_from_client"] += session.bytes_from_client
    counts["bytes_from_server"] += session.bytes_from_server
    counts["tls_started"] += session.tls == "started"
    counts["doubts"] += session.doubt is not None
    if counter := _COUNTED.get(outcome):
        counts[counter] += 1
