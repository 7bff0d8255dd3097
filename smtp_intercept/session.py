"""A live proxied session: what both sides sent comes in, what goes out to both sides comes out, and every message
is told when it ends.

Pure. Changes no byte, holds no message and answers nobody. A line crosses when it is whole, everything else at once.
Where the dialogue cannot be followed any more, the bytes go on crossing unread and `Doubt` says why.
"""

from __future__ import annotations

from smtp_intercept.conversation import Conversation
from smtp_intercept.dialogue import Reading
from smtp_intercept.direction import Domains
from smtp_intercept.events import Abort, Doubt, EndClient, EndServer, MessageDone, Out, ToClient, ToServer

# Client octets kept while a reply decides what they are. A client may send a whole message behind DATA; with this
# much unread it is made to wait (`Session.wants_client`).
LOOK_AHEAD_BYTES = 65_536

# Octets that are not understood yet cross in these states, and in those they never do, not even at the stream's end.
_CROSSING = frozenset({Reading.WAITING, Reading.OPAQUE})
_KEPT = frozenset({Reading.HELD, Reading.FULL})


class Session:
    """One client, one server. Times are seconds of any steady clock."""

    __slots__ = (
        "_client_ended",
        "_crossed",
        "_partial",
        "_server_told",
        "_talk",
        "_unread",
        "bytes_from_client",
        "bytes_from_server",
    )

    def __init__(self, domains: Domains) -> None:
        self._talk = Conversation(domains)
        self._unread = b""  # from the client; its first ``_crossed`` octets have been forwarded already
        self._crossed = 0
        self._partial = b""  # from the server: a line that is not whole
        self._client_ended = self._server_told = False
        self.bytes_from_client = self.bytes_from_server = 0

    @property
    def wants_client(self) -> bool:
        """False while the client should not be read: it is as far ahead of the server's replies as it may be."""
        return len(self._unread) < LOOK_AHEAD_BYTES

    @property
    def quitted(self) -> bool:
        """The server has answered QUIT."""
        return self._talk.quitted

    @property
    def doubt(self) -> Doubt | None:
        """Why the dialogue is not followed any more."""
        return self._talk.doubt

    @property
    def tls(self) -> str:
        """none, offered, refused or started."""
        return self._talk.tls

    def client_sent(self, data: bytes, now: float) -> list[Out]:
        """Octets from the client, in any cut."""
        self.bytes_from_client += len(data)
        if self._talk.reading is Reading.OPAQUE:
            return [ToServer(data)]
        out: list[Out] = []
        self._follow_client(data, now, out)
        return out

    def server_sent(self, data: bytes, now: float) -> list[Out]:
        """Octets from the server, in any cut."""
        self.bytes_from_server += len(data)
        if self._talk.reading is Reading.OPAQUE:
            return [ToClient(data)]
        out: list[Out] = []
        if self._talk.reading is not Reading.OVER:
            self._follow_server(data, now, out)
        return out

    def client_closed(self, now: float) -> list[Out]:
        """The client has sent all it will; replies may still come."""
        self._client_ended = True
        out: list[Out] = []
        self._follow_client(b"", now, out)
        return out

    def server_closed(self, now: float) -> list[Out]:
        """The server has sent all it will; the client may still send. No reply will come that could tell anything."""
        out: list[Out] = []
        if self._talk.reading not in {Reading.HELD, Reading.OVER}:
            self._talk.reading = Reading.OPAQUE
            self._follow_client(b"", now, out)
        else:
            self._talk.reading, self._unread = Reading.OVER, b""
        if self._partial:
            out.append(ToClient(self._partial))
        out.append(EndClient())
        return out

    def finish(self, now: float) -> list[Out]:
        """The session is over, for whatever reason: the message under way, if there is one. To be called once."""
        out: list[Out] = []
        self._talk.leave(now)
        self._tell(out)
        return out

    def fields(self) -> dict[str, object]:
        """The fields of the session's log record that the dialogue knows."""
        return {
            "helo": self._talk.helo,
            "tls": self._talk.tls,
            "messages": self._talk.messages,
            "bytes_from_client": self.bytes_from_client,
            "bytes_from_server": self.bytes_from_server,
            "doubt": None if self.doubt is None else self.doubt.value,
        }

    def _follow_client(self, data: bytes, now: float, out: list[Out]) -> None:
        """Understand as much as can be, forward as much as may be, keep the rest."""
        talk = self._talk
        if talk.reading is Reading.OVER:
            return
        buffer = self._unread + data  # no copy if one of them is empty
        position = talk.read_client(buffer, now)
        if len(buffer) - position >= LOOK_AHEAD_BYTES and talk.awaits_chunk:
            # A server that takes a chunk unoffered answers only at its end: a client made to wait would stall both.
            talk.give_up(Doubt.CHUNK, now)
        if talk.reading is Reading.OPAQUE:
            position = len(buffer)
        self._forward(buffer, position, out)
        self._tell(out)

    def _forward(self, buffer: bytes, position: int, out: list[Out]) -> None:
        reading = self._talk.reading
        everything = reading in _CROSSING or (self._client_ended and reading not in _KEPT)
        upto = len(buffer) if everything else max(position, self._crossed)
        if upto > self._crossed:
            out.append(ToServer(buffer[self._crossed : upto]))
        if reading is Reading.OPAQUE and self._partial:
            out.append(ToClient(self._partial))
            self._partial = b""
        self._unread, self._crossed = buffer[position:], upto - position
        self._talk.ahead_bytes = len(self._unread)
        if self._client_ended and not self._server_told and upto == len(buffer):
            self._server_told = True
            out.append(EndServer())

    def _follow_server(self, data: bytes, now: float, out: list[Out]) -> None:
        """Match every whole line; it crosses once it has been understood. The client's octets that waited for it are
        understood before the next."""
        talk = self._talk
        buffer, position = self._partial + data, 0
        self._partial = b""
        while end := talk.find_line(buffer, position, Doubt.LONG_REPLY, now):
            talk.read_reply(buffer[position:end], now)
            if talk.reading is Reading.OVER:
                break
            position = end
            if self._unread:
                self._follow_client(b"", now, out)
            if talk.reading is Reading.OPAQUE:
                break
        if talk.reading is Reading.OPAQUE:
            self._follow_client(b"", now, out)
            position = len(buffer)
        if position:
            out.append(ToClient(buffer[:position]))
        self._partial = buffer[position:]
        self._tell(out)
        if talk.reading is Reading.OVER:
            out.append(Abort("the client sent octets behind STARTTLS"))

    def _tell(self, out: list[Out]) -> None:
        if self._talk.ended:
            out.extend(map(MessageDone, self._talk.ended))
            self._talk.ended.clear()
