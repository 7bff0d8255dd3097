"""What rules ask the DNS about a client and its names, and what the answers mean.

Pure: it asks nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import Any

from smtp_intercept.direction import MAX_DOMAIN, Network, literal_address
from smtp_intercept.inspect.facts import DnsList, Facts, Lookup, Reply, Source, State, Told

# Of one address; each is asked for once more. A hostile zone must not multiply our questions.
MAX_NAMES = 8
MAX_ADDRESSES = 64  # of one answer
# RFC 5782 §2.1 and §5: a list has its answers in here, and 127.0.0.1 never.
LISTED = Network.of("127.0.0.0/8")
NOBODY = "1.0.0.127"  # in the order that lists have
_NEVER = Network.of("127.0.0.1/32")
# Where lists say that they do not answer this resolver, and not that anybody is listed (Spamhaus' "error codes").
_REFUSALS = Network.of("127.255.255.0/24")
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.IGNORECASE)


def askable(name: str) -> bool:
    """Whether the DNS can be asked for a stranger's name: what else there is has no address."""
    return len(name) <= MAX_DOMAIN and _NAME.fullmatch(name) is not None and not name.rpartition(".")[2].isdigit()


def client_lookups(facts: Facts, entries: Iterable[Any]) -> tuple[Lookup, ...]:
    """For the names of the client."""
    return (Lookup(Source.CLIENT, str(ip_address(facts.connection.client)), facts.outside.wait_s, "client"),)


def client_names(facts: Facts) -> Told:
    """Those that are confirmed: which have the client's address in turn."""
    return _told(facts, client_lookups(facts, ()))


def client_named(facts: Facts) -> Told:
    """Whether it has any."""
    return _whether(client_names(facts))


def helo_lookups(facts: Facts, entries: Iterable[Any]) -> tuple[Lookup, ...]:
    """For the name that the client gives."""
    name = facts.helo or ""
    return (Lookup(Source.HOST, name.lower(), facts.outside.wait_s, "helo"),) if askable(name) else ()


def helo_resolves(facts: Facts) -> Told:
    """RFC 5321 §2.3.5: a name that has an address, or an address in brackets."""
    if literal_address(facts.helo or "") is not None:
        return Told((True,))
    return _whether(_told(facts, helo_lookups(facts, ())))


def sender_lookups(facts: Facts, entries: Iterable[Any]) -> tuple[Lookup, ...]:
    """For the sender's domain."""
    domain = facts.sender.domain if facts.sender else ""
    return (Lookup(Source.MAIL, domain, facts.outside.wait_s, "sender"),) if askable(domain) else ()


def sender_resolves(facts: Facts) -> Told:
    """Whether a reply has somewhere to go (RFC 5321 §5.1, RFC 7505). To the null sender there is none, and to an
    address in brackets there is a way."""
    sender = facts.sender
    if sender is None or not (sender.local or sender.domain) or literal_address(sender.domain) is not None:
        return Told((True,))
    return _whether(_told(facts, sender_lookups(facts, ())))


def list_lookups(facts: Facts, entries: Iterable[Any]) -> tuple[Lookup, ...]:
    """For the client in these lists."""
    lists = facts.outside.lists
    return tuple(_listing(facts, lists[name]) for name in entries if name in lists)


def listed(facts: Facts) -> Told:
    """The names of the lists that have the client."""
    states, values = dict[Any, State](), list[str]()
    for name, each in facts.outside.lists.items():
        lookup = _listing(facts, each)
        if lookup not in facts.replies:
            states[name] = State.MISSING
            continue
        match _says(each, facts.replies[lookup]):
            case True:
                values.append(name)
            case None:
                states[name] = State.UNANSWERED
    return Told(tuple(values), each=states)


def _listing(facts: Facts, each: DnsList) -> Lookup:
    return Lookup(Source.LIST, reversed_name(facts.connection.client, each.zone), each.wait_s, each.zone)


def reversed_name(address: bytes, zone: str) -> str:
    """RFC 5782 §2.1 and §2.4: the octets of an IPv4 address, the nibbles of an IPv6 one, last ones first."""
    digits = [str(octet) for octet in address] if len(address) == LISTED.width else [*address.hex()]
    return ".".join([*reversed(digits), zone])


def _says(each: DnsList, reply: Reply) -> bool | None:
    """None: the list does not say. What is no answer of a list (a resolver that has an address for everything) is none
    of this one either."""
    if reply is None:
        return None
    codes = [IPv4Address(text).packed for text in reply]
    if any(_REFUSALS.holds(code) for code in codes):
        return None
    codes = [code for code in codes if LISTED.holds(code) and not _NEVER.holds(code)]
    return any(network.holds(code) for network in each.answers for code in codes)


def _told(facts: Facts, lookups: tuple[Lookup, ...]) -> Told:
    """Nothing that cannot be asked for."""
    for lookup in lookups:
        if lookup not in facts.replies:
            return Told(state=State.MISSING)
        reply = facts.replies[lookup]
        return Told(state=State.UNANSWERED) if reply is None else Told(reply)
    return Told()


def _whether(told: Told) -> Told:
    return Told((bool(told.values),)) if told.state is State.KNOWN else told


def read_zone(text: str) -> str:
    """Of a list; ValueError says why not."""
    # An IPv6 address takes 64 octets of a name.
    if not askable(text) or "." not in text or len(text) > MAX_DOMAIN - 2 * 32:
        raise ValueError(f"{text!r} is not the zone of a list")
    return text.lower().rstrip(".")


def read_answer(text: str) -> Network:
    """Of a list; ValueError says why not."""
    network = Network.of(text)
    first = (network.prefix << network.shift).to_bytes(network.width, "big")
    if network.width != LISTED.width or not LISTED.holds(first) or network.shift > 24:
        raise ValueError(f"{text!r} is not an answer of a list: they are in 127.0.0.0/8")
    return network
