"""One client's mail before one filter: how far the filter knows it, and what it has said.

One kind of I/O: by `client`. A filter is told what it has not been told yet; where that is another envelope than it has
heard so far, the message begins anew for it. A connection that was lost between two messages is made again, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from smtp_intercept.milter import changes as making
from smtp_intercept.milter import envelope as written
from smtp_intercept.milter.body import NewBody
from smtp_intercept.milter.client import (
    MOST_CHANGED_BYTES,
    MOST_CHANGES,
    Connection,
    FailureError,
    Filter,
)
from smtp_intercept.milter.envelope import Envelope, Path, Visit
from smtp_intercept.milter.exchange import Event
from smtp_intercept.milter.packets import CHUNK_BYTES, MilterError, strings
from smtp_intercept.milter.replies import Change, Quarantine, ReplaceBody, ReplyCode, Word

Said: TypeAlias = Word | ReplyCode
Done = TypeVar("Done")
# Those that say no more of a message than that it goes on.
_GOES_ON = frozenset({Word.CONTINUE, Word.SKIP})


@dataclass(slots=True)
class Content:
    """One message as the filters before have left it: the fields of its header, what stands behind them there, and the
    octets behind that. ``body`` is another one, in the place of both."""

    fields: list[bytes]
    tail: bytes
    rest: Callable[[], Iterator[bytes]]
    blank: bytes = b"\r\n"
    body: NewBody | None = None

    def octets(self) -> Iterator[bytes]:
        """The body."""
        if self.body is not None:
            yield from self.body.octets()
            return
        if self.tail:
            yield self.tail + self.blank
        yield from self.rest()


@dataclass(slots=True)
class Result:
    """What a filter says to a whole message, and the changes that it makes. ``ended``: it has heard all of it."""

    said: Said
    changes: list[Change] = field(default_factory=list)
    body: NewBody | None = None
    quarantine: Quarantine | None = None
    ended: bool = False


class Visiting:
    """``fresh_body`` makes a place for another body. ``failed`` says why the filter is not asked any more about the
    message under way."""

    def __init__(self, asked: Filter, fresh_body: Callable[[], NewBody]) -> None:
        self.filter, self._fresh_body = asked, fresh_body
        self._connection: Connection | None = None
        self._visit: Visit | None = None
        self._sender: Path | None = None
        self._told: list[Path] = []
        self._for_all: Said | None = None
        self._for_message: Said | None = None
        self._leading_space = False
        self.failed = ""

    @property
    def leading_space(self) -> bool:
        """As it was agreed for the message that has just been."""
        return self._leading_space

    async def recipient(self, envelope: Envelope) -> Said:
        """To the last of them. `FailureError`."""
        return await self._again(lambda: self._reach(envelope))

    async def message(self, envelope: Envelope, content: Content) -> Result:
        """To all of it. `FailureError`."""
        time = asyncio.get_running_loop().time
        began_at = time()
        result = await self._again(lambda: self._whole(envelope, content))
        self.filter.works(time() - began_at)
        self.over()
        return result

    async def _again(self, work: Callable[[], Awaitable[Done]]) -> Done:
        """Once more where the connection had served before, and was closed meanwhile."""
        if not self._connection and not self.filter.breaker.admits(asyncio.get_running_loop().time()):
            self.filter.counts["skipped"] += 1
            raise FailureError(f"left alone after {self.filter.breaker.failed} failures: {self.filter.last_error}")
        try:
            try:
                return await work()
            except FailureError as failure:
                served = self._connection is not None and self._connection.served
                self._lose()
                if not (failure.lost and served):
                    raise
                self._connection = await self.filter.take(fresh=True)
                return await work()
        except FailureError as failure:
            self._lose()
            self.failed = str(failure)
            self.filter.fails(self.failed)
            raise
        except BaseException:
            self._lose()
            raise

    def _lose(self) -> None:
        if self._connection is not None:
            self.filter.drop(self._connection)
        self._connection, self._visit, self._sender, self._told = None, None, None, []
        self._for_all = self._for_message = None

    async def _reach(self, envelope: Envelope) -> Said:
        """Tell what is not known yet, up to the last recipient."""
        connection = self._connection = self._connection or await self.filter.take()
        await self._introduce(connection, envelope)
        if self._for_all is not None:
            return self._for_all
        if self._sender is not None and not self._is_begun(envelope):
            self._forget(connection)
        if self._sender is None:
            self._sender = envelope.sender
            macros = written.macros(Event.MAIL, envelope)
            self._settle(await connection.tell(Event.MAIL, written.path(envelope.sender), macros), Event.MAIL)
        for recipient in envelope.recipients[len(self._told) :]:
            if self._for_message is not None:
                return self._for_message
            macros = written.macros(Event.RECIPIENT, envelope, recipient)
            said = await connection.tell(Event.RECIPIENT, written.path(recipient), macros)
            if said is not Word.CONTINUE:
                return self._settle(said, Event.RECIPIENT)
            self._told.append(recipient)
        return self._for_message or Word.CONTINUE

    def _is_begun(self, envelope: Envelope) -> bool:
        return envelope.sender == self._sender and list(envelope.recipients[: len(self._told)]) == self._told

    async def _introduce(self, connection: Connection, envelope: Envelope) -> None:
        """The client, and the name that it has given itself."""
        visit, known = replace(envelope.visit, ident=""), self._visit
        if visit == known:
            return
        if self._sender is not None:
            self._forget(connection)
        if known is None:
            macros = written.macros(Event.CONNECT, envelope)
            self._settle(await connection.tell(Event.CONNECT, written.connect(visit), macros), Event.CONNECT)
        if self._for_all is None:
            macros = written.macros(Event.HELO, envelope)
            self._settle(await connection.tell(Event.HELO, written.helo(visit), macros), Event.HELO)
        self._visit = visit

    def _settle(self, said: Said, event: Event) -> Said:
        """How long it holds."""
        if said in _GOES_ON:
            return said
        if event in (Event.CONNECT, Event.HELO):
            self._for_all = said
        elif event is not Event.RECIPIENT or said in (Word.ACCEPT, Word.DISCARD):
            self._for_message = said
        return said

    def _forget(self, connection: Connection) -> None:
        connection.abort()
        self._sender, self._told, self._for_message = None, [], None

    async def _whole(self, envelope: Envelope, content: Content) -> Result:
        said = await self._reach(envelope)
        if said is not Word.CONTINUE:
            return Result(said)
        connection = self._connection
        assert connection is not None
        result = await _Telling(connection, envelope, content, self._fresh_body).run()
        self._leading_space = connection.exchange.leading_space
        if result.ended:  # the filter knows
            self._sender, connection.aborted = None, result.said is not Word.CONTINUE
        return result

    def over(self) -> None:
        """The message under way is over, or was none."""
        if self._connection is not None:
            if self._sender is not None:
                self._connection.abort()
            self._connection.served = True
        self._sender, self._told, self._for_message, self.failed = None, [], None, ""

    def close(self, *, busy: bool = False) -> None:
        """The client has gone; ``busy``: in the middle of something."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if busy or connection.exchange.waiting:
            self.filter.drop(connection)
        else:
            # Behind any word but "continue", or an abort, libmilter hears nothing of another client.
            clean = self._for_all is None and self._sender is None and not connection.aborted
            self.filter.give_back(connection, reuse=clean)


class _Telling:
    """The content of one message."""

    def __init__(
        self, connection: Connection, envelope: Envelope, content: Content, fresh_body: Callable[[], NewBody]
    ) -> None:
        self._connection, self._envelope, self._content = connection, envelope, content
        self._fresh_body = fresh_body
        self._result = Result(Word.CONTINUE)
        self._bytes = 0

    async def run(self) -> Result:
        try:
            self._result.said = await self._tell()
        except BaseException:
            if self._result.body is not None:
                self._result.body.close()
            raise
        if self._result.body is not None:
            self._result.body.end()
        return self._result

    async def _tell(self) -> Said:
        for part in (self._data, self._header, self._header_end, self._text):
            if (said := await part()) not in _GOES_ON:
                return said
        self._result.ended = True
        return await self._event(Event.END, keep=self._keep)

    async def _data(self) -> Said:
        return await self._event(Event.DATA)

    async def _header_end(self) -> Said:
        return await self._event(Event.HEADERS_END)

    async def _event(self, event: Event, payload: bytes = b"", keep: Callable[[Change], None] | None = None) -> Said:
        macros = written.macros(event, self._envelope)
        return await self._connection.tell(event, payload, macros, keep)

    async def _header(self) -> Said:
        leading_space = self._connection.exchange.leading_space
        for line in self._content.fields:
            name_value = making.told(line, leading_space=leading_space)
            said = await self._event(Event.HEADER, strings(name_value))
            if said is not Word.CONTINUE:
                return said
        return Word.CONTINUE

    async def _text(self) -> Said:
        if not self._connection.exchange.wants(Event.BODY):
            return Word.CONTINUE
        for chunk in _chunks(self._content.octets()):
            said = await self._event(Event.BODY, chunk)
            if said is not Word.CONTINUE:
                return said
        return Word.CONTINUE

    def _keep(self, change: Change) -> None:
        """Within bounds."""
        if isinstance(change, ReplaceBody):
            self._replace(change.octets)
            return
        if isinstance(change, Quarantine):
            self._result.quarantine = change
            return
        self._bytes += sum(len(part) for part in _octets_of(change))
        if len(self._result.changes) >= MOST_CHANGES or self._bytes > MOST_CHANGED_BYTES:
            raise FailureError("it answers without end: too many changes")
        self._result.changes.append(change)

    def _replace(self, octets: bytes) -> None:
        if self._result.body is None:
            self._result.body = self._fresh_body()
        try:
            self._result.body.add(octets)
        except MilterError as error:
            raise FailureError(f"it answers without end: {error}") from None
        except OSError as error:
            raise FailureError(f"its body cannot be kept: {error.strerror}") from None


def _octets_of(change: Change) -> Sequence[bytes]:
    return [part for name in change.__slots__ if isinstance(part := getattr(change, name), bytes)]


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """As large as a filter takes them."""
    kept = b""
    for piece in pieces:
        kept += piece
        while len(kept) >= CHUNK_BYTES:
            yield kept[:CHUNK_BYTES]
            kept = kept[CHUNK_BYTES:]
    if kept:
        yield kept
