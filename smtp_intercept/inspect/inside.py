"""What rules ask about the parts of a message, and what the answers mean: names and media types.

Pure: who looks into the message is asked as the DNS is, for it may take long, and may not come to an end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smtp_intercept.inspect.facts import Facts, Lookup, Source, State, Told

NAME, TYPE, UNREADABLE = "n:", "t:", "?"  # what each line of an answer begins with


def lookups(facts: Facts, entries: Iterable[Any]) -> tuple[Lookup, ...]:
    """One, of the message that is there."""
    return (Lookup(Source.PARTS, "content", facts.outside.look_s),)


def names(facts: Facts) -> Told:
    """Of attachments, in every reading."""
    return _told(facts, NAME)


def types(facts: Facts) -> Told:
    """That parts say they are."""
    return _told(facts, TYPE)


def _told(facts: Facts, mark: str) -> Told:
    (lookup,) = lookups(facts, ())
    if lookup not in facts.replies:
        return Told(state=State.MISSING)
    reply = facts.replies[lookup]
    if reply is None:
        return Told(state=State.UNANSWERED)
    whole = not any(line.startswith(UNREADABLE) for line in reply)
    found = tuple(line.removeprefix(mark) for line in reply if line.startswith(mark))
    return Told(found, State.KNOWN if whole else State.UNANSWERED)
