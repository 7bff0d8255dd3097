"""What a gateway may hold however long it runs: memory of each process, files, entries of the kernel's tables. Pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# A leak that fills a GB in a month is 24 KB a minute: an hour shows it only beside what is noise, hence the share.
GROWTH, NOISE_BYTES = 1.25, 24 << 20
FILES = 1.5, 64
LONG_ENOUGH_S = 300.0  # before, everything still grows to its size
RECOVERED_S = 60.0  # a process that has died often is started again after 30 s at most (`children.BACKOFF_S`)


@dataclass(frozen=True, slots=True)
class Held:
    """By one process at a moment."""

    at_s: float
    rss_bytes: int
    files: int


def grown(kind: str, held: Sequence[Held]) -> Iterator[str]:
    """The last quarter against the second: the first is still growing to its size. Medians, for a burst is no leak."""
    if not held or held[-1].at_s - held[0].at_s < LONG_ENOUGH_S:
        return
    quarter = len(held) // 4
    early, late = held[quarter : 2 * quarter], held[-quarter:]
    was, now = (statistics.median(each.rss_bytes for each in part) for part in (early, late))
    if now > was * GROWTH + NOISE_BYTES:
        yield f"the {kind} has grown from {was / 2**20:.0f} to {now / 2**20:.0f} MiB"
    was, now = (statistics.median(each.files for each in part) for part in (early, late))
    if now > was * FILES[0] + FILES[1]:
        yield f"the {kind} has {now:.0f} files open, after {was:.0f}"


def full(tables: Mapping[str, Sequence[int]], bound: int) -> Iterator[str]:
    """``tables``: how many entries each had, from time to time."""
    for name, sizes in tables.items():
        if max(sizes, default=0) > bound:
            yield f"{name} has held {max(sizes)} entries, of at most {bound}"


# Not of mail: the heart-beat, the canaries, and the hosts that are there.
STANDING = re.compile(r" (live|canary_\w+|behind\d+)$")
LEFT = 100  # hosts repeat the last frames of what a kill has cut for a quarter of an hour (tcp_orphan_retries)


def left(tables: Mapping[str, int]) -> Iterator[str]:
    """After the last mail and the longest lifetime nothing is left."""
    of_mail = {name: size for name, size in tables.items() if not STANDING.search(name)}
    yield from (f"{name} still holds {size} entries" for name, size in of_mail.items() if size > LEFT)


def late(spells: Sequence[tuple[str, float]]) -> Iterator[str]:
    """``spells``: what was wrong, and for how many seconds after its end the gateway was not well."""
    for name, seconds in spells:
        if seconds > RECOVERED_S:
            yield f"{name}: well again only {seconds:.0f} s after its end, of at most {RECOVERED_S:.0f}"
