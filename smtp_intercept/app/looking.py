"""Messages that rules must see the inside of, handed to the process that looks: the open content, and an answer back.

Who is silent answers nothing: whoever asks goes on without, as its rule has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from smtp_intercept.app import channel
from smtp_intercept.app.consulting import reply_of
from smtp_intercept.inspect.facts import Lookup, Reply
from smtp_intercept.policy import Question

AT_ONCE = 8  # messages of one asker that are with the reader; the others wait here
ANSWER_OCTETS = 262_144  # of one message
_FIRST_BITS = 48  # no answer to an earlier life is taken for one to this


def hear(end: socket.socket) -> list[dict[str, Any]]:
    """As `channel.hear`, with larger answers."""
    return channel.hear(end, ANSWER_OCTETS)


class Looking:
    """The end of who asks. To be started in the running loop."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._number = end, secrets.randbits(_FIRST_BITS)
        self._told: dict[int, tuple[Callable[[Reply], None], asyncio.TimerHandle]] = {}
        self._queue: deque[tuple[int, Question]] = deque()
        self._sent: set[int] = set()
        self.counts = {"looks": 0, "looks_unanswered": 0}

    def start(self) -> None:
        """Hear what is answered."""
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._hear)

    def look_in(self, question: Question, lookup: Lookup, told: Callable[[Reply], None]) -> None:
        """Calls back later, within the question's time, whatever becomes of the reader."""
        self._number += 1
        self.counts["looks"] += 1
        late = asyncio.get_running_loop().call_later(lookup.wait_s, self._say, self._number, None)
        self._told[self._number] = told, late
        self._queue.append((self._number, question))
        self._send()

    def _send(self) -> None:
        while self._queue and len(self._sent) < AT_ONCE:
            number, question = self._queue.popleft()
            if number in self._told and not self._hand_over(number, question):
                asyncio.get_running_loop().call_soon(self._say, number, None)

    def _hand_over(self, number: int, question: Question) -> bool:
        if question.lend is None:
            return False
        try:
            content = question.lend()
        except OSError:  # it is gone, with its session
            return False
        asked = json.dumps({"id": number, "dotted": question.dotted}).encode()
        try:
            socket.send_fds(self._end, [asked], [content])
        except OSError:
            return False
        finally:
            os.close(content)
        self._sent.add(number)
        return True

    def _hear(self) -> None:
        for message in hear(self._end):
            self._say(message.get("id"), reply_of(message.get("said")))

    def _say(self, number: Any, reply: Reply) -> None:
        if isinstance(number, int) and (found := self._told.pop(number, None)):
            told, late = found
            late.cancel()
            self._sent.discard(number)
            self.counts["looks_unanswered"] += reply is None
            told(reply)
            self._send()


def take(end: socket.socket) -> tuple[dict[str, Any], int] | None:
    """At the reader's: one question with its content, which is the caller's to close; None if none waits."""
    try:
        asked, descriptors, _, _ = socket.recv_fds(end, channel.DATAGRAM_OCTETS, 1)
    except OSError:
        return None
    message: Any = None
    with suppress(ValueError, RecursionError):
        message = json.loads(asked)
    if isinstance(message, dict) and len(descriptors) == 1:
        return message, descriptors[0]
    for each in descriptors:
        os.close(each)
    return None
