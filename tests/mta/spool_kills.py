"""A program: has `spool_load` killed at so many random instants, and holds the spool to its promises after each.

Prints one JSON object: what was promised, and every promise that was broken.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from smtp_intercept.mta.spool import Spool
from tests.mta.spool_load import load
from tests.mta.spools import content_of, files, is_whole, spool_in, wait

MOST = 100  # messages in the queue: each is read again after each kill
LONGEST_S = 0.03  # from the start, or after some promises; the shortest lives end before the spool is open
PATIENCE_S = 5.0


@dataclass
class Promises:
    """What the lines of `spool_load` say, over all its lives."""

    digests: dict[str, str] = field(default_factory=dict)  # of what must be there
    perhaps: set[str] = field(default_factory=set)  # being settled when the end came
    notices: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def hear(self, lines: Iterable[str]) -> None:
        for line in lines:
            kind, name, *rest = line.split()
            self.counts[kind] += 1
            match kind:
                case "Q":
                    self.digests[name] = rest[0]
                case "s":
                    self.digests.pop(name)
                    self.perhaps.add(name)
                case "S":
                    self.perhaps.discard(name)
                    self.gone.add(name)
                    self.notices |= set(rest) - {"-"}

    def broken(self, directory: Path) -> list[str]:
        """After the spool has been opened again."""
        spool = Spool.open(directory, reserve_bytes=0)
        try:
            entries = list(spool.entries())
            contents = {entry.id: content_of(spool, entry.id) for entry in entries}
        finally:
            spool.close()
        in_files = sum(len(contents[entry.id]) > 65536 for entry in entries)
        self.perhaps &= contents.keys()  # what has gone stays gone
        return [
            *(f"{name} is lost" for name in (self.digests.keys() | self.notices) - contents.keys()),
            *(f"{name} is back" for name in self.gone & contents.keys()),
            *(f"{name} is not whole" for name, content in contents.items() if not is_whole(content)),
            *(f"{name} is another" for name, digest in self.digests.items() if contents[name][:64].decode() != digest),
            *(f"{entry.id} has another size" for entry in entries if len(contents[entry.id]) != entry.content_bytes),
            *([] if len(files(directory)) == in_files else [f"{len(files(directory))} files of {in_files} messages"]),
        ]


def life(directory: Path, chance: random.Random) -> list[str]:
    """One, killed; its whole lines."""
    reading, writing = os.pipe()
    seed, lines, lives_s = (
        chance.randrange(1 << 30),
        chance.choice((0, chance.randrange(60))),
        chance.uniform(0, LONGEST_S),
    )
    if not (child := os.fork()):
        os.close(reading)
        load(directory, writing, seed)
    os.close(writing)
    said = heard(reading, lines)
    time.sleep(lives_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as rest:
        return (said + rest.read()).decode().split("\n")[:-1]


def heard(reading: int, lines: int) -> bytes:
    """So many, or those of `PATIENCE_S`: a busy machine may let the child do nothing for a while."""
    said, deadline_at = b"", time.monotonic() + PATIENCE_S
    while said.count(b"\n") < lines and (left_s := deadline_at - time.monotonic()) > 0:
        if select.select([reading], [], [], left_s)[0]:
            if not (more := os.read(reading, 1 << 16)):
                break  # it has ended by itself
            said += more
    return said


def empty(directory: Path) -> None:
    with spool_in(directory) as spool:
        wait(spool.delete([entry.id for entry in spool.entries()]))


def main(directory: Path, kills: int, seed: int) -> None:
    chance, promises, broken = random.Random(seed), Promises(), []
    for _ in range(kills):
        promises.hear(life(directory, chance))
        broken += promises.broken(directory)
        if len(promises.digests) > MOST:
            empty(directory)
            promises = Promises(counts=promises.counts)
    connection = sqlite3.connect(directory / "queue.db")
    broken += [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    print(json.dumps({"kills": kills, "promised": promises.counts, "broken": broken}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
