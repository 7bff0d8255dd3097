"""What rules ask the DNS, carried to the resolver and back: datagrams over a pair of sockets, one for each question.

A resolver that is silent, or was started again, answers nothing: whoever asks goes on without.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from smtp_intercept.app import channel
from smtp_intercept.inspect.facts import Lookup, Reply, Source

if TYPE_CHECKING:
    from smtp_intercept.inspect.lookups import Lookups  # and a DNS library, which who asks does without

MAX_WAITING = 4_096  # of one who asks; who asks for more hears at once that nobody says
MAX_WAIT_S = 30.0
_FIRST_BITS = 48  # no answer to an earlier life is taken for one to this


def pair() -> tuple[socket.socket, socket.socket]:
    """(the resolver's end, the other), both non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * channel.DATAGRAM_OCTETS)
    return ends


class Consulting:
    """The end of who asks. To be started in the running loop."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._number = end, secrets.randbits(_FIRST_BITS)
        self._waiting: dict[int, tuple[Callable[[Reply], None], asyncio.TimerHandle]] = {}
        self.counts = {"lookups": 0, "lookups_unanswered": 0}

    def start(self) -> None:
        """Hear what is answered."""
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._hear)

    def look_up(self, lookup: Lookup, told: Callable[[Reply], None]) -> None:
        """Calls back within the question's time, whatever becomes of the resolver."""
        self._number += 1
        self.counts["lookups"] += 1
        late = asyncio.get_running_loop().call_later(lookup.wait_s, self._say, self._number, None)
        self._waiting[self._number] = told, late
        asked = [lookup.source.value, lookup.name, lookup.wait_s, lookup.group]
        channel.tell(self._end, {"id": self._number, "ask": asked})

    def _hear(self) -> None:
        for message in channel.hear(self._end):
            self._say(message.get("id", 0), reply_of(message.get("said")))

    def _say(self, number: Any, reply: Reply) -> None:
        if isinstance(number, int) and (found := self._waiting.pop(number, None)):
            told, late = found
            late.cancel()
            self.counts["lookups_unanswered"] += reply is None
            told(reply)


def reply_of(said: Any) -> Reply:
    """What is no answer says nothing."""
    return tuple(map(str, said)) if isinstance(said, list) else None


@dataclass(slots=True)
class Answering:
    """The resolver's end of one who asks."""

    end: socket.socket
    lookups: Lookups
    waiting: int = 0

    def hear(self) -> None:
        """Whatever waits."""
        for message in channel.hear(self.end):
            lookup = lookup_of(message)
            if lookup is None or self.waiting >= MAX_WAITING:
                self._tell(message.get("id"), None)
                continue
            self.waiting += 1
            task = asyncio.get_running_loop().create_task(self._answer(message.get("id"), lookup))
            _TASKS.add(task)
            task.add_done_callback(_TASKS.discard)

    async def _answer(self, number: Any, lookup: Lookup) -> None:
        try:
            self._tell(number, await self.lookups.answer(lookup))
        finally:
            self.waiting -= 1

    def _tell(self, number: Any, reply: Reply) -> None:
        channel.tell(self.end, {"id": number, "said": reply})


_TASKS: set[asyncio.Task[None]] = set()


def lookup_of(message: Mapping[str, Any]) -> Lookup | None:
    """From the less privileged end: None for what is none."""
    match message.get("ask"):
        case [str(source), str(name), int() | float() as wait_s, str(group)] if 0 < wait_s <= MAX_WAIT_S:
            pass
        case _:
            return None
    try:
        lookup = Lookup(Source(source), name, float(wait_s), group)
        if lookup.source is Source.CLIENT:
            ip_address(name)
    except ValueError:
        return None
    return lookup
