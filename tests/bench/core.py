"""The pure session alone: µs of a 4 KB message, of a session with one, of 64 KiB of content; the best of nine.

No sockets, no loop: what is told here is what the reading of SMTP adds to a byte pump. Processor time: other work on
the machine is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address

from smtp_intercept.direction import Direction, Domains, Protection
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Connection
from smtp_intercept.inspect.judge import Judge
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.inspect.ruleset import Ruleset
from smtp_intercept.policy import Refuse
from smtp_intercept.rules import Rules
from smtp_intercept.session import Session

PROTECTION = Protection(Domains.of([("example.com", False)]))
LINE = b"X" * 70 + b"\r\n"
GREETING = [
    (b"", b"220 mx ESMTP\r\n"),
    (b"EHLO c.example.net\r\n", b"250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 10240000\r\n250 DSN\r\n"),
]
ENVELOPE = [
    (b"MAIL FROM:<a@example.net>\r\n", b"250 2.1.0 Ok\r\n"),
    (b"RCPT TO:<u@example.com>\r\n", b"250 2.1.5 Ok\r\n"),
    (b"DATA\r\n", b"354 End data with <CR><LF>.<CR><LF>\r\n"),
]
CONTENT = [(LINE * 57 + b".\r\n", b"250 2.0.0 Ok\r\n")]
FAREWELL = [(b"QUIT\r\n", b"221 2.0.0 Bye\r\n")]


def opened(rules: Rules) -> Session:
    """A session with both peers there."""
    session = Session(PROTECTION, rules)
    session.opened(0)
    return session


def talk(session: Session, dialogue: list[tuple[bytes, bytes]]) -> None:
    """Each side's words as one read."""
    for client, server in dialogue:
        session.client_sent(client, 1)
        session.server_sent(server, 1)


def whole(rules: Rules) -> None:
    """One connection's life."""
    session = opened(rules)
    talk(session, [*GREETING, *ENVELOPE, *CONTENT, *FAREWELL])
    session.client_closed(1)
    session.server_closed(1)
    session.finish(1)


def best_us(work: Callable[[], None], times: int = 500, runs: int = 9) -> float:
    """Of one call."""

    def run() -> float:
        began_at = time.process_time()
        for _ in range(times):
            work()
        return time.process_time() - began_at

    return min(run() for _ in range(runs)) / times * 1e6


def ruled(number: int) -> Rules:
    """Behind so many rules about envelopes, of which none holds."""

    def said(name: str, text: str) -> Condition:
        return Condition(name, (CRITERIA[name].kind.read(text),))

    whens = (
        lambda n: (said("client", f"10.{n >> 8}.{n & 255}.0/24"), said("message", "incoming")),
        lambda n: (said("sender", f"user{n}@example.org"),),
        lambda n: (said("recipient", f"user{n}@example.com"), said("helo", f"mx{n}.example.org")),
        lambda n: (said("sender", f".example{n}.org"), said("message", "outgoing")),
    )
    made = [Rule(f"rule {n}", whens[n % len(whens)](n), Refuse(550, "5.7.1 no")) for n in range(number)]
    ruleset = Ruleset(made)
    client, server = (ip_address(address).packed for address in ("192.0.2.1", "192.0.2.20"))
    judge = Judge(lambda: ruleset, Connection(Direction.INCOMING, client, server, "p0"), PROTECTION)
    return Rules(ask=judge.ask, reject_bare_newline=True)


def main() -> None:
    kinds = {
        "bare_newline = pass": Rules(),
        "bare_newline = reject": Rules(reject_bare_newline=True),
        "10 rules": ruled(10),
        "1,000 rules": ruled(1_000),
    }
    for name, rules in kinds.items():
        session, message = opened(rules), [*ENVELOPE, *CONTENT]
        talk(session, GREETING)
        print(name)
        print(f"  message        {best_us(lambda: talk(session, message)):6.1f} µs")  # noqa: B023
        print(f"  session        {best_us(lambda: whole(rules)):6.1f} µs")  # noqa: B023
        talk(session, ENVELOPE)
        for kind, line in (("no dots", LINE), ("text", b"One sentence. Another one, with a dot at its end.\r\n")):
            block = (line * (65_536 // len(line) + 1))[:65_536]
            print(f"  64 KiB, {kind:7}{best_us(lambda: _content(session, block)):6.1f} µs")  # noqa: B023


def _content(session: Session, block: bytes) -> None:
    session.client_sent(block, 1)


if __name__ == "__main__":
    main()
