"""Times of day as logs and tables tell them. Reads no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def timestamp(at: float) -> str:
    """Seconds of the epoch as RFC 3339 has them, to the millisecond: ``2026-11-22T17:24:37.521Z``."""
    second, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_to_the_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=64)  # a busy log asks for the same one a thousand times
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
