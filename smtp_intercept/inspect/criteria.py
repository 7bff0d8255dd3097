"""The vocabulary of a rule's ``when``: what each criterion looks at, from which stage on, and how its entries are read.

Pure data. Those that nothing answers yet are here too, so that a configuration that names one hears why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from smtp_intercept.direction import Direction
from smtp_intercept.inspect import dns, inside
from smtp_intercept.inspect.facts import DAYS, MINUTES_A_DAY, Facts, Known, Lookup
from smtp_intercept.inspect.patterns import read_mailbox, read_network, read_text

FILE = "@/"  # an entry that begins so is the path of a list


@dataclass(frozen=True, slots=True)
class Kind:
    """How entries are written. ``read`` makes one of a text; ``listed``: they may come from files;
    ``texts``: they are texts."""

    read: Callable[[Any], Any]
    example: str
    listed: bool = False
    texts: bool = True


@dataclass(frozen=True, slots=True)
class Criterion:
    """``look`` gives what a rule's entries are laid against, None if it is not known. ``early``: a number that only
    grows, which may be too large before it is known whole. ``asks``: what must be looked up for these entries; then
    ``look`` gives a `Told`."""

    kind: Kind
    known: Known
    look: Callable[[Facts], Any]
    early: Callable[[Facts], int] | None = None
    asks: Callable[[Facts, Iterable[Any]], tuple[Lookup, ...]] | None = None


def _read_direction(text: Any) -> Direction:
    if text not in {Direction.INCOMING.value, Direction.OUTGOING.value}:
        raise ValueError(f"{text!r} is not incoming or outgoing")
    return Direction(text)


def _read_hours(text: Any) -> tuple[int, int]:
    """``22:00-06:00``: minutes of the day, the second one not included; over midnight if it is the smaller."""
    begin, dash, end = str(text).partition("-")
    if not dash or _minute(begin) == _minute(end):
        raise ValueError(f"{text!r} is no time of day")
    return _minute(begin), _minute(end)


def _minute(text: str) -> int:
    hour, _, minute = text.strip().partition(":")
    if not (hour.isdecimal() and minute.isdecimal() and len(minute) == 2 and len(hour) <= 2):
        raise ValueError(f"{text!r} is no time of day")
    total = int(hour) * 60 + int(minute)
    if int(minute) > 59 or total > MINUTES_A_DAY:
        raise ValueError(f"{text!r} is no time of day")
    return total


def _read_day(text: Any) -> int:
    if text not in DAYS:
        raise ValueError(f"{text!r} is not one of {', '.join(DAYS)}")
    return DAYS.index(text)


def read_list_name(text: Any) -> str:
    """Of a list in the DNS. ValueError says why not."""
    if not isinstance(text, str) or not _LIST_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of a list")
    return text


def _itself(value: Any) -> Any:
    return value


_LIST_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


NETWORKS = Kind(read_network, '"10.0.0.0/8", "2001:db8::/32" or "@/etc/tollbridge/networks.txt"', listed=True)
MAILBOXES = Kind(
    read_mailbox, '"user@example.com", "example.com", ".example.com", "*@example.*" or "@/etc/…"', listed=True
)
TEXTS = Kind(read_text, '"*.example.com" or "@/etc/tollbridge/names.txt"', listed=True)
DIRECTIONS = Kind(_read_direction, '"incoming" or "outgoing"')
HOURS = Kind(_read_hours, '"08:00-18:00" or "22:00-06:00"')
WEEKDAYS = Kind(_read_day, '["sat", "sun"]')
LISTS = Kind(read_list_name, '"zen", for which there is a [dns.list.zen]')
VALUES = Kind(_itself, "true", texts=False)
NUMBERS = Kind(_itself, "100", texts=False)

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "connection": Criterion(DIRECTIONS, Known.CONNECT, lambda facts: facts.connection.direction),
        "port": Criterion(VALUES, Known.CONNECT, lambda facts: facts.connection.port),
        "vlan": Criterion(VALUES, Known.CONNECT, lambda facts: facts.connection.vlan),
        "client": Criterion(NETWORKS, Known.CONNECT, lambda facts: facts.connection.client),
        "server": Criterion(NETWORKS, Known.CONNECT, lambda facts: facts.connection.server),
        "hours": Criterion(HOURS, Known.CONNECT, lambda facts: facts.connection.minute % MINUTES_A_DAY),
        "days": Criterion(WEEKDAYS, Known.CONNECT, lambda facts: facts.connection.minute // MINUTES_A_DAY),
        "client_name": Criterion(TEXTS, Known.CONNECT, dns.client_names, asks=dns.client_lookups),
        "client_named": Criterion(VALUES, Known.CONNECT, dns.client_named, asks=dns.client_lookups),
        "dns_list": Criterion(LISTS, Known.CONNECT, dns.listed, asks=dns.list_lookups),
        "helo": Criterion(TEXTS, Known.HELO, lambda facts: facts.helo),
        "helo_resolves": Criterion(VALUES, Known.HELO, dns.helo_resolves, asks=dns.helo_lookups),
        "authenticated": Criterion(VALUES, Known.MAIL, lambda facts: facts.authenticated),
        "user": Criterion(TEXTS, Known.MAIL, lambda facts: facts.user),
        "sender": Criterion(MAILBOXES, Known.MAIL, lambda facts: facts.sender),
        "sender_resolves": Criterion(VALUES, Known.MAIL, dns.sender_resolves, asks=dns.sender_lookups),
        "message": Criterion(DIRECTIONS, Known.RCPT, lambda facts: facts.message),
        "recipient": Criterion(MAILBOXES, Known.RCPT, lambda facts: facts.recipient),
        "recipients_over": Criterion(
            NUMBERS, Known.DATA, lambda facts: facts.recipients, lambda facts: facts.recipients or 0
        ),
        "header": Criterion(TEXTS, Known.MESSAGE, lambda facts: facts.content and facts.content.header),
        "attachment": Criterion(TEXTS, Known.MESSAGE, inside.names, asks=inside.lookups),
        "attachment_type": Criterion(TEXTS, Known.MESSAGE, inside.types, asks=inside.lookups),
        "size_over_bytes": Criterion(
            NUMBERS,
            Known.MESSAGE,
            lambda facts: facts.content and facts.content.size_bytes,
            lambda facts: facts.declared_bytes or 0,
        ),
    }
)
# What a rule may also say that it does not hold for.
NEGATED = (*("port", "vlan", "client", "server", "client_name", "dns_list", "helo", "sender", "recipient", "header"),)
# Asked of the content, which must be held for it.
INSIDE = ("attachment", "attachment_type")
# Known to the language, and asked of nobody yet: what each needs.
AWAITED: Mapping[str, str] = MappingProxyType(
    {
        "tls_client": "STARTTLS taken part in",
        "tls_server": "STARTTLS taken part in",
        "filter_says": "filters",
        "rate_over": "what is remembered between sessions",
        "greylisted": "what is remembered between sessions",
        "reputation_under": "what is remembered between sessions",
        "seen": "what is remembered between sessions",
    }
)
