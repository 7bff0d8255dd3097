"""Receiving and the real queue together: what was answered 250 is in it, octet by octet, and nothing else is.

client ──socket pair──> Receiving ──draft, enqueue──> Spool (disk)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from smtp_intercept.answers import Answer
from smtp_intercept.direction import Direction, Domains, Protection, message_direction
from smtp_intercept.mta.envelope import Entry, Origin
from smtp_intercept.mta.listing import Filter
from smtp_intercept.mta.receive import Receiving, Services
from smtp_intercept.mta.relaying import RelayRule, admission
from smtp_intercept.mta.spool import Spool
from tests.mta.receiving import ORIGIN, House, Shelf, replies, send
from tests.mta.spools import spool_in
from tests.smtp.box import Run

RULE = RelayRule(Protection(Domains.of([("example.com", False)])))
# Below, at and above what a draft keeps in memory, and what is written by another thread.
SIZES = [0, 100, 65_000, 65_536, 66_000, 1_000_000]


def behind(spool: Spool) -> House:
    def admit(origin: Origin, recipient: str) -> Answer | None:
        return admission(origin, recipient, RULE)

    def direction(origin: Origin, recipient: str) -> Direction:
        return message_direction(recipient, RULE.on(origin))

    log: list[dict[str, object]] = []
    return House(Shelf(), log, Receiving(Services(spool, admit, direction, "mta.example", log.append)))


def content_of(spool: Spool, entry: Entry) -> bytes:
    with spool.content(entry.id) as content:
        return content.read().partition(b"+0000\r\n")[2]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_what_was_accepted_is_there(run: Run, tmp_path: Path, size_bytes: int) -> None:
    content = (hashlib.sha256(b"x").hexdigest().encode() + b"\r\n..\r\n") * (size_bytes // 70)

    async def work() -> None:
        with spool_in(tmp_path / "spool") as spool:
            it = behind(spool)
            with it.enter() as sock:
                await send(sock, b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<@x.example:b@example.com>\r\n")
                await send(sock, b"RCPT TO:<x@other.example>\r\nRCPT TO:<x%other.example@example.com>\r\nDATA\r\n")
                said = await replies(sock, 7)
                assert said.count(b"250 2.1.5 ") == 1
                assert said.count(b"550 5.7.1 ") == 2
                await send(sock, content + b".\r\nQUIT\r\n")
                queued = (await replies(sock, 2)).split()[5].decode()
            await it.over()
            (entry,) = spool.entries(Filter())
            assert entry.id == queued == it.log[0]["queue_id"]
            assert [one.recipient.address for one in entry.queued] == ["b@example.com"]
            assert (entry.origin.helo, entry.origin.client) == ("c.example", ORIGIN.client)
            assert content_of(spool, entry) == content.replace(b"\r\n.", b"\r\n")
            await it.receiving.drain(0)

    run(work())


def test_what_was_not_is_not(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        with spool_in(tmp_path / "spool") as spool:
            it = behind(spool)
            for content in (b"one\r\n", b"x" * 1_000_000, b"one\n.\r\ntwo\r\n.\r\n"):
                with it.enter() as sock:
                    await send(sock, b"EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n")
                    await replies(sock, 5)
                    await send(sock, content)
            await it.over(3)
            assert not list(spool.entries(Filter()))
            assert not [path for kind in ("drafts", "content") for path in (tmp_path / "spool" / kind).iterdir()]
            await it.receiving.drain(0)

    run(work())
