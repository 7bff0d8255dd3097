"""Both handshakes of one session: the client's ClientHello is read, the server greeted first, then the client answered.

One kind of I/O: it writes to both connections, by their legs. What it cannot do with manners it leaves alone, and says
so; it never lets octets cross in clear that were to be encrypted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, TypeAlias

from smtp_intercept.limits import LOOK_AHEAD_BYTES
from smtp_intercept.passage import Passage
from smtp_intercept.tls.certificates import UnmintableError, Verified
from smtp_intercept.tls.hello import read_client_hello
from smtp_intercept.tls.layer import BrokenError, Layer, alert
from smtp_intercept.tls.manners import Asked, Decision, Failure, Why

if TYPE_CHECKING:
    from smtp_intercept.tls.part import Part, Shown  # what it brings is a lot, and not everybody's

# Both handshakes together; a client that makes none must not hold a session.
HANDSHAKE_S = 120.0
_BAD_CERTIFICATE = 42  # RFC 8446 §6.2


class Side(Protocol):
    """One connection. ``taker`` has what comes from it, as it comes; None: the session."""

    taker: Callable[[bytes], None] | None

    def send(self, octets: bytes) -> None:
        """As they are."""

    def encrypt(self, layer: Layer) -> None:
        """From now on with TLS, whose handshake is over; ``taker`` decrypts what comes."""


class Ending(Protocol):
    """Who is told how it went, once."""

    def left_alone(self, why: str, octets: bytes) -> None:
        """``octets`` of the client's are to cross as they came, and all that follows."""

    def encrypted(self, facts: dict[str, object], *, verified: bool) -> None:
        """Both legs are; the dialogue begins again. ``verified``: the server's certificate is sound."""

    def broken(self, reason: str) -> None:
        """There will be no session."""

    def resume(self, work: Callable[[], None]) -> None:
        """What was waited for has come, and no peer's octets have brought it."""


class _State(Enum):
    HELLO = auto()  # the client's is read
    NAME = auto()  # what the DNS says of the server is waited for
    SERVER = auto()  # the server is greeted
    CLIENT = auto()  # the client is answered
    OVER = auto()


class Handshakes:
    """One session's. ``since`` is when it began, by the loop's clock."""

    def __init__(self, part: Part, passage: Passage, client: Side, server: Side, ending: Ending, since: float) -> None:
        self._part, self._passage, self._ending, self.since = part, passage, ending, since
        self._client, self._server = client, server
        self._state = _State.HELLO
        self._from_client = self._from_server = b""  # what has come and was not used
        self._asked: Asked | None = None
        self._decision: Decision | None = None
        self._to_client: Layer | None = None
        self._to_server: Layer | None = None
        self._shown: Shown | None = None
        self._verified: Verified | None = None
        self._spoken = False  # the client has seen a certificate
        client.taker = self._client_sent

    @property
    def under_way(self) -> bool:
        """No end of it has been told."""
        return self._state is not _State.OVER

    @property
    def held_bytes(self) -> int:
        """What has come and was not used."""
        return len(self._from_client) + len(self._from_server)

    def late(self, now: float) -> bool:
        """It takes too long."""
        return self.under_way and now - self.since >= HANDSHAKE_S

    def gone(self, *, client: bool) -> None:
        """A peer has left in the middle of it."""
        if client and self._state is _State.CLIENT:
            self._learn(Failure.CLIENT)
        elif not client and self._state is _State.SERVER:
            self._learn(Failure.SERVER)
        self._over()

    def refused(self) -> None:
        """The client has finished its handshake, and has left without a word of mail: that was its answer to our
        certificate (Postfix looks at it only then)."""
        self._learn(Failure.CLIENT)

    def _client_sent(self, octets: bytes) -> None:
        match self._state:
            case _State.HELLO:
                self._from_client += octets
                self._read_hello()
            case _State.NAME | _State.SERVER:
                self._from_client += octets
                if len(self._from_client) > LOOK_AHEAD_BYTES:
                    self._break("the client does not wait for its answer")
            case _State.CLIENT:
                self._answer_client(octets)

    def _read_hello(self) -> None:
        hello = read_client_hello(self._from_client)
        if hello is None:
            return
        self._state, asked = _State.NAME, self._part.asked(self._passage, hello.name)
        self._part.anchor(asked, lambda why: self._ending.resume(lambda: self._decide(replace(asked, anchored=why))))

    def _decide(self, asked: Asked) -> None:
        if self._state is not _State.NAME:  # it has not waited
            return
        self._asked = asked
        self._decision = self._part.decide(asked)
        if isinstance(self._decision, Why):
            self._leave_alone(self._decision)
            return
        self._state = _State.SERVER
        self._server.taker = self._server_sent
        self._to_server = Layer(self._part.towards_server, server_side=False, name=asked.name)
        self._greet_server(b"")

    def _leave_alone(self, why: Why) -> None:
        octets = self._from_client
        self._over()
        self._ending.left_alone(why.value, octets)

    def _server_sent(self, octets: bytes) -> None:
        if self._state is _State.SERVER:
            self._greet_server(octets)
        elif self._state is _State.CLIENT:
            self._from_server += octets  # tickets, or a server that speaks first
            if len(self._from_server) > LOOK_AHEAD_BYTES:
                self._break("the server does not wait for the client")

    def _greet_server(self, octets: bytes) -> None:
        layer = self._to_server
        assert layer is not None
        try:
            done = layer.handshake(octets)
        except BrokenError as error:
            self._server.send(layer.to_send())
            self._learn(Failure.SERVER)
            self._break(f"no handshake with the server: {error}", alert())
            return
        self._server.send(layer.to_send())
        if done and layer.certificate_asked:
            self._learn(Failure.CERTIFICATE_ASKED)
            self._break("the server asks for a client certificate", alert())
        elif done:
            self._look_at_server(layer)

    def _look_at_server(self, layer: Layer) -> None:
        assert self._asked is not None
        assert self._decision is not None
        chain = layer.chain()
        certificate, self._verified = self._part.judge(chain, self._asked.name)
        if self._part.required and not self._verified.sound:
            self._break(f"the server's certificate is not good enough: {self._verified.value}", alert(_BAD_CERTIFICATE))
            return
        try:
            self._shown = self._part.show(self._decision, chain, certificate)
        except UnmintableError as error:
            self._learn(Failure.SERVER)
            self._break(f"no certificate can be shown: {error}", alert())
            return
        self._to_client, self._state = Layer(self._shown.context, server_side=True), _State.CLIENT
        octets, self._from_client = self._from_client, b""
        self._answer_client(octets)

    def _answer_client(self, octets: bytes) -> None:
        layer = self._to_client
        assert layer is not None
        try:
            done = layer.handshake(octets)
        except BrokenError as error:
            if self._spoken:
                self._learn(Failure.CLIENT)
            self._break(f"no handshake with the client: {error}", layer.to_send())
            return
        self._client.send(layer.to_send())
        self._spoken = True
        if done:
            self._finish(layer)

    def _finish(self, layer: Layer) -> None:
        assert self._to_server is not None
        assert self._asked is not None
        assert self._verified is not None
        facts: dict[str, object] = {
            "sni": self._asked.name or None,
            "client": layer.fields(),
            "server": {**self._to_server.fields(), "verified": self._verified.value},
        }
        ahead = self._from_server
        self._over()
        self._part.taken += 1
        self._ending.encrypted(facts, verified=self._verified.sound)
        self._client.encrypt(layer)
        self._server.encrypt(self._to_server)
        for side, octets in ((self._client, b""), (self._server, ahead)):  # both are encrypted before either is read
            if side.taker is not None:
                side.taker(octets)

    def _learn(self, failure: Failure) -> None:
        if self._asked is not None:
            self._part.learn(failure, self._asked, own=bool(self._shown and self._shown.own))

    def _break(self, reason: str, last: bytes = b"") -> None:
        self._over()
        if last:
            self._client.send(last)
        self._ending.broken(reason)

    def _over(self) -> None:
        self._state = _State.OVER
        self._client.taker = self._server.taker = None
        self._from_client = self._from_server = b""


TakePart: TypeAlias = Callable[[Side, Side, Ending, float], Handshakes]


def taking_part(part: Part, passage: Passage) -> TakePart:
    """For one connection: how its handshakes begin."""
    return lambda client, server, ending, since: Handshakes(part, passage, client, server, ending, since)
