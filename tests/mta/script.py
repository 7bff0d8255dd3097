"""Deliveries as text files, and how a session plays one.

    terms: security required     a field of `Terms`, or credentials USER PASSWORD
    s -> 220 mx.example          the server sends this line and CRLF; consecutive ones come together
    s => b"..\\r\\n"               octets as they are, a Python literal
    mail: A > B C                a message from A to B and C is handed to the session; its options behind a bar
    content: b"..."              the next octets of its content, then `end`
    unreadable | secured | handshake: REASON | closed | late | quit        what else may happen

and what the session does then:

    c -> EHLO box.example        it sends this line
    c => b"..."                  or these octets, if they are no line
    tls | content? | ready       it wants a handshake, the content, another message
    settled: 0 failed 550 5.1.1, 2 delivered 250 2.0.0        (and "; N doubtful")
    over | over: queued 421 4.3.2 TEXT
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from smtp_intercept.mta.delivery import Session
from smtp_intercept.mta.envelope import Envelope, Outcome, Recipient
from smtp_intercept.mta.exchange import Out, Over, Ready, Send, SendContent, Settled, StartTls, Terms
from smtp_intercept.mta.nexthop import Protocol, Security
from smtp_intercept.mta.request import Mail
from tests.dialogue import lines, spoken
from tests.smtp.cuts import Cut

FILES = sorted((Path(__file__).parent / "dialogues").glob("*.txt"))
TERMS = Terms("box.example", "mx.example", Security.NONE)
NOW = 0.0


def play(text: str, cut: Cut) -> str:
    """The dialogue as it really went: the same text, if all is well."""
    every = text.splitlines()
    heads = [line for line in every if line.startswith("terms: ")]
    session = Session(terms(heads))
    session.opened(NOW)
    went = list(heads)
    for stimulus in stimuli(every[len(heads) :]):
        went += stimulus
        went += told(do(session, stimulus, cut))
    return "\n".join(went) + "\n"


def read(path: Path) -> str:
    """A dialogue without its comments."""
    return "\n".join(lines(path)) + "\n"


def terms(heads: Iterable[str]) -> Terms:
    made = TERMS
    for head in heads:
        _, name, *values = head.split()
        if name == "credentials":
            made = replace(made, credentials=(values[0], values[1]))
        else:
            made = replace(made, **{name: READ[name](values[0])})
    return made


READ: dict[str, Callable[[str], Any]] = {"security": Security, "protocol": Protocol, "plain": bool}


def stimuli(lines: Iterable[str]) -> Iterator[list[str]]:
    """What happens to the session: the server's lines that come together, or one event."""
    together: list[str] = []
    for line in lines:
        if line.startswith("s "):
            together.append(line)
            continue
        if together:
            yield together
            together = []
        if line.partition(":")[0].split()[0] in EVENTS:
            yield [line]
    if together:
        yield together


def do(session: Session, stimulus: list[str], cut: Cut) -> list[Out]:
    if not stimulus[0].startswith("s "):
        word, _, rest = stimulus[0].partition(": ")
        return EVENTS[word](session, rest)
    data = b"".join(spoken(line, "s").data or b"" for line in stimulus)
    return [out for piece in cut(data) for out in session.received(piece, NOW)]


EVENTS: dict[str, Callable[[Session, str], list[Out]]] = {
    "mail": lambda session, text: session.begin(mail(text), NOW),
    "content": lambda session, text: session.content(ast.literal_eval(text), NOW),
    "end": lambda session, _: session.content_sent(NOW),
    "unreadable": lambda session, _: session.content_lost("cannot read the message", NOW),
    "secured": lambda session, _: session.secured(NOW),
    "handshake": lambda session, text: session.handshake_failed(text, NOW),
    "closed": lambda session, _: session.closed(NOW),
    "late": lambda session, _: session.timed_out(NOW),
    "quit": lambda session, _: session.quit(NOW),
}


def mail(text: str) -> Mail:
    """``A > B C | size 10 | 8bit | utf8 | asking``."""
    path, *options = text.split(" | ")
    sender, _, recipients = path.partition("> ")
    words = dict(option.partition(" ")[::2] for option in options)
    envelope = Envelope(sender.strip(), tuple(map(Recipient, recipients.split())), smtputf8="utf8" in words)
    numbers = tuple(range(len(envelope.recipients)))
    return Mail(envelope, numbers, int(words.get("size", 100)), "8bit" in words, "asking" in words)


def told(outs: list[Out]) -> list[str]:
    """What a session did, as the files say it; what it sent in one go or in many is the same."""
    lines: list[str] = []
    sent = b""
    for out in outs:
        if isinstance(out, Send):
            sent += out.data
            continue
        lines += [*said(sent), tell(out)]
        sent = b""
    return lines + said(sent)


def said(sent: bytes) -> list[str]:
    lines = sent.split(b"\r\n")
    if sent and not lines[-1] and all(line.decode("latin-1").isprintable() for line in lines):
        return [f"c -> {line.decode('latin-1')}" for line in lines[:-1]]
    return [f"c => {sent!r}"] if sent else []


def tell(out: Out) -> str:
    match out:
        case StartTls():
            return "tls"
        case SendContent():
            return "content?"
        case Ready():
            return "ready"
        case Settled(outcomes, doubtful):
            tail = f"; {doubtful} doubtful" if doubtful else ""
            return "settled: " + (", ".join(map(outcome, outcomes)) or "nobody") + tail
        case Over(failure):
            return f"over: {failure.state.value} {failure.code} {failure.status} {failure.reply}" if failure else "over"
        case Send():
            raise AssertionError
        case _:
            assert_never(out)


def outcome(each: Outcome) -> str:
    return f"{each.number} {each.state.value} {each.code} {each.status}"
