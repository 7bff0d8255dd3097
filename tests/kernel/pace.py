"""How busy the machine is: what a test wants of a speed, it wants of the share of the machine that it gets."""

from __future__ import annotations

import time

SAMPLE_S = 0.2


def slowness() -> float:
    """How much longer what wants one processor takes now than on an idle machine: 1.0 where nobody else wants it."""
    began_at, used_s = time.monotonic(), time.thread_time()
    while time.thread_time() - used_s < SAMPLE_S:
        pass
    return max(1.0, (time.monotonic() - began_at) / SAMPLE_S)
