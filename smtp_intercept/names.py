"""Protected servers that are given by name: what to ask the DNS, what an answer changes, when to ask again.

Pure: it asks nothing itself. A failed look-up never takes an address away; only an answer does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from smtp_intercept.direction import MAX_DOMAIN, MAX_LABEL, Network, Servers, Serving, normal_domain

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?")  # RFC 1123 §2.1, and the underscore that hosts do have


@dataclass(frozen=True, slots=True)
class Limits:
    """How often names are looked up, and how much one answer may hold."""

    ttl_min_s: float = 30.0  # a TTL of 0 must not become a flood of queries
    ttl_max_s: float = 3600.0  # a moved server is noticed within the hour whatever the TTL promised
    retry_min_s: float = 15.0  # the first retry after a failure; doubled after each further one
    retry_max_s: float = 300.0  # a DNS that comes back is noticed within five minutes
    query_timeout_s: float = 5.0  # one query with all its retries; after it the last good answer stands
    queries: int = 8  # at once, over all names: a resolver rate-limits those who ask for more
    mx_hosts: int = 32  # of one domain, best preference first; a hostile zone must not multiply our queries
    addresses: int = 64  # of one name; RFC 1035 UDP answers hold fewer


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """A name to keep fresh: a host's addresses, or those of the hosts that take mail for a domain (``mx``)."""

    name: str
    mx: bool = False

    def __str__(self) -> str:
        return f"MX of {self.name}" if self.mx else self.name


class Outcome(Enum):
    """What the last look-up of a name brought."""

    PENDING = "not asked yet"
    ANSWERED = "answered"
    NULL_MX = "null MX: the domain takes no mail"  # RFC 7505
    INCOMPLETE = "part of the answer is missing"
    FAILED = "no usable answer"  # SERVFAIL, REFUSED, time-out, no network
    ABSENT = "the name does not exist"  # NXDOMAIN
    EMPTY = "the name has no address"


GOOD = frozenset({Outcome.ANSWERED, Outcome.NULL_MX})


@dataclass(frozen=True, slots=True)
class Answer:
    """One look-up's result: addresses as text, the lowest TTL on the way to them, and the reason if it went wrong."""

    outcome: Outcome
    addresses: frozenset[str] = frozenset()
    ttl_s: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held of one name. Times are of the caller's clock; ``answered_at`` is the last good answer's."""

    question: Question
    addresses: frozenset[str] = frozenset()
    outcome: Outcome = Outcome.PENDING
    error: str | None = None
    answered_at: float | None = None
    refresh_at: float = 0.0
    failures: int = 0


def after(standing: Standing, answer: Answer, now: float, limits: Limits) -> Standing:
    """What is held once ``answer`` has come. A good answer replaces, an incomplete one adds, a failure keeps."""
    if answer.outcome in GOOD:
        ttl_s = min(max(answer.ttl_s, limits.ttl_min_s), limits.ttl_max_s)
        return Standing(standing.question, answer.addresses, answer.outcome, answer.error, now, now + ttl_s)
    return replace(
        standing,
        addresses=standing.addresses | answer.addresses,
        outcome=answer.outcome,
        error=answer.error or answer.outcome.value,
        refresh_at=now + retry_s(standing.failures, limits),
        failures=standing.failures + 1,
    )


def retry_s(failures: int, limits: Limits) -> float:
    """Seconds to wait after a failure that ``failures`` others preceded."""
    return min(limits.retry_min_s * 2.0 ** min(failures, 30), limits.retry_max_s)


def table(literals: Iterable[str], standings: Iterable[Standing]) -> Servers:
    """The protected servers: what was given as such, and what the names stand for now."""
    return Servers.of([*literals, *(address for standing in standings for address in standing.addresses)])


class ServedNames:
    """Whose servers are whose, as somebody else who asks the DNS tells it."""

    def __init__(self, protected: Iterable[tuple[str, Iterable[str]]]) -> None:
        self._protected = tuple((domain, tuple(items)) for domain, items in protected)
        self._known: dict[str, tuple[str, ...]] = {str(question): () for question in split(self._protected)[1]}
        self._serving = self._made()

    @property
    def serving(self) -> Serving:
        return self._serving

    def learn(self, told: object) -> None:
        """Addresses by name. What is not a name of ours, or not a list of addresses, is passed over."""
        named = told.items() if isinstance(told, dict) else ()
        lists = {name: tuple(map(str, addresses)) for name, addresses in named if isinstance(addresses, list)}
        after = {**self._known, **{name: lists[name] for name in lists.keys() & self._known.keys()}}
        if after == self._known:
            return
        before, self._known = self._known, after
        try:
            self._serving = self._made()
        except ValueError:
            self._known = before

    def _made(self) -> Serving:
        return _serving(self._protected, lambda question: self._known.get(str(question), ()))


def serving(protected: Iterable[tuple[str, Iterable[str]]], standings: Iterable[Standing]) -> Serving:
    """From (domain, its servers) and what the names among them stand for now: whose servers are whose."""
    known = {standing.question: standing.addresses for standing in standings}
    return _serving(protected, lambda question: known.get(question, ()))


def _serving(protected: Iterable[tuple[str, Iterable[str]]], addresses: Callable[[Question], Iterable[str]]) -> Serving:
    items: list[tuple[str, str]] = []
    for domain, servers in protected:
        for item in servers:
            match read_server(item, domain):
                case Question() as question:
                    items += [(domain, address) for address in addresses(question)]
                case str() as literal:
                    items.append((domain, literal))
    return Serving.of(items)


def split(protected: Iterable[tuple[str, Iterable[str]]]) -> tuple[tuple[str, ...], tuple[Question, ...]]:
    """From (domain, its servers) the addresses and networks, and the questions, each once and in their order."""
    literals: dict[str, None] = {}
    questions: dict[Question, None] = {}
    for domain, servers in protected:
        for item in servers:
            match read_server(item, domain):
                case Question() as question:
                    questions[question] = None
                case str() as literal:
                    literals[literal] = None
    return tuple(literals), tuple(questions)


def read_server(item: str, domain: str) -> str | Question:
    """An address or network as it is, a host name or "mx" as a question; ValueError says why it is neither."""
    if item.lower() == "mx":
        return Question(normal_domain(domain), mx=True)
    try:
        Network.of(item)
    except ValueError as error:
        if re.fullmatch(r"[0-9.]*|.*[:/%].*", item):  # meant as an address: no host is called that (RFC 3696 §2)
            raise ValueError(str(error)) from None
        return Question(read_host(item))
    return item


def read_host(name: str) -> str:
    """A host's full name in normal spelling; ValueError for anything else. RFC 1123 §2.1, RFC 3696 §2."""
    normal = read_domain(name)
    if "." not in normal:
        raise ValueError(f"{name!r} is not a full name")  # no search list is applied: it could never be found
    return normal


def read_domain(name: str) -> str:
    """A domain in normal spelling, of one label (``localhost``) or more; ValueError for anything else."""
    normal = normal_domain(name)
    labels = normal.split(".")
    if len(normal) >= MAX_DOMAIN - 1 or any(len(label) > MAX_LABEL for label in labels):
        raise ValueError(f"{name!r} is longer than a name may be")
    if not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise ValueError(f"{name!r} is not a name")
    return normal
