"""The receiving side as its clients meet it: what they may do to it, and what it never does to them.

what the client does                     what must come of it
---------------------------------------  ------------------------------------------------------------
leaves before the final dot              nothing is kept
leaves while the spool writes            the message is kept, and told so in the log
sends nothing, or an octet now and then  421 4.4.2, or the refusal that was due
sends a line, a header without an end    bounded memory, then a refusal
speaks behind STARTTLS in clear          the end
hides a message in a message             as many messages as the grammar says
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosmtpd
import pytest

from smtp_intercept.answers import Answer
from smtp_intercept.limits import DEFAULT_LIMITS, PATIENCE_S, Phase
from smtp_intercept.mta.envelope import Origin
from smtp_intercept.mta.faults import SpoolError
from smtp_intercept.mta.receive import Intake
from smtp_intercept.mta.smtpd import HELD_BYTES
from smtp_intercept.shares import Shares
from tests.mta.receiving import ORIGIN, House, Shelf, everything, house, replies, send
from tests.smtp.box import Run, reset

CERTIFICATES = Path(aiosmtpd.__file__).parent / "tests" / "certs"
OPENING = b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
OPENED = 5  # replies, the banner's included
KEPT = b"250 2.0.0 Ok: queued as Q1\r\n"


async def opened(it: House) -> socket.socket:
    """A client that may send content."""
    sock = it.enter()
    await send(sock, OPENING)
    assert b"\r\n354 " in await replies(sock, OPENED)
    return sock


def impatient(**phases: float) -> Any:
    return replace(DEFAULT_LIMITS, patience_s={**PATIENCE_S, **{Phase[name]: s for name, s in phases.items()}})


async def handed_over(it: House) -> None:
    """Wait until the spool writes."""
    while not (it.shelf.drafts and it.shelf.drafts[-1].enqueued):
        await asyncio.sleep(0.002)


# Leaving.


@pytest.mark.parametrize("content", [b"", b"one\r\n", b"one\r\n.", b"one\r\n.\r", b"one\n.\n", b"x" * 500_000])
@pytest.mark.parametrize("torn", [True, False])
def test_who_leaves_before_the_dot_leaves_no_trace(run: Run, content: bytes, torn: bool) -> None:
    async def work() -> None:
        async with house() as it:
            sock = await opened(it)
            await send(sock, content)
            reset(sock) if torn else sock.close()
            (session,) = await it.over()
            (message,) = it.records("message")
            assert (message["outcome"], session["outcome"]) == ("aborted", "closed")
            assert not it.shelf.kept
            assert all(draft.over for draft in it.shelf.drafts)

    run(work())


def test_who_leaves_while_the_spool_writes_has_left_a_message(run: Run) -> None:
    async def work() -> None:
        async with house(Shelf(gate=asyncio.Event())) as it:
            sock = await opened(it)
            await send(sock, b"one\r\n.\r\n")
            await handed_over(it)
            reset(sock)
            await asyncio.sleep(0.02)
            assert not it.log
            assert it.shelf.gate is not None
            it.shelf.gate.set()
            await it.over()
            assert [record["outcome"] for record in it.records("message")] == ["accepted"]
            assert it.log[0]["queue_id"] == "Q1"

    run(work())


def test_no_reply_before_the_spool_has_it(run: Run) -> None:
    async def work() -> None:
        async with house(Shelf(gate=asyncio.Event())) as it:
            with await opened(it) as sock:
                await send(sock, b"one\r\n.\r\n")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await replies(sock, 1)
                assert it.shelf.gate is not None
                it.shelf.gate.set()
                assert await replies(sock, 1) == KEPT

    run(work())


def test_nothing_is_done_behind_quit(run: Run) -> None:
    async def work() -> None:
        async with house() as it:
            with it.enter() as sock:
                await send(sock, b"EHLO c\r\nQUIT\r\n" + OPENING + b"one\r\n.\r\n")
                assert (await everything(sock)).endswith(b"250 ENHANCEDSTATUSCODES\r\n221 2.0.0 Bye\r\n")
            (session,) = await it.over()
            assert (session["messages"], session["outcome"]) == (0, "completed")
            assert not it.shelf.kept

    run(work())


# Time.


def test_the_spool_s_time_is_not_the_client_s(run: Run) -> None:
    async def work() -> None:
        async with house(Shelf(gate=asyncio.Event()), limits=impatient(BLOCK=0.1, COMMAND=0.1)) as it:
            with await opened(it) as sock:
                await send(sock, b"one\r\n.\r\n")
                assert it.shelf.gate is not None
                asyncio.get_running_loop().call_later(0.4, it.shelf.gate.set)
                assert await replies(sock, 1) == KEPT

    run(work())


def test_a_silent_client_hears_so(run: Run) -> None:
    async def work() -> None:
        async with house(limits=impatient(COMMAND=0.1)) as it:
            with it.enter() as sock:
                assert (await everything(sock)).endswith(b"ESMTP\r\n421 4.4.2 Timeout\r\n")
            (session,) = await it.over()
            assert session["outcome"] == "timeout"

    run(work())


def test_nothing_is_done_behind_a_time_out(run: Run) -> None:
    """Not even what was there before, while its sender was made to wait for an error."""

    async def work() -> None:
        limits = replace(impatient(COMMAND=0.1), errors=9, errors_free=0, error_delay_s=0.3)
        async with house(limits=limits) as it:
            with it.enter() as sock:
                await send(sock, b"MAIL\r\n" + OPENING + b"one\r\n.\r\n")
                assert (await everything(sock)).endswith(b"503 5.5.1 Say EHLO first\r\n421 4.4.2 Timeout\r\n")
                await it.over()
            assert [record["type"] for record in it.log] == ["session"]
            assert not it.shelf.kept

    run(work())


def test_a_command_that_never_ends_is_no_command(run: Run) -> None:
    async def work() -> None:
        async with house(limits=impatient(COMMAND=0.3)) as it:
            with it.enter() as sock:
                with suppress(BrokenPipeError):  # on a busy machine the end comes first
                    for octet in b"NOOP NOOP NOOP NOOP":
                        await send(sock, bytes([octet]))
                        await asyncio.sleep(0.01)
                assert (await everything(sock)).endswith(b"421 4.4.2 Timeout\r\n")

    run(work())


def test_content_that_stops(run: Run) -> None:
    async def work() -> None:
        async with house(limits=impatient(BLOCK=0.1)) as it:
            with await opened(it) as sock:
                await send(sock, b"one\r\n")
                assert await everything(sock) == b"421 4.4.2 Timeout\r\n"
            await it.over()
            assert [record["outcome"] for record in it.records("message")] == ["aborted"]

    run(work())


def test_content_by_the_octet_has_an_end_as_well(run: Run) -> None:
    async def work() -> None:
        async with house(intake=Intake(content_s=0.2)) as it:
            with await opened(it) as sock:
                began_at = asyncio.get_running_loop().time()
                while not it.records("session") and asyncio.get_running_loop().time() - began_at < 5:
                    await send(sock, b"x") if it.receiving.sessions else None
                    await asyncio.sleep(0.02)
                assert await everything(sock) == b"421 4.4.2 Timeout\r\n"

    run(work())


@pytest.mark.parametrize("content", [b"one\n.\n", b"x" * 100])
def test_refused_content_is_waited_for_a_while(run: Run, content: bytes) -> None:
    """A client that believes its message at an end hears why it is not, though later."""

    async def work() -> None:
        async with house(intake=Intake(size_bytes=50, swallow_s=0.1)) as it:
            with await opened(it) as sock:
                await send(sock, content)
                reply = b"554 5.5.2 CR" if b"\n" in content else b"552 5.3.4 Mess"
                assert (await everything(sock)).startswith(reply)
            (session,) = await it.over()
            assert session["outcome"] == "refused"

    run(work())


# Size.


def test_a_command_longer_than_aiosmtpd_allows(run: Run) -> None:
    async def work() -> None:
        async with house() as it:
            with it.enter() as sock:
                await send(sock, b"EHLO c.example\r\nNOOP " + b"x" * 12_000 + b"\r\n")
                assert (await replies(sock, 3)).endswith(b"250 2.0.0 OK\r\n")

    run(work())


def test_a_line_without_end(run: Run) -> None:
    async def work() -> None:
        async with house() as it:
            with it.enter() as sock:
                for _ in range(100):
                    await send(sock, b"x" * 20_000)
                await send(sock, b"\r\nNOOP\r\n")
                said = await replies(sock, 3)
                assert said.endswith(b"500 5.5.2 Command line too long\r\n250 2.0.0 OK\r\n")

    run(work())


@pytest.mark.parametrize("line", [b"X: " + b"y" * 10_000, b"Received: x\r\n" * 1_000])
def test_a_header_without_end(run: Run, line: bytes) -> None:
    async def work() -> None:
        async with house(intake=Intake(size_bytes=1_000_000)) as it:
            with await opened(it) as sock:
                for _ in range(200):
                    await send(sock, line)
                assert len(it.shelf.drafts[0].content) < 1_200_000
                await send(sock, b"\r\n.\r\n")
                assert (await replies(sock, 1))[:4] in {b"552 ", b"554 "}
            assert not it.shelf.kept

    run(work())


@pytest.mark.parametrize("dripping", [True, False])
def test_data_that_drips_uses_up_its_time(run: Run, dripping: bool) -> None:
    """However often an octet comes; what is not too slow takes as long as it takes."""
    size = 1 if dripping else 2_000

    async def work() -> None:
        async with house(limits=impatient(BLOCK=0.5)) as it:
            with await opened(it) as sock:
                for _ in range(12):
                    await asyncio.sleep(0.1)
                    with suppress(ConnectionError):
                        await send(sock, b"x" * size)
                with suppress(ConnectionError):
                    await send(sock, b"\r\n.\r\n")
                assert (await replies(sock, 1))[:4] == (b"421 " if dripping else b"250 ")

    run(work())


def test_a_client_without_mail_is_left(run: Run) -> None:
    async def work() -> None:
        async with house(limits=replace(DEFAULT_LIMITS, without_mail_s=1.5)) as it:
            with it.enter() as sock:
                for _ in range(4):
                    await send(sock, b"NOOP\r\n")
                    await asyncio.sleep(0.1)
                assert (await replies(sock, 5)).endswith(b"250 2.0.0 OK\r\n")
                assert (await replies(sock, 1)).startswith(b"421 4.4.2 ")

    run(work())


def test_a_client_that_takes_no_replies(run: Run) -> None:
    """It is not read any further, so that its replies do not pile up, and then left."""

    async def work() -> None:
        async with house(limits=replace(impatient(COMMAND=0.5), commands_without_mail=0)) as it:
            with it.enter() as sock:
                sent = 0
                with pytest.raises(ConnectionError):  # noqa: PT012
                    while sent < 5_000_000:
                        await send(sock, b"NOOP\r\n" * 1_000)
                        sent += 6_000
            (session,) = await it.over()
            assert session["outcome"] == "timeout"

    run(work())


# What is ours to go wrong.


@pytest.mark.parametrize(("failure", "reply"), [("full", b"452 4.3.1 "), ("ill", b"451 4.3.0 ")])
@pytest.mark.parametrize("when", ["draft", "write", "enqueue"])
def test_a_spool_that_cannot(run: Run, failure: str, reply: bytes, when: str) -> None:
    async def work() -> None:
        shelf = Shelf(full=when == "draft", broken=when == "enqueue")
        shelf.fails_at_bytes = 100_000 if when == "write" else float("inf")
        if failure == "ill":
            shelf.failure = SpoolError("read-only", temporary=True)
        async with house(shelf) as it:
            with it.enter() as sock:
                await send(sock, OPENING)
                said = await replies(sock, OPENED)
                if b"354" in said:
                    await send(sock, b"x" * 300_000 + b"\r\n.\r\n")
                    said = await replies(sock, 1)
                assert said.splitlines()[-1].startswith(reply)
                await send(sock, b"NOOP\r\n")
                assert await replies(sock, 1) == b"250 2.0.0 OK\r\n"
            await it.over()
            assert [record["outcome"] for record in it.records("message")] == ["deferred"]
            assert all(draft.over for draft in it.shelf.drafts)

    run(work())


def test_a_mistake_of_ours_is_temporary(run: Run) -> None:
    def admission(origin: Origin, recipient: str) -> Answer | None:
        raise ZeroDivisionError

    async def work() -> None:
        async with house(admission=admission) as it:
            with it.enter() as sock:
                await send(sock, OPENING + b"QUIT\r\n")
                said = await everything(sock)
                assert b"\r\n451 4.3.0 " in said
                assert said.endswith(b"221 2.0.0 Bye\r\n")

    run(work())


def test_room_is_asked_for_what_is_announced(run: Run) -> None:
    async def work() -> None:
        async with house(room_bytes=lambda: 1_000) as it:
            with it.enter() as sock:
                await send(
                    sock, b"EHLO c\r\nMAIL FROM:<a@c.example> SIZE=1001\r\nMAIL FROM:<a@c.example> SIZE=1000\r\n"
                )
                assert (await replies(sock, 4)).endswith(b"452 4.3.1 No room for mail now\r\n250 2.1.0 Ok\r\n")

    run(work())


# Coming and going.


def test_one_too_many(run: Run) -> None:
    async def work() -> None:
        async with house(sessions=1) as it:
            with it.enter() as first:
                assert (await replies(first, 1)).startswith(b"220 ")
                with it.enter() as second:
                    assert (await everything(second)).startswith(b"421 4.3.2 ")
                assert it.receiving.sessions == 1
            (refused, _) = await it.over(2)
            assert refused["outcome"] == "deferred"

    run(work())


def test_one_too_many_from_one_client(run: Run) -> None:
    """Its others go on, and so does everybody else; a place that it leaves is its own again."""
    other = replace(ORIGIN, client=("192.0.2.99", 40_000))

    async def work() -> None:
        async with house(shares=Shares(per_client=2)) as it:
            with it.enter() as first, it.enter() as second:
                assert (await replies(first, 1) + await replies(second, 1)).count(b"220 ") == 2
                with it.enter() as third:
                    assert (await everything(third)).startswith(b"421 4.7.0 ")
                with it.enter(other) as another:
                    assert (await replies(another, 1)).startswith(b"220 ")
            await it.over(4)
            with it.enter() as again:
                assert (await replies(again, 1)).startswith(b"220 ")

    run(work())


def test_stopping(run: Run) -> None:
    """Who waits is told to come again; who is in a transaction finishes it."""

    async def work() -> None:
        async with house() as it:
            with it.enter() as idle, await opened(it) as busy:
                await replies(idle, 1)
                draining = asyncio.create_task(it.receiving.drain(20))
                assert (await everything(idle)).startswith(b"421 4.3.2 ")
                await send(busy, b"one\r\n.\r\n")
                assert await replies(busy, 2) == KEPT + b"421 4.3.2 Shutting down, come again\r\n"
                await draining
            assert len(it.shelf.kept) == 1

    run(work())


def test_stopping_before_the_first_word(run: Run) -> None:
    async def work() -> None:
        async with house() as it:
            with it.enter() as sock:
                await it.receiving.drain(20)
                assert (await everything(sock)).endswith(b"\r\n421 4.3.2 Shutting down, come again\r\n")

    run(work())


def test_stopping_for_good_tells_what_the_spool_has(run: Run) -> None:
    async def work() -> None:
        async with house(Shelf(gate=asyncio.Event())) as it:
            with await opened(it) as sock:
                await send(sock, b"one\r\n.\r\n")
                await handed_over(it)
                assert it.shelf.gate is not None
                asyncio.get_running_loop().call_later(0.1, it.shelf.gate.set)
                await it.receiving.drain(0)
            assert [record.get("outcome") for record in it.log] == ["accepted", "stopped"]

    run(work())


def test_a_pipeline_is_answered_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2920 §3.2: MAIL and RCPT in one write with what comes behind them."""
    writes: list[bytes] = []
    write = asyncio.StreamWriter.write

    def counted(self: asyncio.StreamWriter, data: bytes) -> None:
        writes.append(data)
        write(self, data)

    monkeypatch.setattr(asyncio.StreamWriter, "write", counted)

    async def work() -> None:
        async with house() as it:
            with it.enter() as sock:
                await replies(sock, 1)
                await send(
                    sock, b"EHLO c\r\nMAIL FROM:<a@c.example>\r\n" + b"RCPT TO:<b@example.com>\r\n" * 50 + b"DATA\r\n"
                )
                await replies(sock, 53)
                assert [data.count(b"\r\n") for data in writes] == [1, 7, 52]
                await send(sock, b".\r\nMAIL FROM:<a@c.example>\r\n" + b"RCPT TO:<b@example.com>\r\n" * 2_000)
                await replies(sock, 2_002)
                assert max(map(len, writes)) < HELD_BYTES + 100

    run(work())


# Smuggling.

SEQUENCES = [
    b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]  # fmt: skip
HIDDEN = b"MAIL FROM:<x@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nhidden\r\n.\r\n"


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("reject", [True, False])
def test_as_many_messages_as_the_grammar_says(run: Run, sequence: bytes, reject: bool) -> None:
    sent = OPENING + b"one" + sequence + HIDDEN + HIDDEN + b"QUIT\r\n"

    async def work() -> None:
        for cut in range(len(OPENING), len(OPENING) + 3 + len(sequence) + 4):
            async with house(intake=Intake(reject_bare_newline=reject)) as it:
                with it.enter() as sock:
                    await send(sock, sent[:cut])
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    await send(sock, sent[cut:])
                    said = await everything(sock)
                expected = ["x@c.example"] if reject else ["a@c.example", "x@c.example"]
                assert [kept.envelope.reverse_path for kept in it.shelf.kept] == expected
                assert said.count(b"\r\n354 ") == 2
                assert said.count(b"554 5.5.2 ") == reject

    run(work())


# TLS.


@pytest.fixture(scope="module")
def certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.crt", CERTIFICATES / "server.key")
    return context


async def encrypted(sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(sock=sock, ssl=context, server_hostname="mta.example")


def test_starttls(run: Run, certificate: ssl.SSLContext) -> None:
    async def work() -> None:
        async with house(certificate=certificate) as it:
            sock = it.enter()
            await send(sock, b"EHLO c.example\r\n")
            assert b"250 STARTTLS\r\n" in await replies(sock, 2)
            await send(sock, b"STARTTLS\r\n")
            assert await replies(sock, 1) == b"220 2.0.0 Ready to start TLS\r\n"
            reader, writer = await encrypted(sock)
            writer.write(b"MAIL FROM:<a@c.example>\r\n" + OPENING)
            # RFC 3207 §4.2: the EHLO from before is forgotten.
            assert (await reader.readline()).startswith(b"503 5.5.1 ")
            offered = await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            assert b"STARTTLS" not in offered
            content = b"0123456789abcde\r\n" * 50_000
            writer.write(content + b".\r\nQUIT\r\n")
            assert await reader.read() == KEPT + b"221 2.0.0 Bye\r\n"
            writer.close()
            (session,) = await it.over()
            assert (session["tls"], session["outcome"]) == ("started", "completed")
            (kept,) = it.shelf.kept
            assert kept.origin.tls.startswith("TLSv1.")
            assert f" with ESMTPS ({kept.origin.tls}) id ".encode() in kept.content
            assert kept.content.endswith(content)

    run(work())


def test_no_handshake(run: Run, certificate: ssl.SSLContext) -> None:
    async def work() -> None:
        async with house(certificate=certificate) as it:
            with it.enter() as sock:
                await send(sock, b"STARTTLS\r\n")
                await replies(sock, 2)
                await send(sock, b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\n")
                assert b"250" not in await everything(sock)
            (session,) = await it.over()
            assert (session["tls"], session["outcome"], session["messages"]) == ("refused", "aborted", 0)

    run(work())


def test_commands_behind_starttls_in_clear(run: Run, certificate: ssl.SSLContext) -> None:
    """CVE-2011-0411."""

    async def work() -> None:
        async with house(certificate=certificate) as it:
            with it.enter() as sock:
                await replies(sock, 1)
                await send(sock, b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<injected@c.example>\r\n")
                assert (await everything(sock)).endswith(b"STARTTLS\r\n554 5.5.1 Commands behind STARTTLS\r\n")
            (session,) = await it.over()
            assert (session["tls"], session["outcome"]) == ("offered", "refused")

    run(work())


def test_tls_that_breaks_off_leaves_no_trace(run: Run, certificate: ssl.SSLContext) -> None:
    async def work() -> None:
        async with house(certificate=certificate) as it:
            sock = it.enter()
            await send(sock, b"STARTTLS\r\n")
            await replies(sock, 2)
            reader, writer = await encrypted(sock)
            writer.write(OPENING)
            await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            writer.write(b"one\r\n")
            await writer.drain()
            writer.transport.abort()
            await it.over()
            assert [record["outcome"] for record in it.records("message")] == ["aborted"]
            assert not it.shelf.kept

    run(work())
