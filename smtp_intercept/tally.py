"""What a gateway counts, from its start.

Pure.
"""

from __future__ import annotations

from collections import Counter

from smtp_intercept.events import FOREIGNERS, Side
from smtp_intercept.session import Session
from smtp_intercept.wire import safe_text

# Names of extensions that one gateway keeps, so that no server fills its report; and of one name so much.
MAX_UNKNOWN = 32
MAX_KEYWORD_CHARACTERS = 40

COUNTERS = (
    "sessions",
    "handed_over",
    "messages",
    "tls_started",
    "sasl_layers",
    "client_doubts",
    "server_doubts",
    "foreign",
    "unread",
    "aborted",
    "idle",
    "timeouts",
    "refused",
    "deferred",
    "client_shares_used_up",
    "network_shares_used_up",
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
    counts["sasl_layers"] += session.layer
    counts["client_doubts"] += session.doubted is Side.CLIENT
    counts["server_doubts"] += session.doubted is Side.SERVER
    counts["foreign"] += session.doubt in FOREIGNERS
    counts["unread"] += session.unread
    if counter := _COUNTED.get(outcome):
        counts[counter] += 1


def count_keywords(counts: Counter[str], session: Session) -> None:
    """In how many sessions servers offered what the register of extensions does not have; one too many is "others"."""
    for keyword in session.unknown_keywords:
        name = safe_text(keyword)[:MAX_KEYWORD_CHARACTERS]
        counts[name if name in counts or len(counts) < MAX_UNKNOWN else "others"] += 1
