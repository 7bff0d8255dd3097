"""Dialogues as text files (`receive_script` says how they are written), each whole, octet by octet and in random cuts,
on both event loops; and the law behind them: how the octets were cut makes no difference to anything.
"""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtp_intercept.limits import DEFAULT_LIMITS
from smtp_intercept.mta.receive import Intake
from tests.mta.receive_script import FILES, plain, play, read_script, without
from tests.mta.receiving import everything, house, send
from tests.smtp.box import Run
from tests.smtp.cuts import Cut, bytewise, in_pieces, whole


def test_there_are_dialogues() -> None:
    assert len(FILES) >= 19


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(path: Path, run: Run) -> None:
    script = read_script(path)
    run(play(script, whole))
    run(play(script, bytewise))
    for seed in range(5):
        run(play(script, in_pieces(random.Random(seed))))


# In an order that no honest client would have: the law holds for nonsense too.
WORDS = [
    "EHLO c.example", "HELO c.example", "MAIL FROM:<a@c.example>", "MAIL FROM:<> SIZE=9", "MAIL FROM:<ä@c.example>",
    "RCPT TO:<b@example.com>", "RCPT TO:<x@other.example>", "DATA", ".", "..", "text", "", "Received: x", "\r\n.",
    "\n.", ".\r", "RSET", "NOOP", "VRFY b", "BDAT 5", "QUIT", "x" * 300,
]  # fmt: skip
HONEST = b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", ""])
    lines = draw(st.lists(st.tuples(st.sampled_from(WORDS), ends), max_size=12))
    return HONEST[: draw(st.sampled_from([0, 16, 70, len(HONEST)]))] + "".join(map("".join, lines)).encode()


async def transcript(data: bytes, cut: Cut) -> object:
    """All that the MTA said, kept and told of one stream and its end."""
    limits = replace(DEFAULT_LIMITS, command_line_bytes=200, commands_without_mail=12)
    async with house(limits=limits, intake=Intake(size_bytes=200, hops=1)) as it:
        with it.enter() as sock:
            with suppress(BrokenPipeError):  # it has hung up already
                for piece in cut(data):
                    await send(sock, piece)
                    await asyncio.sleep(0)
            sock.shutdown(socket.SHUT_WR)
            said = await everything(sock)
        await it.over()
        return said, [plain(kept) for kept in it.shelf.kept], [without(record) for record in it.log]


@settings(max_examples=100, deadline=None)
@given(streams(), st.randoms(use_true_random=False))
def test_no_cut_makes_a_difference(data: bytes, chance: random.Random) -> None:
    async def work() -> None:
        async with asyncio.timeout(40):
            expected = await transcript(data, whole)
            assert await transcript(data, bytewise) == expected
            assert await transcript(data, in_pieces(chance)) == expected

    asyncio.run(work())
