"""Rules and sessions made at random from a small world, in which rules often hold."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from smtp_intercept.direction import Direction
from smtp_intercept.inspect.actions import AddHeader
from smtp_intercept.inspect.criteria import CRITERIA, NEGATED
from smtp_intercept.inspect.dns import LISTED
from smtp_intercept.inspect.facts import (
    MINUTES_A_DAY,
    Connection,
    Content,
    DnsList,
    Facts,
    Known,
    Lookup,
    Outside,
    Reply,
    Source,
)
from smtp_intercept.inspect.patterns import mailbox
from smtp_intercept.inspect.rule import Condition, Rule
from smtp_intercept.policy import Close, Defer, Discard, Pass, Refuse

CLIENTS = ("192.0.2.1", "192.0.2.130", "198.51.100.7", "2001:db8::1")
PATHS = ("", "a@example.com", "A@EXAMPLE.com", '"a"@example.com', "b@sub.example.com", "postmaster", "x@[192.0.2.1]")
ENTRIES: dict[str, tuple[Any, ...]] = {
    "connection": ("incoming", "outgoing"),
    "port": ("p0", "p1"),
    "vlan": (0, 10),
    "client": ("192.0.2.0/24", "192.0.2.1", "192.0.2.128/25", "2001:db8::/32", "0.0.0.0/0"),
    "server": ("192.0.2.0/24", "::/0"),
    "hours": ("08:00-18:00", "22:00-06:00"),
    "days": ("mon", "sun"),
    "helo": ("*.example.com", "mx.example.com", "?x*"),
    "authenticated": (True, False),
    "user": ("boss", "*@example.com", "?*"),
    "sender": ("a@example.com", "example.com", ".example.com", "*@*.com", "<>", "[192.0.2.1]", "a*@*"),
    "message": ("incoming", "outgoing"),
    "recipient": ("a@example.com", "example.com", ".com", "*@sub.*"),
    "recipients_over": (0, 1, 2),
    "header": ("*lottery*", "yes", "*"),
    "size_over_bytes": (0, 100, 1000),
    "client_name": ("*.isp.example", "mx.example.com"),
    "client_named": (True, False),
    "dns_list": ("one", "two"),
    "helo_resolves": (True, False),
    "sender_resolves": (True, False),
    "attachment": ("*.exe", "a.txt"),
    "attachment_type": ("application/*",),
}
OUTSIDE = Outside({name: DnsList(f"{name}.example", (LISTED,)) for name in ("one", "two")})
# What a look-up may bring, by whom it asks.
REPLIES: dict[Source, tuple[Reply, ...]] = {
    Source.CLIENT: ((), ("a.isp.example",), ("mx.example.com", "b.isp.example"), None),
    Source.HOST: ((), ("yes",), None),
    Source.MAIL: ((), ("yes",), None),
    Source.PARTS: (
        (),
        ("n:evil.exe", "t:text/plain"),
        ("t:application/zip", "n:a.txt"),
        ("?too many", "n:A.TXT"),
        None,
    ),
    Source.LIST: ((), ("127.0.0.2",), ("192.0.2.7",), ("127.0.0.1",), ("127.255.255.254",), None),
}
ENDINGS = (
    None,
    Pass(),
    Refuse(550, "5.7.1 no"),
    Refuse(554, "5.7.1 never"),
    Defer(451, "4.7.1 later"),
    Discard(),
    Close(421, "4.7.0 go"),
)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from(sorted(ENTRIES)))
    texts = draw(st.lists(st.sampled_from(ENTRIES[name]), min_size=1, max_size=3, unique=True))
    negated = name in NEGATED and draw(st.booleans())
    unanswered = CRITERIA[name].asks is not None and draw(st.booleans())
    field = draw(st.sampled_from(["subject", "x-spam"])) if name == "header" else ""
    return Condition(name, tuple(CRITERIA[name].kind.read(text) for text in texts), negated, field, unanswered)


@st.composite
def rules(draw: st.DrawFn, *, most: int = 6) -> tuple[Rule, ...]:
    made = []
    for number in range(draw(st.integers(0, most))):
        asked = {(c.criterion, c.field, c.negated, c.unanswered): c for c in draw(st.lists(conditions(), max_size=3))}
        ending = draw(st.sampled_from(ENDINGS))
        edited = draw(st.booleans()) if ending in (None, Pass()) else False
        edits = (AddHeader(f"X-{number}", "yes"),) if edited else ()
        made.append(Rule(f"r{number}", tuple(asked.values()), ending, edits, draw(st.integers(0, 3)) == 0))
    return tuple(made)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """All that is known at the end of one message to one recipient."""
    connection = Connection(
        draw(st.sampled_from([Direction.INCOMING, Direction.OUTGOING])),
        ip_address(draw(st.sampled_from(CLIENTS))).packed,
        ip_address(draw(st.sampled_from(CLIENTS))).packed,
        draw(st.sampled_from(["p0", "p1", "p2"])),
        draw(st.sampled_from([0, 10, 20])),
        draw(st.integers(0, 7 * MINUTES_A_DAY - 1)),
    )
    header = draw(
        st.dictionaries(
            st.sampled_from(["subject", "x-spam", "x-more"]),
            st.lists(st.sampled_from(["Lottery!", "yes", "YES", ""]), max_size=2).map(tuple),
        )
    )
    size_bytes = draw(st.sampled_from([1, 100, 101, 5000]))
    made = Facts(
        connection,
        draw(st.sampled_from(["mx.example.com", "MX.EXAMPLE.com", "", "ax"])),
        draw(st.booleans()),
        mailbox(draw(st.sampled_from(PATHS))),
        draw(st.sampled_from([None, 1, size_bytes])),
        mailbox(draw(st.sampled_from(PATHS[1:]))),
        draw(st.sampled_from([Direction.INCOMING, Direction.OUTGOING])),
        draw(st.integers(1, 3)),
        Content(header, size_bytes),
        draw(st.sampled_from(["", "Boss", "a@example.com"])),
        OUTSIDE,
    )
    return replace(made, replies=draw(replies(made, missing=draw(st.booleans()))))


def lookups(facts: Facts) -> list[Lookup]:
    """All that may be asked about these."""
    asking = [(criterion.asks, ENTRIES[name]) for name, criterion in CRITERIA.items() if name in ENTRIES]
    return [*dict.fromkeys(lookup for asks, entries in asking if asks for lookup in asks(facts, entries))]


@st.composite
def replies(draw: st.DrawFn, facts: Facts, *, missing: bool = False) -> dict[Lookup, Reply]:
    """To all of them or, ``missing``, to some."""
    asked = [each for each in lookups(facts) if not missing or draw(st.booleans())]
    return {each: draw(st.sampled_from(REPLIES[each.source])) for each in asked}


def by(stage: Known, whole: Facts) -> Facts:
    """What of it is known at a stage; of recipients those so far."""
    if stage < Known.HELO:
        whole = replace(whole, helo=None)
    if stage < Known.MAIL:
        whole = replace(whole, authenticated=None, user=None, sender=None, declared_bytes=None)
    if stage < Known.RCPT:
        whole = replace(whole, recipient=None, message=None, recipients=None)
    elif stage < Known.DATA:
        whole = replace(whole, recipients=1)
    return whole if stage is Known.MESSAGE else replace(whole, content=None)
