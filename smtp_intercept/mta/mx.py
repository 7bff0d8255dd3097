"""Which hosts take mail for a domain, in which order: RFC 5321 §5.1, RFC 7505.

Pure: judges the DNS's answers and asks nothing. Chance is an argument.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol, TypeVar

from smtp_intercept.direction import Servers
from smtp_intercept.mta.failure import Failure, for_good, for_now
from smtp_intercept.names import Outcome


class _Ranks(Protocol):
    @property
    def preference(self) -> int: ...


_Ranked = TypeVar("_Ranked", bound=_Ranks)

# A number in [0, 1): where a host stands among its equals.
Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One MX record; ``host`` is "" for the root, which takes no mail (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Host:
    """What the DNS said of one host: ABSENT, EMPTY, FAILED and ``error``, or addresses, perhaps not all of them."""

    outcome: Outcome
    addresses: tuple[str, ...] = ()
    authentic: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A host to try: its name as the DNS gave it (or the address, if it was given as one) and its addresses in the
    order to dial. ``authentic``: the resolver vouched for every answer on the way (the AD bit, RFC 4035 §3.2.3)."""

    host: str
    addresses: tuple[str, ...]
    authentic: bool = False
    preference: int = 0


def spread(ordered: Sequence[_Ranked], most: int) -> list[_Ranked]:
    """At most so many, in their order; of every preference one, as far as that goes, before any gets a second: a
    domain's first hosts may be dead, and its last resort must not hide behind how many they are."""
    firsts = {each.preference: place for place, each in reversed(list(enumerate(ordered)))}
    places = sorted(range(len(ordered)), key=lambda place: (firsts[ordered[place].preference] != place, place))
    return [ordered[place] for place in sorted(places[:most])]


def in_order(domain: str, exchanges: Iterable[Exchange], chance: Chance) -> tuple[Exchange, ...] | Failure:
    """By preference, equal ones as chance will have it; without a record the domain itself (the implicit MX).

    A root beside other hosts is a mistake and no null MX (RFC 7505 §3).
    """
    listed = list(exchanges)
    named = [exchange for exchange in listed if exchange.host]
    if listed and not named:
        return for_good("5.1.10", f"{domain} takes no mail (null MX)")
    return tuple(sorted(named, key=lambda each: (each.preference, chance()))) or (Exchange(0, domain),)


def usable(
    domain: str, exchanges: Sequence[Exchange], hosts: Mapping[str, Host], own: Servers, chance: Chance
) -> tuple[Target, ...] | Failure:
    """The hosts to try. We ourselves in the list end it: what is as good or worse would come back (RFC 5321 §5.1)."""
    ours = [each.preference for each in exchanges if any(map(_of(own), hosts[each.host].addresses))]
    better = [each.host for each in exchanges if not ours or each.preference < min(ours)]
    first = {each.host: each.preference for each in reversed(exchanges)}
    targets = [(name, target(name, hosts[name], chance)) for name in dict.fromkeys(better)]
    found = tuple(replace(each, preference=first[name]) for name, each in targets if isinstance(each, Target))
    if found:
        return found
    unknown = [hosts[name].error for name in better if hosts[name].outcome in (Outcome.FAILED, Outcome.INCOMPLETE)]
    if unknown:
        return for_now("4.4.3", unknown[0])
    if ours:
        return for_good("5.4.6", f"mail for {domain} would loop back to this host")
    return for_good("5.4.4", f"{domain} has no mail host with an address")


def single(name: str, host: Host, own: Servers, chance: Chance) -> Target | Failure:
    """One host that was named as the next hop, not by an MX record."""
    if any(map(_of(own), host.addresses)):
        return for_good("5.4.6", f"{name} is this host itself")
    return target(name, host, chance)


def target(name: str, host: Host, chance: Chance) -> Target | Failure:
    """One host by itself; a Failure if the DNS has no address of it that can be dialled."""
    if addresses := _mixed(host.addresses, chance):
        return Target(name, addresses, host.authentic)
    if host.outcome is Outcome.ABSENT:
        return for_good("5.1.2", host.error or f"{name} does not exist")
    if host.outcome in (Outcome.FAILED, Outcome.INCOMPLETE):
        return for_now("4.4.3", host.error)
    return for_good("5.4.4", f"{name} has no address")


def literal(text: str) -> str | None:
    """The address in "192.0.2.1", "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 §4.1.3); None if it is a name."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    inner = inner[5:] if inner[:5].lower() == "ipv6:" else inner
    try:
        return str(_plain(inner))
    except ValueError:
        return None


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An IPv4 address in IPv6 clothes is that address: it must not slip past the table of our own."""
    parsed = ip_address(address)
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


def _of(own: Servers) -> Callable[[str], bool]:
    """Whether an address is ours. To dial the unspecified one is to dial ourselves, on Linux."""
    return lambda address: (plain := _plain(address)).is_unspecified or own.holds(plain.packed)


def _mixed(addresses: Iterable[str], chance: Chance) -> tuple[str, ...]:
    """Both families in turn, so that one without a way out costs one attempt; within each as chance will have it."""
    plain = {address for address in map(_plain, addresses) if not (address.is_multicast or address.is_unspecified)}
    families = [sorted((each for each in plain if each.version == version), key=str) for version in (4, 6)]
    shuffled = [sorted(family, key=lambda _: chance()) for family in families]
    shuffled.sort(key=lambda _: chance())
    turns = itertools.zip_longest(*shuffled)
    return tuple(str(address) for turn in turns for address in turn if address is not None)
