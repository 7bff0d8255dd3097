"""A program: puts mail into a spool and takes it out, from eight callers at once, until it is killed.

Each line of its output stands for a promise that the spool has made, or (lower case) may have made:

    Q id digest    enqueued: whole in the queue, unless it was settled since
    s id           about to settle it
    S id notice    settled: gone, and the notice (if not "-") in the queue
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.spool import Spool
from tests.mta.spools import drafted, envelope, outcome, put, sealed

CALLERS = 8


def load(directory: Path, out: int, seed: int) -> None:
    """Never returns by itself."""
    asyncio.run(_load(Spool.open(directory, reserve_bytes=0), out, random.Random(seed)))


async def _load(spool: Spool, out: int, chance: random.Random) -> None:
    await asyncio.gather(*(_call(spool, out, chance) for _ in range(CALLERS)))


async def _call(spool: Spool, out: int, chance: random.Random) -> None:
    mine: list[str] = []
    while True:
        if mine and chance.random() < 0.6:
            await _settle(spool, mine.pop(chance.randrange(len(mine))), out, chance)
        else:
            content = sealed(chance.randbytes(_size(chance)))
            mine.append(await put(spool, content))
            _say(out, "Q", mine[-1], content[:64].decode())


def _size(chance: random.Random) -> int:
    return chance.choice((0, chance.randrange(5000), chance.randrange(2 * SMALL_BYTES)))


async def _settle(spool: Spool, name: str, out: int, chance: random.Random) -> None:
    _say(out, "s", name)
    if chance.random() < 0.7:
        await spool.settle(name, [outcome()], None, 2000.0)
        _say(out, "S", name, "-")
    else:
        notice = drafted(spool, sealed(chance.randbytes(_size(chance)))), envelope(sender="")
        told = await spool.settle(name, [outcome(0, State.FAILED)], notice, 2000.0)
        _say(out, "S", name, told or "-")


def _say(out: int, *words: str) -> None:
    os.write(out, (" ".join(words) + "\n").encode())


if __name__ == "__main__":
    load(Path(sys.argv[1]), 1, int(sys.argv[2]))
