"""The mail log: one JSON line a record. One kind of I/O: it appends to a file that was opened with privilege.

Loses lines, counts them and goes on: mail waits for no log. What anybody can make any number of is bounded.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from smtp_intercept.repetition import MAYBE_TIMES, Repetition, Weight, Worth
from smtp_intercept.timestamp import timestamp

LOOK_S = 0.2  # so often its size and the room on its disk are looked at …
NEAR_OCTETS = 16 << 20  # … and with less than this left, at each line
BRIM_OCTETS = 64 << 10  # with less than this nothing is tried: the last line would stand there without its end


@dataclass(frozen=True, slots=True)
class Bounds:
    """As [log] has them; 0 is none. Of records that came to nothing: ``each`` of one client network and outcome a
    minute, ``together`` of all; `MAYBE_TIMES` as many of those that may be all that is known of mail. Beyond
    ``size_bytes`` those that came to nothing, with less than ``reserve_bytes`` of room both, are not written."""

    each: int = 0
    together: int = 0
    size_bytes: int = 0
    reserve_bytes: int = 0


class MailLog:
    """``counts`` are lines that are not in it: "log_lines_lost" could not be written, "log_suppressed" repeat
    themselves, for "log_room_kept" there was no room but for what matters."""

    def __init__(
        self,
        fd: int,
        bounds: Bounds = Bounds(),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._fd, self._bounds, self._clock, self._wall = fd, bounds, clock, wall
        self._worth = Worth()
        self._repetitions = {
            Weight.TRIFLE: Repetition(bounds.each, bounds.together),
            Weight.MAYBE: Repetition(bounds.each * MAYBE_TIMES, bounds.together * MAYBE_TIMES),
        }
        self._torn, self._long, self._free, self._looked_at = False, False, NEAR_OCTETS, float("-inf")
        self.counts: Counter[str] = Counter(log_lines_lost=0, log_suppressed=0, log_room_kept=0)

    def __call__(self, record: dict[str, Any]) -> None:
        weight, key = self._worth.of(record)
        repetition = self._repetitions.get(weight)
        if repetition is not None and not repetition.admits(key, self._clock()):
            self.counts["log_suppressed"] += 1
        elif not self._room(weight):
            self.counts["log_room_kept" if repetition else "log_lines_lost"] += 1
        else:
            self._write(_line(record))

    def turn(self) -> None:
        """Call it now and then: it says how many were like those that it has written."""
        for weight, repetition in self._repetitions.items():
            self._sum_up(repetition.over(self._clock()), weight)

    def _sum_up(self, kept_back: dict[str, int], weight: Weight) -> None:
        encrypted = {"encrypted": True} if weight is Weight.MAYBE else {}
        for key, number in kept_back.items():
            of, _, rest = key.partition(" ")
            whose, _, outcome = rest.partition(" ")
            self._write(
                _line(
                    {
                        "type": "suppressed",
                        "time": timestamp(self._wall()),
                        "of": of,
                        "client" if of == "session" else "session": whose,
                        "outcome": outcome,
                        **encrypted,
                        "number": number,
                    }
                )
            )

    def _room(self, weight: Weight) -> bool:
        """Whether there is some for it."""
        now, bounds = self._clock(), self._bounds
        if now - self._looked_at >= LOOK_S or self._free < NEAR_OCTETS:
            self._looked_at, disk = now, os.fstatvfs(self._fd)
            # What is no file on a disk has no blocks.
            self._free = disk.f_bavail * disk.f_frsize if disk.f_blocks else NEAR_OCTETS
            self._long = 0 < bounds.size_bytes <= os.fstat(self._fd).st_size
        least = BRIM_OCTETS if weight is Weight.MATTER else max(bounds.reserve_bytes, BRIM_OCTETS)
        return self._free >= least and not (weight is Weight.TRIFLE and self._long)

    def _write(self, line: bytes) -> None:
        """A line that a full disk has cut off ends there: the next one has a line of its own."""
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        if written < len(data):
            self.counts["log_lines_lost"] += 1
            self._torn = self._torn or written > 0
        else:
            self._torn = False


def _line(record: dict[str, Any]) -> bytes:
    """The configuration's library encodes four times as fast as json, but no lone surrogate."""
    try:
        return to_json(record) + b"\n"
    except PydanticSerializationError:
        return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
