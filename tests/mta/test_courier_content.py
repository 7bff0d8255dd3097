"""Content on its way: whole, as fast as the server takes it, and never cut short. On both event loops."""

from __future__ import annotations

import asyncio
import io
from typing import BinaryIO

import pytest

from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta.envelope import Body, State
from smtp_intercept.mta.nexthop import Place
from tests.mta.couriers import SECONDS, TAKEN, courier, parcel, states, to
from tests.mta.remote import serving
from tests.smtp.box import Run


def test_large_content_arrives_whole(run: Run) -> None:
    content = b"".join(b".%d\r\n" % number for number in range(1_000_000))

    async def work() -> None:
        async with serving() as remote:
            assert states(await courier().carry(parcel(to(remote), content))) == TAKEN
            (message,) = remote.messages
            assert message.replace(b"\r\n..", b"\r\n.")[1:] == content

    run(work())


def test_a_server_that_does_not_read_stops_the_reading(run: Run) -> None:
    read_bytes = 0

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read_bytes
            read_bytes += size or 0
            return b"x" * (size or 0)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 x\r\n")
        await reader.readline()
        writer.write(b"250-x\r\n250 PIPELINING\r\n")
        await reader.readline()
        writer.write(b"250 x\r\n250 x\r\n354 x\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(SECONDS)

    async def work() -> None:
        server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=4096)
        place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
        (outcome,) = await courier(patience_s={**RFC_SECONDS, Phase.BLOCK: 1.0}).carry(parcel(to(place), Endless))
        assert (outcome.state, outcome.status) == (State.QUEUED, "4.4.2")
        assert "timed out while the message was being sent" in outcome.reply
        assert read_bytes < 16 << 20, "what the kernel's buffers hold, and no more"
        server.close()

    run(work())


@pytest.mark.parametrize(("content", "arrives"), [(b"plain\r\n", True), ("naïve\r\n".encode(), False)])
def test_announced_as_8_bit_towards_a_7_bit_server(run: Run, content: bytes, arrives: bool) -> None:
    async def work() -> None:
        async with serving({"EHLO": "250 old"}) as remote:
            outcomes = await courier().carry(parcel(to(remote), content, body=Body.EIGHT_BIT))
            assert states(outcomes) == (TAKEN if arrives else [(State.FAILED, "5.6.3")])
            assert len(remote.messages) == arrives

    run(work())


def test_content_that_cannot_be_read_waits_and_is_never_cut_short(run: Run) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            self.seek(1)
            return b"x" * (size or 0)

    def missing() -> BinaryIO:
        raise FileNotFoundError(2, "No such file or directory")

    async def work() -> None:
        for content in (Broken, missing):
            async with serving() as remote:
                (outcome,) = await courier().carry(parcel(to(remote), content))
                assert (outcome.state, outcome.status) == (State.QUEUED, "4.3.0")
                assert "cannot read the message" in outcome.reply
                while remote.open:
                    await asyncio.sleep(0.01)
                assert not remote.messages

    run(work())
