"""A filter that is down, slow, hung, dies, answers nonsense or closes: what is configured happens, once, and no session
stays behind. The filter is played by hand: no sound one does this."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from smtp_intercept.milter.breaker import Breaker, State
from smtp_intercept.milter.client import OnFailure, Settings
from smtp_intercept.milter.packets import Packets, packet
from tests.milter.conftest import run
from tests.milter.town import rule, town
from tests.smtp.box import Run

__all__ = ["run"]
TEXT = b"Subject: x\r\n\r\ntext\r\n"
UNAVAILABLE = "451 4.7.1 Service unavailable - try again later"
LETTERS = b"OCHMRTLNBE"
BOTH = pytest.mark.parametrize("mta", [False, True], ids=["proxy", "mta"])
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]


async def usual(letter: bytes, writer: asyncio.StreamWriter) -> bool:
    """What a filter without a wish says; False: it closes."""
    if letter == b"O":
        writer.write(packet(b"O", struct.pack("!III", 6, 0x1FF, 0)))
    elif letter in b"CHMRTLNBE":
        writer.write(packet(b"c"))
    return letter != b"Q"


@asynccontextmanager
async def playing(path: Path, answer: Answer = usual) -> AsyncIterator[Settings]:
    """A filter that answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets = Packets()
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                for letter, _ in packets.feed(data):
                    if not await answer(letter, writer):
                        writer.close()
                        return
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield Settings("f", str(path), connect_s=0.3, command_s=0.3, end_s=0.3, failures=100)
    path.unlink(missing_ok=True)


def failing(at: bytes, how: str) -> Answer:
    """In that phase."""

    async def answer(letter: bytes, writer: asyncio.StreamWriter) -> bool:
        if letter != at:
            return await usual(letter, writer)
        match how:
            case "dies":
                return False
            case "hangs":
                return True
            case "nonsense":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            case "endless":
                writer.write(packet(b"p") * 3 + struct.pack("!I", 0xFFFFFFFF))
            case "other":
                writer.write(packet(b"z", b"?"))
        return True

    return answer


@pytest.mark.parametrize(
    ("on_failure", "mta"), [(OnFailure.DEFER, False), (OnFailure.ACCEPT, True)], ids=["defer", "mta"]
)
@pytest.mark.parametrize("how", ["dies", "hangs", "nonsense", "endless", "other"])
@pytest.mark.parametrize("at", [bytes([letter]) for letter in LETTERS])
def test_in_every_phase(tmp_path: Path, at: bytes, how: str, on_failure: OnFailure, mta: bool) -> None:
    async def work() -> None:
        async with playing(tmp_path / "f", failing(at, how)) as settings:
            settings = replace(settings, on_failure=on_failure)
            async with town(tmp_path, [rule("f")], settings, mta=mta) as it:
                heard = await it.mail(TEXT)
                assert it.filters["f"].counts["failures"] == 1
        if on_failure is OnFailure.DEFER:
            assert heard[-1] == UNAVAILABLE
            assert it.stored == []
        else:
            assert heard[-1].startswith("250")
            assert len(it.stored) == 1
            (told,) = [record for record in it.log if record["type"] == "message"]
            assert told["filters"]["f"].startswith("failed: ")

    asyncio.run(_timed(work()))


async def _timed(work: Awaitable[None]) -> None:
    async with asyncio.timeout(30):
        await work


@pytest.mark.parametrize("on_failure", list(OnFailure))
def test_down(run: Run, tmp_path: Path, on_failure: OnFailure) -> None:
    """Left alone after some failures, and asked again when its rest is over."""
    settings = Settings("f", str(tmp_path / "f"), on_failure=on_failure, failures=2, rest_s=0.5)

    async def work() -> None:
        async with town(tmp_path, [rule("f")], settings) as it:
            found = it.filters["f"]
            for _ in range(4):
                heard = (await it.mail(TEXT))[-1]
                assert heard == (UNAVAILABLE if on_failure is OnFailure.DEFER else "250 taken")
            assert (found.counts["failures"], found.counts["skipped"] > 0) == (found.breaker.failed, True)
            assert found.page()["state"] == "left alone"
            assert found.last_error == "no connection: No such file or directory"
            async with playing(tmp_path / "f"):
                await asyncio.sleep(0.6)
                assert (await it.mail(TEXT))[-1] == "250 taken"
                assert found.page()["state"] == "works"
                await asyncio.sleep(0)
                found.close()
        assert len(it.stored) == (1 if on_failure is OnFailure.DEFER else 5)

    run(work())


def test_the_breaker() -> None:
    it = Breaker(failures=2, rest_s=10)
    assert it.admits(0)
    it.fails(0)
    assert it.admits(1)
    it.fails(1)
    assert it.state is State.OPEN
    assert not it.admits(10.9)
    assert it.admits(11)
    assert not it.admits(11), "one tries, the others do not wait"
    it.fails(12)
    assert not it.admits(21.9)
    assert it.admits(22)
    it.works()
    assert it.admits(22)
    assert it.failed == 0


def test_progress_is_time(run: Run, tmp_path: Path) -> None:
    async def slow(letter: bytes, writer: asyncio.StreamWriter) -> bool:
        if letter == b"E":
            for _ in range(4):
                await asyncio.sleep(0.15)
                writer.write(packet(b"p"))
        return await usual(letter, writer)

    async def work() -> None:
        async with (
            playing(tmp_path / "f", slow) as settings,
            town(tmp_path, [rule("f")], settings) as it,
        ):
            assert (await it.mail(TEXT))[-1] == "250 taken"

    run(work())


@BOTH
@pytest.mark.parametrize("when", [b"E", b"K", b"M"])
def test_one_that_closes_between_messages(run: Run, tmp_path: Path, when: bytes, mta: bool) -> None:
    """Behind each message, each client, or before the second message: nothing is lost, nothing comes twice."""
    messages = 0

    async def closing(letter: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal messages
        messages += letter == b"M"
        if letter == b"M" == when and messages % 2 == 0:
            return False
        await usual(letter, writer)
        return letter not in (b"Q", when if when != b"M" else b"Q")

    async def work() -> None:
        async with playing(tmp_path / "f", closing) as settings, town(tmp_path, [rule("f")], settings, mta=mta) as it:
            for _ in range(2):
                client = await it.enter()
                for _ in range(3):
                    assert (await client.mail(TEXT, ["b@example.com"]))[-1].startswith("250")
                await client.leave()
            assert it.filters["f"].counts["failures"] == 0
        assert len(it.stored) == 6

    run(work())


@BOTH
@pytest.mark.parametrize("at", [b"R", b"B", b"E"])
def test_a_client_that_goes_meanwhile(run: Run, tmp_path: Path, at: bytes, mta: bool) -> None:
    async def work() -> None:
        async with playing(tmp_path / "f", failing(at, "hangs")) as settings:
            settings = replace(settings, command_s=5.0, end_s=5.0)
            async with town(tmp_path, [rule("f")], settings, mta=mta) as it:
                client = await it.enter()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await client.mail(TEXT, ["b@example.com"])
                client.vanish()
                while not [record for record in it.log if record["type"] == "session"]:
                    await asyncio.sleep(0.01)
        assert it.stored == []

    run(work())


def test_answers_are_bounded(run: Run, tmp_path: Path) -> None:
    async def talking(letter: bytes, writer: asyncio.StreamWriter) -> bool:
        if letter == b"E":
            with suppress(ConnectionError):
                while True:
                    writer.write(packet(b"b", b"x" * 65_000))
                    await writer.drain()
        return await usual(letter, writer)

    async def work() -> None:
        async with playing(tmp_path / "f", talking) as settings, town(tmp_path, [rule("f")], settings) as it:
            assert (await it.mail(TEXT))[-1] == UNAVAILABLE
            assert "more than 1048576 octets" in it.filters["f"].last_error

    run(work())
