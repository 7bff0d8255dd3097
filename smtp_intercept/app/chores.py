"""What a process does again and again beside its work. Apart, for the one that holds the queue has no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def every(seconds: float, work: Callable[[], None]) -> None:
    """Until cancelled, and at once."""
    while True:
        work()
        await asyncio.sleep(seconds)
