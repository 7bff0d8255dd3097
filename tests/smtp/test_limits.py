"""The limits at their edges: what passes one less, what happens one more, and who is not touched by it."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from smtp_intercept.direction import Protection
from smtp_intercept.events import Leave, MessageDone, Out, Release, ToClient, ToServer
from smtp_intercept.holding import NOOP_EVERY_S
from smtp_intercept.leg import WRITE_BUFFER_BYTES
from smtp_intercept.limits import DEFAULT_LIMITS, LOOK_AHEAD_BYTES, PATIENCE_S, Limits, Phase
from smtp_intercept.policy import PASSED, Close, Defer, Discard, Need, Refuse, Ruling, Stage, answer_to
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session
from smtp_intercept.shares import Shares
from tests.smtp.box import Run, box, connected, listening, receive, send

PASSING = Rules(ask=lambda asked: PASSED, reject_bare_newline=True)


def session(rules: Rules, *steps: tuple[str, bytes], now: float = 0.0) -> Session:
    it = Session(Protection(), rules)
    it.opened(now)
    for side, data in steps:
        (it.client_sent if side == "c" else it.server_sent)(data, now)
    return it


GREETED = (("s", b"220 mx\r\n"), ("c", b"EHLO c\r\n"), ("s", b"250 mx\r\n"))
IN_DATA = (
    *GREETED,
    ("c", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
    ("s", b"250 ok\r\n250 ok\r\n354 go\r\n"),
)
TIMEOUT = [ToClient(b"421 4.4.2 Timeout\r\n"), Leave("timeout", "421 4.4.2 Timeout")]


@pytest.mark.parametrize(
    ("phase", "steps"),
    [
        (Phase.BANNER, ()),
        (Phase.COMMAND, GREETED),
        (Phase.REPLY, (*GREETED, ("c", b"NOOP\r\n"))),
        (Phase.DATA_REPLY, (*GREETED, ("c", b"DATA\r\n"))),
        (Phase.BLOCK, IN_DATA),
        (Phase.BLOCK, (*IN_DATA, ("s", b"552 too much already\r\n"))),
        (Phase.END_REPLY, (*IN_DATA, ("c", b"x\r\n.\r\n"))),
    ],
)
def test_each_phase_has_its_time(phase: Phase, steps: tuple[tuple[str, bytes], ...]) -> None:
    it = session(Rules(), *steps, now=10.0)
    assert it.check_time(10.0 + PATIENCE_S[phase] - 0.1) == []
    outs = [out for out in it.check_time(10.0 + PATIENCE_S[phase]) if not isinstance(out, MessageDone)]
    assert outs == TIMEOUT
    assert it.check_time(1e9) == it.client_sent(b"NOOP\r\n", 0) == it.server_sent(b"250 ok\r\n", 0) == []


def outcome_at(it: Session, now: float) -> str:
    """What the session is told to be when its time is asked for; "" is nothing."""
    return next((out.outcome for out in it.check_time(now) if isinstance(out, Leave)), "")


def test_a_command_sent_octet_by_octet_does_not_win_time() -> None:
    slow = session(Rules(), *GREETED)
    for now in range(0, 900, 100):
        assert slow.client_sent(b"N", now) == []
    assert slow.check_time(900) == TIMEOUT


CHUNKS = (
    ("s", b"220 mx\r\n"),
    ("c", b"EHLO c\r\n"),
    ("s", b"250-mx\r\n250 CHUNKING\r\n"),
    ("c", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"),
    ("s", b"250 ok\r\n250 ok\r\n"),
    ("c", b"BDAT 9999999\r\n"),
)
LEAST = DEFAULT_LIMITS.block_bytes_per_min
BLOCK_S = round(PATIENCE_S[Phase.BLOCK])


@pytest.mark.parametrize("steps", [IN_DATA, CHUNKS], ids=["DATA", "BDAT"])
def test_message_data_wins_as_much_time_as_it_has_octets(steps: tuple[tuple[str, bytes], ...]) -> None:
    enough, short = session(Rules(), *steps), session(Rules(), *steps)
    for minute in range(1, 61):
        enough.client_sent(b"x" * LEAST, minute * 60)
        assert enough.check_time(minute * 60 + 59) == []
    for minute in range(1, 22):  # half as much: it falls behind by half a minute in each
        short.client_sent(b"x" * (LEAST // 2), minute * 60)
        assert short.check_time(minute * 60) == []
    short.client_sent(b"x" * (LEAST // 2), 22 * 60)
    assert outcome_at(short, 22 * 60) == "timeout"


def test_a_pause_within_a_block_is_free_and_what_comes_fast_is_no_credit() -> None:
    it = session(Rules(), *IN_DATA)
    it.client_sent(b"x" * 10_000_000, 1)
    assert it.check_time(1 + BLOCK_S - 1) == []
    it.client_sent(b"x" * LEAST, BLOCK_S)  # a minute is left of what has been lost
    assert it.check_time(BLOCK_S + 60) == []
    assert outcome_at(it, BLOCK_S + 62) == "timeout"


def test_an_octet_a_chunk_does_not_win_time_either() -> None:
    """Neither do the replies to chunks, nor a new command or transaction; a message that is accepted does."""
    it, now = session(Rules(), *CHUNKS[:-1]), 0.0
    for _ in range(3):
        it.client_sent(b"BDAT 2\r\nx", now)
        now += 200.0
        assert it.check_time(now) == []
        it.client_sent(b"x", now)
        it.server_sent(b"250 ok\r\n", now)
        it.client_sent(b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", now)
        it.server_sent(b"250 ok\r\n" * 3, now)
    it.client_sent(b"BDAT 2\r\nx", now)
    assert it.check_time(now + 59) == []
    it.client_sent(b"xBDAT 1 LAST\r\nx", now + 59)
    it.server_sent(b"250 ok\r\n250 taken\r\n", now + 59)
    it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 2\r\nx", now + 60)
    it.server_sent(b"250 ok\r\n" * 2, now + 60)
    it.client_sent(b"", now + 60)
    assert it.check_time(now + 60 + BLOCK_S - 1) == []
    assert outcome_at(it, now + 60 + BLOCK_S) == "timeout"


def test_who_brings_no_mail_goes_however_much_it_says() -> None:
    it = session(Rules(), *GREETED)
    within_s, now = DEFAULT_LIMITS.without_mail_s, 0.0
    while now + 600 < within_s:
        now += 600
        it.client_sent(b"NOOP\r\n", now)
        it.server_sent(b"250 ok\r\n", now)
        assert it.check_time(now) == []
    assert it.check_time(within_s - 0.1) == []
    assert it.check_time(within_s) == TIMEOUT


def test_who_brings_mail_stays() -> None:
    it = session(Rules(), *GREETED)
    for hour in range(1, 9):
        now = hour * 3_600.0
        it.client_sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", now)
        it.server_sent(b"250 ok\r\n250 ok\r\n354 go\r\n", now)
        it.client_sent(b"x\r\n.\r\n", now)
        it.server_sent(b"250 ok\r\n", now)
        assert it.check_time(now + 899) == []


def test_what_is_encrypted_has_no_phases() -> None:
    it = session(Rules(), *GREETED, ("c", b"STARTTLS\r\n"), ("s", b"220 go\r\n"))
    assert it.check_time(1e9) == []


def test_a_verdict_must_mean_something_at_its_stage() -> None:
    for stage in (Stage.CONNECT, Stage.HELO):
        with pytest.raises(ValueError, match="Discard"):
            answer_to(Discard(), stage)
    for wrong in (
        lambda: Refuse(450, "x"),
        lambda: Defer(550, "x"),
        lambda: Close(250, "x"),
        lambda: Refuse(550, "a\r\nb"),
    ):
        with pytest.raises(ValueError, match="no reply"):
            wrong()
    with pytest.raises(ValueError, match="501 characters"):
        Refuse(550, "x" * 501)


def test_a_judge_that_needs_no_content_holds_none() -> None:
    it = session(PASSING, *IN_DATA, ("c", b"A: b\r\n\r\n"))
    for _ in range(50):
        outs: list[Out] = it.client_sent(b"x" * 65_534 + b"\r\n", 0)
        assert sum(len(out.data) for out in outs if isinstance(out, ToServer)) == 65_536
        assert it.ahead_bytes == 0
    assert it.wants_client


HOLDING = Rules(ask=lambda asked: Ruling(need=Need.HOLD))
HELD = (
    *GREETED,
    ("c", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
    ("s", b"250 ok\r\n250 ok\r\n"),
)


def test_a_server_is_spoken_to_while_content_is_held() -> None:
    """And its replies reach nobody."""
    it = session(HOLDING, *HELD)
    assert it.check_time(NOOP_EVERY_S - 1) == []
    it.client_sent(b"x", 100)
    assert it.check_time(NOOP_EVERY_S) == [ToServer(b"NOOP\r\n")]
    it.client_sent(b"x", 200)
    assert it.check_time(2 * NOOP_EVERY_S) == []  # it has not answered yet
    assert it.server_sent(b"250 ok\r\n", 2 * NOOP_EVERY_S) == []
    assert it.check_time(2 * NOOP_EVERY_S) == [ToServer(b"NOOP\r\n")]
    outs = it.client_sent(b"\r\n.\r\n", 300)
    assert [out for out in outs if isinstance(out, ToServer)] == [ToServer(b"DATA\r\n")]
    assert it.server_sent(b"250 ok\r\n354 go\r\n", 300) == [Release(None, chunked=False)]


def test_what_cannot_be_kept_is_the_clients_still() -> None:
    it = session(HOLDING, *HELD)
    it.lacks_room()
    outs = it.client_sent(b"x\r\n.\r\n", 0)
    assert ToClient(b"452 4.3.1 Come again later\r\n") in outs
    assert ToServer(b"RSET\r\n") in outs


def test_an_answer_that_nobody_waits_for_any_more() -> None:
    it = session(Rules(ask=lambda asked: None, limits=Limits(command_line_bytes=20)), *GREETED[:1])
    assert it.told(PASSED, 0) == [ToClient(b"220 mx\r\n")]
    assert it.told(Ruling(Refuse(550, "no")), 0) == []
    assert it.server_closed(0)
    assert it.told(PASSED, 0) == []


def test_a_client_far_ahead_of_a_screened_server_waits() -> None:
    it = session(PASSING, *GREETED, ("c", b"DATA\r\n" + b"y" * LOOK_AHEAD_BYTES))
    assert not it.wants_client
    assert it.ahead_bytes == LOOK_AHEAD_BYTES


# In the running gateway.


def test_a_slow_server_slows_its_client_under_a_policy_too(run: Run) -> None:
    size = 20_000_000

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: PASSING) as it:
            client = await connected(it.port)
            server = await taken()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            await send(server, b"220 x\r\n")
            await send(client, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
            await receive(server, 38)
            await send(server, b"250 ok\r\n250 ok\r\n354 go\r\n")
            writing = asyncio.create_task(send(client, b"\r\n" + b"x" * size + b"\r\n.\r\n"))
            await asyncio.sleep(0.4)
            assert not writing.done()
            assert it.gateway.unsent_bytes <= WRITE_BUFFER_BYTES + 300_000
            assert len(await receive(server, size + 7)) == size + 7
            await writing
            client.close()
            server.close()
            await it.over()

    run(work())


async def told(client: socket.socket, line: bytes) -> None:
    """The line, and then the end of the stream."""
    assert await receive(client, len(line) + 1) == line
    client.close()


def test_a_session_whose_time_is_over_is_told_and_counted(run: Run) -> None:
    rules = Rules(limits=Limits(patience_s={**PATIENCE_S, Phase.BANNER: 0.3}))

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client = await connected(it.port)
            server = await taken()
            await told(client, b"421 4.4.2 Timeout\r\n")
            server.close()
            assert (await it.over())[0]["outcome"] == "timeout"
            assert it.gateway.counters()["timeouts"] == 1

    run(work())


@pytest.mark.parametrize("reads", [False, True])
def test_a_client_that_does_not_read_is_left_and_one_that_reads_slowly_is_not(run: Run, reads: bool) -> None:
    rules = Rules(limits=Limits(patience_s={**PATIENCE_S, Phase.BLOCK: 0.6}))

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client, server = await connected(it.port), await taken()
            talking = asyncio.create_task(send(server, b"220 x\r\n" + (b"214-" + b"y" * 8_000 + b"\r\n") * 4_000))
            await send(client, b"HELP\r\n")
            for _ in range(20):
                await asyncio.sleep(0.15)
                if reads:
                    await asyncio.get_running_loop().sock_recv(client, 1_000_000)
            assert it.gateway.sessions == reads
            talking.cancel()
            client.close()
            server.close()
            (record,) = await it.over()
            assert (record["outcome"] == "timeout", record["reason"] == "the client does not read") == (not reads,) * 2

    run(work())


def test_a_slowed_client_slows_nobody_else(run: Run) -> None:
    rules = Rules(limits=Limits(errors=9, errors_free=0, error_delay_s=0.5))

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            pairs = [(await connected(it.port), await taken()) for _ in range(2)]
            (slowed, its_server), (other, others_server) = pairs
            for _, server in pairs:
                await send(server, b"220 x\r\n")
            await send(slowed, b"FOO\r\n")
            await receive(its_server, 5)
            await send(its_server, b"500 what\r\n")
            await receive(slowed, 17)
            began = time.monotonic()
            await send(slowed, b"BAR\r\n")
            await send(other, b"NOOP\r\n")
            assert await receive(others_server, 6) == b"NOOP\r\n"
            assert time.monotonic() - began < 0.4
            assert await receive(its_server, 5) == b"BAR\r\n"
            assert time.monotonic() - began > 0.35
            for pair in pairs:
                for sock in pair:
                    sock.close()
            await it.over(2)

    run(work())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"shares": Shares(per_client=2)}, b"421 4.7.0 Too many connections from you, come again\r\n"),
        ({"sessions": 2, "defer_overload": True}, b"421 4.3.2 Too many connections, come again\r\n"),
    ],
)
def test_one_connection_too_many_is_told_to_come_again(run: Run, options: dict[str, Any], line: bytes) -> None:
    async def work() -> None:
        async with listening() as (port, taken), box(port, **options) as it:
            clients = [await connected(it.port) for _ in range(2)]
            servers = [await taken() for _ in clients]
            await told(await connected(it.port), line)
            assert not it.gateway.full
            assert (await it.over())[0]["outcome"] == "deferred"
            clients.pop().close()
            servers.pop().close()
            await it.over(2)
            clients.append(await connected(it.port))
            servers.append(await taken())  # there is room again
            assert it.gateway.counters()["deferred"] == 1
            for sock in clients + servers:
                sock.close()
            await it.over(4)

    run(work())


def test_after_our_last_word_the_client_may_still_talk(run: Run) -> None:
    rules = Rules(reject_bare_newline=True)
    rest = b"y" * 3_000_000

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client = await connected(it.port)
            server = await taken()
            await send(server, b"220 x\r\n")
            await send(client, b"DATA\r\n")
            await receive(server, 6)
            await send(server, b"354 go\r\n")
            await receive(client, 15)
            await send(client, b"one\n.\nMAIL FROM:<x@y>\r\n" + rest)
            await told(client, b"554 5.5.2 CR or LF alone beside a lone dot\r\n")
            assert await receive(server, 5) == b"one\n."
            with pytest.raises(ConnectionResetError):
                await receive(server, 1)
            server.close()
            assert (await it.over())[0]["outcome"] == "refused"

    run(work())


def test_a_client_that_does_not_read_hides_no_message(run: Run) -> None:
    """It is left while the server has still to say what became of its message."""
    rules = Rules(limits=Limits(patience_s={**PATIENCE_S, Phase.BLOCK: 0.6}))
    envelope = b"HELP\r\nEHLO c\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"

    async def work() -> None:
        async with listening() as (port, taken), box(port, rules=lambda passage: rules) as it:
            client, server = await connected(it.port), await taken()
            await send(server, b"220 x\r\n")
            await send(client, envelope + b"x\r\n.\r\n")
            assert await receive(server, len(envelope)) == envelope
            while not it.gateway.unsent_bytes:
                await send(server, b"214-" + b"y" * 8_000 + b"\r\n")
                await asyncio.sleep(0.001)
            await send(server, b"214 y\r\n" + b"250 x\r\n" * 3 + b"354 go\r\n")
            assert await receive(server, 6) == b"x\r\n.\r\n"
            await asyncio.sleep(1.5)
            await send(server, b"250 taken\r\n")
            (record,), (message,) = await it.over(), it.messages()
            assert (record["outcome"], record["reason"]) == ("timeout", "the client does not read")
            assert (message["outcome"], message["reply"]) == ("accepted", "250 taken")
            client.close()
            server.close()

    run(work())
