"""By what a record of the mail log can be found: its values, and the number that stands for each in the index.

Pure. Believes nothing of a record but that it is a table: a log can be edited, and its values are strangers'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

MOST_WORDS = 32  # of one subject, and of a list of rules
MOST_IDS = 4  # that one reply of a server's may name
NULL_SENDER = "<>"


class Field(StrEnum):
    """What can be asked for."""

    SENDER = "sender"  # an address, or "@" and a domain
    RECIPIENT = "recipient"
    CLIENT = "client"
    ID = "id"  # of a session, of the queue, of the server's queue
    MESSAGE_ID = "message_id"
    OUTCOME = "outcome"
    RULE = "rule"
    SUBJECT = "subject"  # a word of it
    SESSION = "session"  # a session's own record


class Kind(IntEnum):
    """Of a record. Below `SESSION` it is a mail's first, or all that is known of a session's mail."""

    MESSAGE = 0
    UNSEEN = 1  # a session without a message: encrypted, refused, or come to nothing
    SESSION = 2
    DELIVERY = 3
    NOTICE = 4


Value = tuple[Field, str]
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a mail's records must have, all of it; times in milliseconds of the epoch, ``until_ms`` not included."""

    values: frozenset[Value] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None


def kind_of(record: Record) -> Kind | None:
    """None for what is no mail's."""
    match record.get("type"):
        case "message":
            return Kind.MESSAGE
        case "session":
            return Kind.SESSION if _number(record, "messages") else Kind.UNSEEN
        case "delivery":
            return Kind.DELIVERY
        case "notice":
            return Kind.NOTICE
    return None


@lru_cache(maxsize=65_536)
def number_of(value: Value) -> int:
    """In the index: 64 bits of a hash, so that long values cost no more than short ones. With as many values as it
    may hold, two that share one are not to be expected, nor found by trying (2⁶⁴) for a given one."""
    field, text = value
    digest = blake2b(f"{field.value}\0{text}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def values_of(record: Record, kind: Kind) -> set[Value]:
    """All by which this record can be found; upper and lower case are the same."""
    found = set(_named(record))
    found.update(_rules(record))
    if kind is Kind.SESSION:  # whose messages are found instead
        return {(field, text) for field, text in found if field is Field.ID} | _ends(record)
    found |= _addresses(record)
    for text in _texts(record, "message_id"):
        found.add((Field.MESSAGE_ID, message_id(text)))
    found.update((Field.SUBJECT, word) for text in _texts(record, "subject") for word in words(text))
    for text in _texts(record, "outcome", "actions"):
        found.add((Field.OUTCOME, text.casefold()))
    found.update((Field.ID, name) for text in _texts(record, "reply") for name in names_in(text))
    if kind is Kind.UNSEEN:
        found |= _ends(record) | set(of_session(record))
    return found


def of_session(record: Record) -> list[Value]:
    """What a session's own record alone has, and its messages are found by too: the client, and rules that came into
    play before any message."""
    client = record.get("client")
    address = client.get("address") if isinstance(client, Mapping) else None
    found = [(Field.CLIENT, address.casefold())] if isinstance(address, str) and address else []
    return [*found, *_rules(record)]


def session_of(record: Record) -> str:
    """ "" if it has none."""
    return next(iter(_texts(record, "session")), "")


def queue_ids(record: Record) -> list[str]:
    """Of the message that it is about, and of the notice that it is."""
    return list(_texts(record, "queue_id", "about"))


def address(text: str) -> str:
    """As somebody asks for it: an address, a domain with or without "@", or ``<>``, the null sender."""
    plain = text.strip().casefold().removesuffix(".")
    if plain in ("", NULL_SENDER):
        return NULL_SENDER
    return plain if "@" in plain else f"@{plain}"


def message_id(text: str) -> str:
    """With or without its brackets."""
    return text.strip().removeprefix("<").removesuffix(">").casefold()


def words(text: str) -> list[str]:
    """Of a subject."""
    return re.findall(r"\w+", text.casefold())[:MOST_WORDS]


_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*(?:\.[0-9A-Za-z_-]+)*")
_NO_NAME = re.compile(r"[0-9.]{1,15}|[^0-9]*")  # a status, an address, a word


def names_in(reply: str) -> list[str]:
    """What may be the message's name in the queue of the server that took it, by its words: ``250 2.0.0 Ok: queued as
    4F2D61``. Without a standard, so whatever looks like one; nothing of a refusal."""
    if not reply.startswith("2"):
        return []
    found = (name for name in _NAME.findall(reply[3:]) if len(name) > 5 and not _NO_NAME.fullmatch(name))
    return [name.casefold() for name, _ in zip(found, range(MOST_IDS), strict=False)]


def _named(record: Record) -> Iterator[Value]:
    for text in _texts(record, "session", "queue_id", "about"):
        yield Field.ID, text.casefold()


def _rules(record: Record) -> Iterator[Value]:
    return ((Field.RULE, text.casefold()) for text in _texts(record, "rules", "would"))


def _ends(record: Record) -> set[Value]:
    return {(Field.SESSION, text) for text in _texts(record, "session")}


def _addresses(record: Record) -> set[Value]:
    found = {(Field.SENDER, each) for text in _texts(record, "sender", empty=True) for each in _both(text)}
    recipients = record.get("recipients")
    listed = recipients if isinstance(recipients, list) else []
    several = [each.get("address") for each in listed if isinstance(each, Mapping)]
    for text in (*several, *_texts(record, "recipient", empty=True)):
        if isinstance(text, str):
            found.update((Field.RECIPIENT, each) for each in _both(text))
    return found


def _both(text: str) -> Iterable[str]:
    """The address and its domain; of one without (``postmaster``, RFC 5321 §4.5.1) the same as `address` reads it."""
    plain = text.casefold()
    if not plain:
        return (NULL_SENDER,)
    at = plain.rfind("@")
    return plain, f"@{plain}" if at < 0 else plain[at:]


def _texts(record: Record, *keys: str, empty: bool = False) -> Iterator[str]:
    for key in keys:
        value = record.get(key)
        for text in value[:MOST_WORDS] if isinstance(value, list) else (value,):
            if isinstance(text, str) and (text or empty):
                yield text


def _number(record: Record, key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) else 0
