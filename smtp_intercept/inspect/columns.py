"""One criterion of all rules at once: which of them a value fits, as a number whose bit n is rule n.

Pure. What is looked up costs one probe of a dictionary, whatever the number of rules; only patterns with stars are laid
against a value one by one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from smtp_intercept.direction import Network
from smtp_intercept.inspect.criteria import HOURS, MAILBOXES, NETWORKS, NUMBERS, TEXTS, Kind
from smtp_intercept.inspect.patterns import Domain, Mailbox, Wild, fold
from smtp_intercept.inspect.rule import holds

# (entry, the rules that have it)
Entries: TypeAlias = Mapping[Any, int]
Column: TypeAlias = Callable[[Any], int]


def column(kind: Kind, entries: Iterable[tuple[Any, int]]) -> Column:
    """From each entry with the bit of its rule."""
    rules: defaultdict[Any, int] = defaultdict(int)
    for entry, bit in entries:
        rules[entry] |= bit
    return _COLUMNS.get(kind, _equal)(rules)


def _equal(rules: Entries) -> Column:
    exact = dict(rules)
    return lambda value: exact.get(value, 0)


def _one_by_one(kind: Kind) -> Callable[[Entries], Column]:
    def of(rules: Entries) -> Column:
        def fitting(value: Any) -> int:
            found = 0
            for entry, bits in rules.items():
                if holds(kind, (entry,), value):
                    found |= bits
            return found

        return fitting

    return of


def _networks(rules: Entries) -> Column:
    groups: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    network: Network
    for network, bits in rules.items():
        groups[network.width, network.shift][network.prefix] = bits
    tables = tuple((width, shift, prefixes) for (width, shift), prefixes in groups.items())

    def fitting(address: bytes) -> int:
        found, number, octets = 0, int.from_bytes(address, "big"), len(address)
        for width, shift, prefixes in tables:
            if width == octets:
                found |= prefixes.get(number >> shift, 0)
        return found

    return fitting


def _mailboxes(rules: Entries) -> Column:
    exact = {entry: bits for entry, bits in rules.items() if isinstance(entry, Mailbox)}
    domains = {entry.name: bits for entry, bits in rules.items() if isinstance(entry, Domain) and not entry.below}
    below = {entry.name: bits for entry, bits in rules.items() if isinstance(entry, Domain) and entry.below}
    wild = _patterns(rules)

    def fitting(address: Mailbox) -> int:
        found = exact.get(address, 0) | domains.get(address.domain, 0)
        if below:
            found |= _above(address.domain, below)
        if wild and address.domain:
            found |= _fitting(wild, f"{address.local}@{address.domain}")
        return found

    return fitting


def _above(domain: str, names: Mapping[str, int]) -> int:
    found, at = 0, domain.find(".")
    while at >= 0:
        found |= names.get(domain[at + 1 :], 0)
        at = domain.find(".", at + 1)
    return found


def _texts(rules: Entries) -> Column:
    plain = {entry.pattern: bits for entry, bits in rules.items() if not set("*?") & set(entry.pattern)}
    wild = _patterns(rules)

    def fitting(text: str) -> int:
        folded = fold(text)
        return plain.get(folded, 0) | _fitting(wild, folded)

    return fitting


def _patterns(rules: Entries) -> tuple[tuple[re.Pattern[str], int], ...]:
    found = ((entry, bits) for entry, bits in rules.items() if isinstance(entry, Wild))
    return tuple((entry.compiled(), bits) for entry, bits in found if set("*?") & set(entry.pattern))


def _fitting(patterns: Iterable[tuple[re.Pattern[str], int]], text: str) -> int:
    found = 0
    for pattern, bits in patterns:
        if pattern.fullmatch(text):
            found |= bits
    return found


_COLUMNS: Mapping[Kind, Callable[[Entries], Column]] = MappingProxyType(
    {
        NETWORKS: _networks,
        MAILBOXES: _mailboxes,
        TEXTS: _texts,
        HOURS: _one_by_one(HOURS),
        NUMBERS: _one_by_one(NUMBERS),
    }
)
