"""What the tests of the queue share: a message, a spool that is closed again, and content that proves itself whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from smtp_intercept.direction import Direction
from smtp_intercept.mta.envelope import Envelope, Origin, Outcome, Recipient, State
from smtp_intercept.mta.spool import Draft, Spool, SpoolError

T = TypeVar("T")
PATIENCE_S = 60.0  # no wait of these tests is longer
ORIGIN = Origin(("192.0.2.10", 40000), ("192.0.2.20", 25), Direction.INCOMING, "p0", ("example.com",), "client.example")


def wait(coroutine: Coroutine[None, None, T]) -> T:
    """Its result; an error if it is late."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


@contextmanager
def spool_in(directory: Path, reserve_bytes: int = 0) -> Iterator[Spool]:
    directory.mkdir(exist_ok=True)
    spool = Spool.open(directory, reserve_bytes=reserve_bytes)
    try:
        yield spool
    finally:
        spool.close()


def envelope(*to: str, sender: str = "ann@example.org") -> Envelope:
    return Envelope(sender, tuple(Recipient(address) for address in to or ("bob@example.com",)))


def drafted(spool: Spool, content: bytes) -> Draft:
    draft = spool.draft()
    try:
        draft.write(content)
    except SpoolError:
        draft.abandon()
        raise
    return draft


async def put(spool: Spool, content: bytes = b"Subject: x\r\n\r\nhi\r\n", *to: str, now: float = 1000.0) -> str:
    return await spool.enqueue(drafted(spool, content), ORIGIN, envelope(*to), now)


def outcome(number: int = 0, state: State = State.DELIVERED, next_at: float = 0.0, reply: str = "ok") -> Outcome:
    code = {State.DELIVERED: 250, State.QUEUED: 450}.get(state, 550)
    return Outcome(number, state, code, f"{code // 100}.0.0", reply, "mx.example.com", next_at)


def content_of(spool: Spool, queue_id: str) -> bytes:
    with spool.content(queue_id) as file:
        return file.read()


def sealed(body: bytes) -> bytes:
    """Content that begins with the digest of the rest."""
    return hashlib.sha256(body).hexdigest().encode() + b"\r\n" + body


def is_whole(content: bytes) -> bool:
    digest, _, body = content.partition(b"\r\n")
    return hashlib.sha256(body).hexdigest().encode() == digest


def files(directory: Path) -> set[str]:
    """Those that hold content."""
    return {
        f"{path.parent.name}/{path.name}" for kind in ("drafts", "content") for path in (directory / kind).iterdir()
    }
