"""What a notice says to a person: which recipient, why, what was tried, and what to do. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate

from smtp_intercept.mta.fate import Action, Fate, Original, Reporter
from smtp_intercept.mta.printable import one_line, word

WIDTH = 72
REPLY_CHARACTERS = 512  # RFC 5321 §4.5.3.1.5

# From the worst to the best: the subject speaks of the worst, and the letter begins with it.
_SUBJECTS = {
    Action.FAILED: "Your mail could not be delivered",
    Action.DELAYED: "Your mail is late; you need not send it again",
    Action.RELAYED: "Your mail was passed on",
    Action.DELIVERED: "Your mail was delivered",
}
_HEADINGS = {
    Action.FAILED: "It could not be delivered to these recipients, and is not tried again:",
    Action.DELAYED: "It could not be delivered to these recipients yet. You need not do anything: it is tried again.",
    Action.RELAYED: "It was passed on for these recipients, to a server that does not report deliveries:",
    Action.DELIVERED: "It was delivered to these recipients:",
}


def subject(fates: Sequence[Fate]) -> str:
    """Of the notice."""
    actions = {fate.action for fate in fates}
    return next(text for action, text in _SUBJECTS.items() if action in actions)


def letter(original: Original, fates: Sequence[Fate], reporter: Reporter, whole: bool) -> str:
    """Lines ended by CRLF; ``whole``: the message itself stands below, not its headers alone."""
    paragraphs = [f"This is the mail server {word(reporter.hostname)}. It writes about the message that you sent;"]
    paragraphs[0] += f" it came here on {_date(original.received_at)}."
    for action, heading in _HEADINGS.items():
        if told := [fate for fate in fates if fate.action is action]:
            paragraphs += [heading, *map(_about, told)]
    below = "your message" if whole else "the headers of your message"
    paragraphs.append(f"A report for mail programs and {below} follow. The message's name here was {original.id}.")
    return "\r\n\r\n".join(_wrapped(text) for text in paragraphs) + "\r\n"


def _about(fate: Fate) -> str:
    lines = [
        f"  {one_line(fate.recipient.address)}",
        *(f"      {text}" for text in _REASONS[fate.action](fate) if text),
    ]
    return "\n".join(lines)


def _failed(fate: Fate) -> list[str]:
    given_up = f"This went on for too long. Attempts: {fate.attempts}, the last on {_date(fate.tried_at)}."
    return [_said(fate), given_up if fate.gave_up else ""]


def _delayed(fate: Fate) -> list[str]:
    return [_said(fate), f"Attempts until now: {fate.attempts}. They end on {_date(fate.retry_until_at)}."]


def _passed(fate: Fate) -> list[str]:
    return [f"{one_line(fate.host)} took it on {_date(fate.tried_at)}." if fate.host else ""]


_REASONS: Mapping[Action, Callable[[Fate], list[str]]] = {
    Action.FAILED: _failed,
    Action.DELAYED: _delayed,
    Action.RELAYED: _passed,
    Action.DELIVERED: _passed,
}


def _said(fate: Fate) -> str:
    if fate.code:
        return f"{one_line(fate.host) or 'The server'} answered: {one_line(fate.answer, REPLY_CHARACTERS)}"
    return one_line(fate.reply, REPLY_CHARACTERS)


def _wrapped(paragraph: str) -> str:
    """Each line to `WIDTH`, its indentation kept; a long word stays whole, for people copy addresses."""
    return "\r\n".join(_wrapped_line(line) for line in paragraph.split("\n"))


def _wrapped_line(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()))
    wrapped = textwrap.wrap(
        line.strip(),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\r\n".join(wrapped)


def _date(at: float) -> str:
    return formatdate(at).replace("-0000", "+0000")
