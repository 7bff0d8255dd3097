"""One session's encryption, where the box takes part in it: what the handshakes come to, told to session and legs.

One kind of I/O: none of its own; the handshakes write by the legs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smtp_intercept.events import Out
from smtp_intercept.tls.handshakes import Handshakes, TakePart

if TYPE_CHECKING:
    from smtp_intercept.leg import Leg
    from smtp_intercept.session import Session


class Encryption:
    """``received`` has the session act and does what it says: `Pair.received`."""

    __slots__ = ("_handshakes", "_received", "_session", "_take_part")

    def __init__(
        self,
        session: Session,
        received: Callable[[Callable[[bytes, float], list[Out]], bytes], None],
        take_part: TakePart | None,
    ) -> None:
        self._session, self._received, self._take_part = session, received, take_part
        self._handshakes: Handshakes | None = None

    def begin(self, client: Leg, server: Leg, hello: bytes, now: float) -> None:
        """The client's next octets are its ClientHello, or ``hello`` is, with all that has come behind it."""
        assert self._take_part is not None
        self._handshakes = self._take_part(client, server, self, now)
        if hello and client.taker is not None:
            client.taker(hello)

    @property
    def held_bytes(self) -> int:
        """What has come of both peers for the handshakes."""
        return self._handshakes.held_bytes if self._handshakes is not None else 0

    def late(self, now: float) -> bool:
        """The handshakes take too long."""
        return self._handshakes is not None and self._handshakes.late(now)

    def gone(self, *, client: bool) -> None:
        """One peer has left."""
        if self._handshakes is not None and self._handshakes.under_way:
            self._handshakes.gone(client=client)

    def end(self) -> None:
        """The session is over. Who has finished a handshake and said nothing has refused."""
        if self._handshakes is not None and self._session.wordless:
            self._handshakes.refused()
        self._handshakes = None

    # What the handshakes say.

    def left_alone(self, why: str, octets: bytes) -> None:
        """What the client has sent goes on as it came, and so does all that follows."""
        self._session.left_alone(why)
        self._received(self._session.client_sent, octets)

    def encrypted(self, facts: dict[str, object], *, verified: bool) -> None:
        """The dialogue begins again."""
        self._received(lambda _, now: self._session.encrypted(facts, verified=verified, now=now), b"")

    def resume(self, work: Callable[[], None]) -> None:
        """They have what they waited for."""

        def act(_: bytes, now: float) -> list[Out]:
            work()
            return []

        self._received(act, b"")

    def broken(self, reason: str) -> None:
        """The end, which the client has been told in TLS's own words."""
        self._received(lambda _, now: self._session.broken(reason), b"")
