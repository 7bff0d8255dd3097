"""The unprivileged process that looks into messages: what strangers sent, taken apart by nobody else.

Has neither network nor files, and is ended and started anew where it hangs; mail that waits for it goes on without.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress

from smtp_intercept.app import channel, config, looking, processlog
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.sandbox import myself
from smtp_intercept.inspect.inside import NAME, TYPE, UNREADABLE
from smtp_intercept.inspect.parts import Parts, look

LOOK_CPU_S = 5.0  # of one message; the others wait meanwhile
MEMORY_BYTES = 1 << 30  # besides a message's content
ANSWER_BYTES = 150_000  # of names and types; a socket takes no more at once


class Reader:
    """One question after the other."""

    def __init__(self, ends: list[socket.socket], reports: socket.socket) -> None:
        self._ends, self._reports, self._told_at = {end.fileno(): end for end in ends}, reports, 0.0
        self._ended = False
        self._counts = {"looked": 0, "unreadable": 0}

    def run(self) -> None:
        """Until SIGTERM."""
        signal.signal(signal.SIGTERM, self._end)
        poll = select.poll()
        for fd in self._ends:
            poll.register(fd, select.POLLIN)
        while not self._ended:
            self._report()
            for fd, _ in poll.poll(channel.REPORT_EVERY_S * 1_000):
                if (taken := looking.take(self._ends[fd])) is not None:
                    message, content = taken
                    channel.tell(self._ends[fd], {"id": message.get("id"), "said": self._said(message, content)})

    def _end(self, number: int, frame: object) -> None:
        self._ended = True

    def _report(self) -> None:
        if time.monotonic() >= self._told_at + channel.REPORT_EVERY_S:
            self._told_at = time.monotonic()
            channel.tell(self._reports, {**myself(), "counts": self._counts})

    def _said(self, message: dict[str, object], content: int) -> list[str] | None:
        """None: the content itself cannot be had."""
        over_at = time.process_time() + LOOK_CPU_S

        def late() -> bool:
            self._report()
            return time.process_time() > over_at

        try:
            found = looked(content, late, dotted=message.get("dotted") is True)
        except MemoryError:
            found = Parts(unreadable="too large to be looked into")
        except (OSError, ValueError):
            return None
        finally:
            os.close(content)
        self._counts["looked"] += 1
        self._counts["unreadable"] += bool(found.unreadable)
        return answer(found)


def looked(content: int, late: Callable[[], bool], *, dotted: bool) -> Parts:
    """Into an open file. OSError, ValueError: it cannot be read."""
    if not os.fstat(content).st_size:
        return Parts()
    with closing(mmap.mmap(content, 0, access=mmap.ACCESS_READ)) as octets:
        return look(octets, late, dotted=dotted)


def answer(found: Parts) -> list[str]:
    """As `inside` reads it, cut to what a datagram takes."""
    lines = [*(f"{TYPE}{each}" for each in found.types), *(f"{NAME}{each}" for each in found.names)]
    kept, size = list[str](), 0
    for line in lines:
        size += len(json.dumps(line)) + 1
        if size > ANSWER_BYTES:
            return [f"{UNREADABLE}names of more than {ANSWER_BYTES} octets", *kept]
        kept.append(line)
    return [f"{UNREADABLE}{found.unreadable}", *kept] if found.unreadable else kept


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels."""
    processlog.begin()
    arguments = read_arguments("reader", argv, many=("look",))
    settings = config.load(arguments.effective)
    most = settings.inspect.size_bytes + settings.mta.size_bytes + MEMORY_BYTES
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    reader = Reader([*map(channel.adopt, arguments.look)], channel.adopt(arguments.reports))
    settle_in("reader", arguments, settings)
    reader.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
