"""From the banner to the first message: EHLO, STARTTLS, AUTH. What a server refuses here it refuses as a host.

Pure. Credentials go out over TLS only, unless the administrator said that there is to be none.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from smtp_intercept.dialogue import Verb
from smtp_intercept.limits import RFC_SECONDS, Phase
from smtp_intercept.mta.envelope import State
from smtp_intercept.mta.exchange import Exchange, Out, Owed, Ready, Send, StartTls, Terms
from smtp_intercept.mta.failure import Failure, for_now
from smtp_intercept.mta.nexthop import Protocol, Security
from smtp_intercept.mta.reply import Reply
from smtp_intercept.wire import parse_command

_REQUIRED = frozenset({Security.REQUIRED, Security.VERIFIED})
# RFC 7504 §3: no mail here, ever. Any other refusal in the banner may pass (RFC 5321 §4.2.1, §5.1).
NO_MAIL_HERE = 521


class Greeting(Exchange):
    """A connection until it is ready. ``secure``: TLS is on; ``ready``: a message may begin."""

    __slots__ = ("_secrets", "ready", "secure")

    def __init__(self, terms: Terms, patience_s: Mapping[Phase, float] = RFC_SECONDS) -> None:
        super().__init__(terms, patience_s)
        self.ready = self.secure = False
        self._secrets: list[str] = []
        self._owed.append(Owed(Verb.CONNECT))

    def opened(self, now: float) -> None:
        """The connection is there; the server speaks first."""
        self._since = now

    def secured(self, now: float) -> list[Out]:
        """The handshake is done: what was offered before it does not hold (RFC 3207 §4.2)."""
        self.secure = True
        self._say_hello()
        self.speak(now)
        return self.take()

    def handshake_failed(self, reason: str, now: float) -> list[Out]:
        """No TLS. Where it is opportunistic, another connection may do without (`Terms.plain`)."""
        self.fail(for_now("4.7.5", f"TLS handshake: {reason}", self.terms.host))
        return self.take()

    def become_ready(self) -> None:
        self.ready = True
        self.out(Ready())

    def _say_hello(self, verb: Verb = Verb.EHLO) -> None:
        word = "LHLO" if self.terms.protocol is Protocol.LMTP else verb.name
        self.say(f"{word} {self.terms.hostname}\r\n".encode(), Owed(verb))

    def _secure(self) -> None:
        """TLS if it is wanted and offered."""
        if self.secure or self.terms.plain or self.terms.security is Security.NONE:
            self._authenticate()
        elif "STARTTLS" in self.offer:
            self.say(b"STARTTLS\r\n", Owed(Verb.STARTTLS))
        else:
            self._go_on_in_clear("TLS is required, and not offered")

    def _go_on_in_clear(self, reason: str) -> None:
        if self.terms.security in _REQUIRED:
            self.fail(for_now("4.7.4", reason, self.terms.host))
        else:
            self._authenticate()

    def _authenticate(self) -> None:
        if self.terms.credentials is None:
            return self.become_ready()
        if not self.secure and self.terms.security is not Security.NONE:
            return self.fail(for_now("4.7.11", "no TLS to send the credentials over", self.terms.host))
        offered = self.offer.get("AUTH", "").upper().split()
        for mechanism, begin in _MECHANISMS.items():
            if mechanism in offered:
                line, self._secrets = begin(*self.terms.credentials)
                return self.say(f"AUTH {line}\r\n".encode(), Owed(Verb.AUTH))
        return self.fail(for_now("4.7.0", "the server offers neither AUTH PLAIN nor LOGIN", self.terms.host))

    # The effects.

    def _greet(self, owed: Owed, reply: Reply, now: float) -> None:
        self._say_hello()

    def _refuse_all(self, owed: Owed, reply: Reply, now: float) -> None:
        good = reply.code == NO_MAIL_HERE
        failure = Failure(State.FAILED, reply.status, str(reply), reply.code, self.terms.host)
        self.out(Send(b"QUIT\r\n"))
        self.fail(failure if good else self.refusal(reply))

    def _offered(self, owed: Owed, reply: Reply, now: float) -> None:
        commands = [parse_command(line.encode()) for line in reply.lines[1:]] if owed.verb is Verb.EHLO else []
        self.offer = {each.verb.decode(): each.argument.decode() for each in commands if each.verb}
        self._secure()

    def _fall_back(self, owed: Owed, reply: Reply, now: float) -> None:
        """No ESMTP (RFC 5321 §3.2); LMTP has no older form (RFC 2033 §4.1)."""
        if self.terms.protocol is Protocol.LMTP:
            return self.fail(self.refusal(reply))
        return self._say_hello(Verb.HELO)

    def _start_tls(self, owed: Owed, reply: Reply, now: float) -> None:
        """What came in clear behind the 220 would be taken for the encrypted session's (RFC 3207 §6)."""
        if self._replies.ahead:
            return self.fail(for_now("4.7.5", "octets in clear behind the reply to STARTTLS", self.terms.host))
        return self.out(StartTls())

    def _no_tls(self, owed: Owed, reply: Reply, now: float) -> None:
        self._go_on_in_clear(f"TLS is required, and refused: {reply}")

    def _challenged(self, owed: Owed, reply: Reply, now: float) -> None:
        if not self._secrets:
            return self.fail(for_now("4.7.0", "the server asks for more than the credentials", self.terms.host))
        return self.say(self._secrets.pop(0).encode() + b"\r\n", Owed(Verb.AUTH))

    def _authenticated(self, owed: Owed, reply: Reply, now: float) -> None:
        self._secrets = []
        self.become_ready()

    def _unknown_to_them(self, owed: Owed, reply: Reply, now: float) -> None:
        """Ours to mend, so the mail waits. The server's text stays out: it may quote what it was told."""
        reason = f"{reply.code} the server does not accept the credentials"
        self.fail(Failure(State.QUEUED, "4.7.8", reason, reply.code, self.terms.host))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# RFC 4616, and what Microsoft made of the draft of another. What to say at once, and to each further challenge.
_MECHANISMS: Mapping[str, Callable[[str, str], tuple[str, list[str]]]] = MappingProxyType(
    {
        "PLAIN": lambda user, password: ("PLAIN " + _encoded(f"\0{user}\0{password}"), []),
        "LOGIN": lambda user, password: ("LOGIN", [_encoded(user), _encoded(password)]),
    }
)

_Does: TypeAlias = Callable[[Greeting, Owed, Reply, float], None]
_G = Greeting
# By the first digit of the code, RFC 5321 §4.2.1: 2yz, 3yz, 4yz, 5yz.
EFFECTS: Mapping[Verb, tuple[_Does, _Does, _Does, _Does]] = MappingProxyType(
    {
        Verb.CONNECT: (_G._greet, _G._broken, _G._refused, _G._refuse_all),
        Verb.EHLO: (_G._offered, _G._broken, _G._refused, _G._fall_back),
        Verb.HELO: (_G._offered, _G._broken, _G._refused, _G._refused),
        Verb.STARTTLS: (_G._start_tls, _G._broken, _G._no_tls, _G._no_tls),
        Verb.AUTH: (_G._authenticated, _G._challenged, _G._unknown_to_them, _G._unknown_to_them),
    }
)
