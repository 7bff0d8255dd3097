"""One connection to a filter as the protocol has it: events go out, replies come in, each where it may.

Pure. Octets in any cut; a reply that its event does not have, or that nobody waits for, is a `MilterError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from smtp_intercept.milter.agreement import NEGOTIATE, NEWEST, Action, Agreement, Flag, offer, read_agreement
from smtp_intercept.milter.packets import MilterError, Packets, packet, strings
from smtp_intercept.milter.replies import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    ReplaceBody,
    Reply,
    ReplyCode,
    Symbols,
    Word,
    read_reply,
    read_symbols,
)


class Event(Enum):
    """What a filter is told, in the order of a session."""

    CONNECT = auto()
    HELO = auto()
    MAIL = auto()
    RECIPIENT = auto()
    DATA = auto()
    UNKNOWN = auto()
    HEADER = auto()
    HEADERS_END = auto()
    BODY = auto()
    END = auto()


_NEVER = Flag(0)


@dataclass(frozen=True, slots=True)
class _Kind:
    """``unwanted`` and ``unanswered`` are the filter's; ``since`` is the version that has it; ``macros`` is the stage
    of its macros (SMFIM_*), -1 for none."""

    letter: bytes
    unwanted: Flag = _NEVER
    unanswered: Flag = _NEVER
    since: int = 2
    macros: int = -1


KINDS: Mapping[Event, _Kind] = MappingProxyType(
    {
        Event.CONNECT: _Kind(b"C", Flag.NO_CONNECT, Flag.UNANSWERED_CONNECT, macros=0),
        Event.HELO: _Kind(b"H", Flag.NO_HELO, Flag.UNANSWERED_HELO, macros=1),
        Event.MAIL: _Kind(b"M", Flag.NO_MAIL, Flag.UNANSWERED_MAIL, macros=2),
        Event.RECIPIENT: _Kind(b"R", Flag.NO_RECIPIENT, Flag.UNANSWERED_RECIPIENT, macros=3),
        Event.DATA: _Kind(b"T", Flag.NO_DATA, Flag.UNANSWERED_DATA, 4, macros=4),
        Event.UNKNOWN: _Kind(b"U", Flag.NO_UNKNOWN, Flag.UNANSWERED_UNKNOWN, 3),
        Event.HEADER: _Kind(b"L", Flag.NO_HEADERS, Flag.UNANSWERED_HEADER),
        Event.HEADERS_END: _Kind(b"N", Flag.NO_HEADERS_END, Flag.UNANSWERED_HEADERS_END, macros=6),
        Event.BODY: _Kind(b"B", Flag.NO_BODY, Flag.UNANSWERED_BODY),
        Event.END: _Kind(b"E", macros=5),
    }
)
_ABORT, _QUIT, _QUIT_NEW, _MACROS, _SYMBOLS = b"A", b"Q", b"K", b"D", b"l"
_ALWAYS = frozenset({Word.CONTINUE, Word.ACCEPT, Word.REJECT, Word.TEMPFAIL, Word.DISCARD, Word.SHUTDOWN})
_BESIDES: Mapping[Event, frozenset[Word]] = MappingProxyType(
    {
        Event.CONNECT: frozenset({Word.CONN_FAIL}),
        Event.BODY: frozenset({Word.SKIP}),
        Event.HEADER: frozenset({Word.SKIP}),
    }
)
# What a filter must have asked for to change it.
_NEEDS: Mapping[type, Action] = MappingProxyType(
    {
        AddHeader: Action.ADD_HEADERS | Action.CHANGE_HEADERS,
        InsertHeader: Action.ADD_HEADERS | Action.CHANGE_HEADERS,
        ChangeHeader: Action.CHANGE_HEADERS,
        ReplaceBody: Action.CHANGE_BODY,
        ChangeSender: Action.CHANGE_SENDER,
        AddRecipient: Action.ADD_RECIPIENTS | Action.ADD_RECIPIENTS_WITH_ARGUMENTS,
        DeleteRecipient: Action.DELETE_RECIPIENTS,
        Quarantine: Action.QUARANTINE,
    }
)


class Exchange:
    """``agreed`` is None until the filter has answered the negotiation. ``waiting``: a reply to the last event is owed;
    its last one (`heard`) ends that. Time is its caller's."""

    __slots__ = ("_event", "_packets", "agreed", "version", "waiting")

    def __init__(self, version: int = NEWEST) -> None:
        self._packets, self._event = Packets(), Event.CONNECT
        self.version = version
        self.agreed: Agreement | None = None
        self.waiting = False

    def begin(self) -> bytes:
        """The first thing that is sent."""
        self.waiting = True
        return offer(self.version)

    def wants(self, event: Event) -> bool:
        """Whether the filter is told of it."""
        agreed, kind = self._agreement, KINDS[event]
        return agreed.version >= kind.since and not agreed.flags & kind.unwanted

    @property
    def leading_space(self) -> bool:
        """Values of header fields have all that stands behind the colon."""
        return bool(self._agreement.flags & Flag.LEADING_SPACE)

    @property
    def reusable(self) -> bool:
        """It may serve another client (SMFIC_QUIT_NC)."""
        return self.agreed is not None and self.agreed.version >= NEWEST and not self.waiting

    def tell(self, event: Event, payload: bytes, macros: Sequence[tuple[str, bytes]] = ()) -> bytes:
        """What is sent of an event that the filter wants."""
        assert self.wants(event)
        assert not self.waiting
        kind = KINDS[event]
        self._event, self.waiting = event, not self._agreement.flags & kind.unanswered
        return self._macros(kind, macros) + packet(kind.letter, payload)

    def _macros(self, kind: _Kind, macros: Sequence[tuple[str, bytes]]) -> bytes:
        if kind.macros < 0:
            return b""
        wanted = self._agreement.symbols.get(kind.macros)
        told = [each for each in macros if wanted is None or each[0] in wanted or each[0].strip("{}") in wanted]
        pairs = strings(text for name, value in told for text in (name.encode(), value))
        return packet(_MACROS, kind.letter + pairs)

    def abort(self) -> bytes:
        """The message under way is none."""
        return packet(_ABORT)

    def leave(self, *, reuse: bool) -> bytes:
        """The client has gone; ``reuse``: another comes on this connection."""
        return packet(_QUIT_NEW if reuse else _QUIT)

    def heard(self, data: bytes) -> Iterator[Reply | Agreement]:
        """What the filter says. Nothing is expected behind the reply that ends the waiting."""
        for letter, payload in self._packets.feed(data):
            if not self.waiting:
                raise MilterError(f"a packet {letter!r} that nobody waits for")
            yield self._read(letter, payload)

    def _read(self, letter: bytes, payload: bytes) -> Reply | Agreement:
        if self.agreed is None:
            if letter != NEGOTIATE:
                raise MilterError(f"a packet {letter!r} before the negotiation")
            self.agreed, self.waiting = read_agreement(payload, self.version), False
            return self.agreed
        if letter == _SYMBOLS:
            return read_symbols(payload)
        reply = read_reply(letter, payload)
        if reply is not Word.PROGRESS:
            self._check(reply)
        return reply

    def _check(self, reply: Reply) -> None:
        """It has a place here."""
        if isinstance(reply, (Word, ReplyCode)):
            if isinstance(reply, Word) and reply not in _ALWAYS | _BESIDES.get(self._event, frozenset()):
                raise MilterError(f"{reply.name.lower()} to {self._event.name.lower()}")
            self.waiting = False
            return
        assert not isinstance(reply, Symbols)
        if self._event is not Event.END:
            raise MilterError(f"a change before the end of the message: {type(reply).__name__}")
        if not self._agreement.actions & _NEEDS[type(reply)]:
            raise MilterError(f"a change that it has not asked for: {type(reply).__name__}")

    @property
    def _agreement(self) -> Agreement:
        assert self.agreed is not None
        return self.agreed
