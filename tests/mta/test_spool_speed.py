"""How fast the spool takes messages and lets them go, each of them on the disk before its answer.

Callers that ask at the same time share a commit, so many are faster than one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from smtp_intercept.mta.spool import Spool
from tests.mta.spools import outcome, put, spool_in, wait

pytestmark = pytest.mark.alone

CALLERS = (1, 10, 50)
SIZES = (4 << 10, 1 << 20)
FOR_S = 0.7
LEAST_PER_S = 100  # of 4 KB by one caller; a disk that turns gives so many fsyncs


async def in_s(callers: int, work: Callable[[], Awaitable[bool]]) -> float:
    """Works a second."""
    began, done = time.monotonic(), 0

    async def call() -> None:
        nonlocal done
        while time.monotonic() < began + FOR_S and await work():
            done += 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return done / (time.monotonic() - began)


async def rates(spool: Spool, callers: int, size_bytes: int) -> tuple[float, float]:
    names: list[str] = []

    async def enqueue() -> bool:
        names.append(await put(spool, bytes(size_bytes), now=time.time()))
        return True

    async def settle(left: Iterator[str]) -> bool:
        name = next(left, None)
        if name is not None:
            await spool.settle(name, [outcome()], None, 1.0)
        return name is not None

    in_per_s = await in_s(callers, enqueue)
    left = iter(names)
    out_per_s = await in_s(callers, lambda: settle(left))
    await spool.delete(list(left))
    return in_per_s, out_per_s


def test_in_and_out(tmp_path: Path) -> None:
    found: dict[tuple[int, int], float] = {}
    with spool_in(tmp_path / "spool") as spool:
        for size_bytes in SIZES:
            for callers in CALLERS:
                found[size_bytes, callers], out_per_s = wait(rates(spool, callers, size_bytes))
                print(
                    f"\n{callers:3} callers, {size_bytes >> 10:5} KiB: {found[size_bytes, callers]:6.0f} in a second, ",
                    end="",
                )
                print(f"{out_per_s:6.0f} out", end="")
    assert found[SIZES[0], 1] > LEAST_PER_S
    assert found[SIZES[0], 50] > 2 * found[SIZES[0], 1], "they do not share their commits"
