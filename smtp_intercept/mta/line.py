"""A connection to a server: the session's actions done, the network's events told to it.

One kind of I/O: one socket. Content is read and sent piece by piece, as fast as the server takes it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import BinaryIO, assert_never, cast

from smtp_intercept.limits import Phase
from smtp_intercept.mta.delivery import Session
from smtp_intercept.mta.exchange import LOST, Out, Over, Ready, Send, SendContent, Settled, StartTls
from smtp_intercept.mta.failure import Failure
from smtp_intercept.mta.request import Mail

# Read and stuffed at once; what waits in this process for a slow server is twice as much.
CHUNK_BYTES = 65_536
WRITE_BUFFER_BYTES = 131_072
# RFC 5321 has none of its own for these.
HANDSHAKE_S = 60.0
GOODBYE_S = 5.0
# A server that answers each of a hundred commands at the last moment would keep the connection for a day, and with it
# the place of others: the whole transaction may take an hour, and longer only for content at this rate.
TRANSACTION_S = 3_600.0
SLOWEST_BYTES_PER_S = 8_192


class Line(asyncio.Protocol):
    """``handshake_failed``: why there was no TLS, or ""; ``failure``: why the connection is over, None if by QUIT;
    ``messages``: how many have begun on it."""

    def __init__(
        self, session: Session, tls: Callable[[], ssl.SSLContext], server_name: str, patience_s: Mapping[Phase, float]
    ) -> None:
        self.session, self.failure, self.handshake_failed, self.messages = session, cast("Failure | None", None), "", 0
        self._tls, self._server_name, self._block_s = tls, server_name, patience_s[Phase.BLOCK]
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._settled: Settled | None = None
        self._changed = asyncio.Event()
        self._full = False

    @property
    def died_encrypted(self) -> bool:
        """The connection was lost, or fell silent, after a handshake that had gone well."""
        return self.session.secure and self.failure is not None and self.failure.status == LOST

    # What the network says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self.session.opened(self._loop.time())
        self._do([])

    def data_received(self, data: bytes) -> None:
        self._do(self.session.received(data, self._loop.time()))

    def eof_received(self) -> bool:
        self._lost("the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(f"lost connection ({exc})" if exc else "lost connection")

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._changed.set()

    def _lost(self, reason: str) -> None:
        if self._handshake is None:  # which fails by itself then, and knows better why
            self._do(self.session.closed(self._loop.time(), reason))

    # What the courier wants.

    async def ready(self) -> bool:
        """Whether a message may begin; waits until that is known."""
        await self._until(lambda: self.session.ready)
        return self.session.ready

    async def transact(self, mail: Mail, content: Callable[[], BinaryIO]) -> Settled:
        """Hand one message over. Afterwards the line is ready, or over and `failure` says why."""
        self.messages, self._settled = self.messages + 1, None
        last = self._loop.call_later(TRANSACTION_S + mail.size_bytes / SLOWEST_BYTES_PER_S, self._too_late)
        try:
            self._do(self.session.begin(mail, self._loop.time()))
            await self._until(lambda: self._settled is not None or self.session.streaming)
            if self.session.streaming:
                await self._stream(content)
            await self._until(lambda: self._settled is not None and self.session.ready)
        finally:
            last.cancel()
        return self._settled or Settled(())

    def quit(self) -> None:
        """Say goodbye, and do not wait long for the answer."""
        self._do(self.session.quit(self._loop.time()))
        self._loop.call_later(GOODBYE_S, self.abort)

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self._disarm()
        if self._handshake is not None:
            self._handshake.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not (self.session.over or holds()):
            self._changed.clear()
            await self._changed.wait()

    # The content.

    async def _stream(self, content: Callable[[], BinaryIO]) -> None:
        try:
            stream, data = await self._loop.run_in_executor(None, _opened, content)
            with closing(stream):
                await self._pump(stream, data)
        except TimeoutError:
            self._too_late()
        except OSError as error:
            self._do(self.session.content_lost(f"cannot read the message: {error}", self._loop.time()))

    async def _pump(self, stream: BinaryIO, data: bytes) -> None:
        while self.session.streaming:
            outs = self.session.content(data, self._loop.time())
            if len(data) < CHUNK_BYTES:
                self._do(_in_one_go(outs + self.session.content_sent(self._loop.time())))
                return
            self._do(outs)
            async with asyncio.timeout(self._block_s):
                await self._until(lambda: not self._full or not self.session.streaming)
            data = await self._loop.run_in_executor(None, stream.read, CHUNK_BYTES)

    # What the session wants.

    def _do(self, outs: list[Out]) -> None:
        for out in outs:
            match out:
                case Send(data):
                    self._write(data)
                case StartTls():
                    self._handshake = self._loop.create_task(self._shake_hands())
                case Settled():
                    self._settled = out
                case Over(failure):
                    self.failure = failure
                    self._close()
                case SendContent() | Ready():
                    pass  # the session says the same by `streaming` and `ready`
                case _:
                    assert_never(out)
        self._changed.set()
        self._arm()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        """What a server does not read it will not get: the end of a message is never among it."""
        self._disarm()
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    async def _shake_hands(self) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                transport = await self._secure()
        except Exception as error:  # what a library makes of a stranger's octets may be anything
            transport, self.handshake_failed = None, _reason(error)
        self._handshake, now = None, self._loop.time()
        if transport is None:
            self.handshake_failed = self.handshake_failed or "lost connection"
            return self._do(self.session.handshake_failed(self.handshake_failed, now))
        self._transport = transport
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        return self._do(self.session.secured(now))

    async def _secure(self) -> asyncio.Transport | None:
        if self._transport is None or self._transport.is_closing():
            return None
        return await self._loop.start_tls(
            self._transport, self, self._tls(), server_hostname=self._server_name, ssl_handshake_timeout=HANDSHAKE_S
        )

    # Time.

    def _arm(self) -> None:
        deadline_at = self.session.deadline_at
        if deadline_at is None or (self._timer is not None and self._timer.when() <= deadline_at):
            return  # a timer that comes early looks again
        self._disarm()
        self._timer = self._loop.call_at(deadline_at, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer, deadline_at = None, self.session.deadline_at
        if deadline_at is not None and self._loop.time() >= deadline_at:
            self._too_late()
        self._arm()

    def _too_late(self) -> None:
        self._do(self.session.timed_out(self._loop.time()))


def _opened(content: Callable[[], BinaryIO]) -> tuple[BinaryIO, bytes]:
    """The content and its beginning, which is the whole of most messages: one turn of a thread."""
    stream = content()
    try:
        return stream, stream.read(CHUNK_BYTES)
    except BaseException:
        stream.close()
        raise


def _in_one_go(outs: list[Out]) -> list[Out]:
    """What is sent, joined: one segment for a small message and its end."""
    sent = b"".join(out.data for out in outs if isinstance(out, Send))
    return [*([Send(sent)] if sent else []), *(out for out in outs if not isinstance(out, Send))]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
