"""Never an open relay: what a client that nobody listed tries at RCPT, and what it hears.

203.0.113.9 ──▶ the box (MTA) ──▶ 192.0.2.20, which takes mail for example.com and may trust the box
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtp_intercept.direction import Direction, Domains, Protection, Servers, message_direction, without_route
from smtp_intercept.mta.envelope import OURSELVES, Origin
from smtp_intercept.mta.relaying import (
    BAD_MAILBOX,
    MAX_MAILBOX_BYTES,
    RELAY_DENIED,
    RelayRule,
    admission,
)

RULE = RelayRule(
    Protection(
        Domains.of([("example.com", True), ("bücher.example", False)]),
        Servers.of(["192.0.2.30", "2001:db8::30", "198.51.100.0/24", "2001:db8:1::/64"]),
    ),
    Servers.of(["10.0.0.0/8", "2001:db8:10::/48"]),
    frozenset({"enp2s0"}),
)
TO_SERVER = Origin(("203.0.113.9", 40_000), ("192.0.2.20", 25), Direction.INCOMING, "enp1s0", ("example.com",))
ELSEWHERE = Origin(("203.0.113.9", 40_000), ("198.51.100.99", 25), Direction.OUTGOING, "enp1s0")

ADMITTED = [
    "user@example.com",
    "USER@Example.COM",
    "user@example.com.",
    "user@sub.example.com",
    "user@bücher.example",
    "user@xn--bcher-kva.example",
    "user@XN--BCHER-KVA.EXAMPLE",
    "user@ｅxample．com",  # the same name to whoever normalizes it, and it goes to the protected server
    "user@example\u3002com",
    "@attacker.example:user@example.com",  # the route is ignored, by us and so by whoever hears the mailbox
    "@a.example,@[192.0.2.99]:user@example.com",
    '"john smith"@example.com',
    '"quoted"@example.com',
    '""@example.com',
    "user%example.com@example.com",  # whoever undoes the hack arrives where the mail may go
    "example.com!user@sub.example.com",
    '"user@example.com"@example.com',
    "user..name.@example.com",  # given out by some providers
    "用户@example.com",
    "bounces+user=victim.example@example.com",
    "prvs=0123456789=user@example.com",
    "SRS0=HHH=TT=victim.example=user@example.com",
    "u#$&'*+-/=?^_`{|}~@example.com",
]

DENIED = [
    # plain
    "victim@other.example",
    "victim@example.com.other.example",
    "victim@notexample.com",
    "victim@sub.bücher.example",
    # source routes: RFC 5321 Appendix C
    "@example.com:victim@other.example",
    "@example.com,@sub.example.com:victim@other.example",
    "@[192.0.2.20]:victim@other.example",
    # the percent hack and bang paths
    "victim%other.example@example.com",
    "victim%other.example%example.com@example.com",
    "victim%example.com%other.example@example.com",
    "other.example!victim@example.com",
    "example.com!other.example!victim@example.com",
    "other.example!victim%example.com@example.com",
    "victim%example.com!other.example@example.com",
    "victim%@example.com",
    "%other.example@example.com",
    "!victim@example.com",
    # quoted local parts, which some servers unquote before they route
    '"victim@other.example"@example.com',
    '"victim\\@other.example"@example.com',
    '"victim%other.example"@example.com',
    '"other.example!victim"@example.com',
    '"@example.com:victim@other.example"@example.com',
    '"<victim@other.example>"@example.com',
    '"victim@other.example "@example.com',
    '"victim@"@example.com',
    # what ends as a subdomain of the protected domain does, and is no name
    "victim%other.example!sub.example.com@example.com",
    "other.example$.example.com!victim@example.com",
    '"victim@other.example .example.com"@example.com',
    '"victim@other.example,sub.example.com"@example.com',
    '"victim@other.example>.example.com"@example.com',
    '"victim@[198.51.100.99].example.com"@example.com',
    '"user@example.com"@other.example',
    # the same in compatibility forms
    "victim％other.example@example.com",
    "other.example！victim@example.com",
    "victim＠other.example@example.com",
    "victim﹫other.example@example.com",
    # address literals: of no protected server, or of one that only a network holds and nobody has dialled
    "victim@[203.0.113.99]",
    "victim@[198.51.100.98]",
    "victim@[IPv6:2001:db8::99]",
    "victim@[IPv6:2001:db8:1::99]",
    "victim@[IPv6:::ffff:203.0.113.99]",
    "victim@[IPv6:64:ff9b::192.0.2.30]",
    '"victim%[203.0.113.99]"@example.com',
    # through the literal of a protected server
    "@[192.0.2.30]:victim@other.example",
    "victim%other.example@[192.0.2.30]",
    "other.example!victim@[192.0.2.30]",
    '"victim@other.example"@[192.0.2.30]',
    '"victim@[203.0.113.99]"@[192.0.2.30]',
    '"victim%[203.0.113.99]"@[IPv6:2001:db8::30]',
    '"@[192.0.2.30]:victim@other.example"@[192.0.2.30]',
    "victim＠other.example@[192.0.2.30]",
    '"victim@[192.0.2.30].other.example"@[192.0.2.30]',
    # names that look alike or end alike
    "victim@exаmple.com",  # Cyrillic а
    "victim@exam\u00adple.com",
    "victim@xn--exmple-4nf.com",
    "victim@com",
]

MALFORMED = [
    "",
    "@",
    "victim",
    "root",
    "postmaster@",
    "@example.com",
    "@example.com:",
    "victim@",
    "victim@example.com..",
    "victim@.example.com",
    "victim@other.example\0.example.com",
    "victim@other.example\r\nRCPT TO:<x@other.example>@example.com",
    "victim@other.example\n@example.com",
    "victim\t@example.com",
    "vic\x01tim@example.com",
    '"vic\r\ntim"@example.com',
    '"vic\u2028tim"@example.com',
    "victim@other.example\x7f.example.com",
    "victim@other.example\u2028.example.com",
    "victim\udcff@example.com",
    "victim@other.example@example.com",
    "victim@other.example,user@example.com",
    "victim@other.example user@example.com",
    "<victim@other.example>@example.com",
    "victim@other.example(.example.com",
    "victim@other.example>.example.com",
    "victim@[198.51.100.99].example.com",
    "victim@[198.51.100.99",
    "victim@[198.51.100]",
    "victim@[127.0.0.1]",
    "victim@[0.0.0.0]",
    "victim@[224.0.0.1]",
    "victim@[IPv6:::1]",
    'victim@exa"x"mple.com',
    '"victim@example.com',
    '"victim"other@example.com',
    '"vic"tim"@example.com',
    "victim@other_.example/.example.com",
    "victim@" + "a" * 64 + ".example.com",
    "victim@" + "a." * 130 + "example.com",
    "victim@192.0.2.20",
    "victim%[198.51.100.99]@example.com",
    "victim@[192.0.2.030]",
    "victim@[192.0.2.0x1e]",
    "victim@[192.0.542]",
    "victim@[3221226014]",
    "victim@[2001:db8::30]",
    "victim@[IPv6:192.0.2.30]",
    "victim@[IPv6:2001:db8::30%eth0]",
    "victim@[IPv6:::ffff:127.0.0.1]",
    "victim@[IPv4:192.0.2.30]",
    "victim@[192.0.2.30]other.example",
    "victim@[192.0.2.30],[203.0.113.99]",
    "victim@[192.0.2.30]@other.example",
    "victim@[192.0.2.30]:25",
]

LITERALS = [
    "user@[192.0.2.30]",
    "user@[IPv6:2001:db8::30]",
    "user@[ipv6:2001:DB8:0::30]",
    "user@[IPv6:::ffff:192.0.2.30]",  # to 192.0.2.30 as well
    '"john smith"@[192.0.2.30]',
    "@attacker.example:user@[192.0.2.30]",
    "user%example.com@[192.0.2.30]",
    '"user@[192.0.2.30]"@[192.0.2.30]',
]


@pytest.mark.parametrize("recipient", ADMITTED + LITERALS)
@pytest.mark.parametrize("origin", [TO_SERVER, ELSEWHERE], ids=["incoming", "outgoing"])
def test_admitted(origin: Origin, recipient: str) -> None:
    assert admission(origin, recipient, RULE) is None


@pytest.mark.parametrize("recipient", DENIED)
@pytest.mark.parametrize("origin", [TO_SERVER, ELSEWHERE], ids=["incoming", "outgoing"])
def test_denied(origin: Origin, recipient: str) -> None:
    answer = admission(origin, recipient, RULE)
    assert answer is RELAY_DENIED
    assert answer.line == b"550 5.7.1 relay access denied\r\n"


@pytest.mark.parametrize(
    ("server", "literal"),
    [
        ("192.0.2.20", "[192.0.2.20]"),  # known by its name
        ("198.51.100.99", "[198.51.100.99]"),
        ("2001:db8:1::99", "[IPv6:2001:db8:1::99]"),
    ],
)
def test_the_address_of_a_server_that_is_not_listed_by_it_is_reached_by_dialling_it(server: str, literal: str) -> None:
    """A network says whose connections are incoming, and takes nobody past a firewall to all of its hosts."""
    dialled = replace(TO_SERVER, server=(server, 25))
    assert admission(dialled, f"user@{literal}", RULE) is None
    assert admission(dialled, f'"victim@other.example"@{literal}', RULE) is RELAY_DENIED
    for origin in (replace(TO_SERVER, server=("192.0.2.30", 25)), ELSEWHERE, replace(ELSEWHERE, server=(server, 25))):
        assert admission(origin, f"user@{literal}", RULE) is RELAY_DENIED


def test_the_whole_world_protected_is_no_open_relay() -> None:
    rule = RelayRule(Protection(servers=Servers.of(["0.0.0.0/0", "::/0"])))
    assert admission(TO_SERVER, "user@[192.0.2.20]", rule) is None
    for victim in ("[203.0.113.99]", "[IPv6:2001:db8::99]", "other.example"):
        assert admission(TO_SERVER, f"victim@{victim}", rule) is RELAY_DENIED


@pytest.mark.parametrize("recipient", MALFORMED)
def test_no_mailbox_is_nobodys(recipient: str) -> None:
    """Whoever asks: what cannot be delivered is not taken."""
    for origin in (TO_SERVER, ELSEWHERE, Origin(("10.1.2.3", 1), ("192.0.2.20", 25), Direction.INCOMING)):
        assert admission(origin, recipient, RULE) is BAD_MAILBOX


@pytest.mark.parametrize("mailbox", ["postmaster", "Postmaster", "POSTMASTER"])
def test_the_postmaster_of_the_protected_server_is_reached_without_a_domain(mailbox: str) -> None:
    """RFC 5321 §4.5.1; another server's would be mail to anywhere."""
    assert admission(TO_SERVER, mailbox, RULE) is None
    assert admission(ELSEWHERE, mailbox, RULE) is RELAY_DENIED
    assert admission(ELSEWHERE, f"{mailbox}@other.example", RULE) is RELAY_DENIED


@pytest.mark.parametrize(
    ("client", "port", "trusted"),
    [
        ("203.0.113.9", "enp2s0", False),
        ("9.255.255.255", "enp2s0", False),
        ("10.0.0.0", "enp2s0", True),
        ("10.255.255.255", "enp2s0", True),
        ("11.0.0.0", "enp2s0", False),
        ("10.0.0.1", "enp1s0", False),  # a neighbour outside that claims an address of the inside
        ("10.0.0.1", "", False),
        ("2001:db8:10::1", "enp2s0", True),
        ("2001:db8:10::1", "enp1s0", False),
        ("2001:db8:11::1", "enp2s0", False),
        ("fe80::1%smtp0", "enp2s0", False),
        ("::ffff:10.0.0.1", "enp2s0", False),  # on the wire this is another address
    ],
)
@pytest.mark.parametrize("recipient", ["victim@other.example", "victim%other.example@example.com", "u@[192.0.2.99]"])
def test_who_is_listed_may(client: str, port: str, trusted: bool, recipient: str) -> None:
    for direction in (Direction.INCOMING, Direction.OUTGOING):
        origin = Origin((client, 1), ("192.0.2.20", 25), direction, port)
        assert admission(origin, recipient, RULE) is (None if trusted else RELAY_DENIED)


@pytest.mark.parametrize("client", ["203.0.113.9", "2001:db8:11::1", "fe80::1%smtp0"])
def test_without_networks_everybody_on_the_port_may(client: str) -> None:
    rule = RelayRule(RULE.protection, ports=frozenset({"enp2s0"}))
    for port, refusal in (("enp2s0", None), ("enp1s0", RELAY_DENIED), ("", RELAY_DENIED)):
        origin = Origin((client, 1), ("192.0.2.20", 25), Direction.INCOMING, port)
        assert admission(origin, "v@other.example", rule) is refusal


@pytest.mark.parametrize("networks", [Servers(), Servers.of(["10.0.0.0/8"])], ids=["no networks", "networks"])
def test_without_a_port_nobody_may(networks: Servers) -> None:
    rule = RelayRule(RULE.protection, networks)
    assert admission(Origin(("10.0.0.1", 1), ("192.0.2.20", 25), Direction.INCOMING, ""), "v@other.example", rule)


def test_a_message_of_our_own_has_no_client_to_trust() -> None:
    assert admission(OURSELVES, "v@other.example", RULE) is RELAY_DENIED


def test_the_longest_mailbox() -> None:
    fits = "u" * (MAX_MAILBOX_BYTES - len("@example.com")) + "@example.com"
    assert admission(TO_SERVER, fits, RULE) is None
    assert admission(TO_SERVER, "u" + fits, RULE) is BAD_MAILBOX
    assert admission(TO_SERVER, "ü" + fits[1:], RULE) is BAD_MAILBOX  # octets, not characters


pieces = st.sampled_from(
    [
        *'@%!:.,"\\<>[] ab＠％！',
        *("example.com", "other.example", "[192.0.2.99]", "[192.0.2.30]", "@example.com:", "victim", "\0", "\n"),
    ]
)


HOME = ("example.com", "[192.0.2.30]")


def carried_on_to(mailbox: str, first: str) -> str:
    """The domain where a trusting, old-fashioned server (Postfix with allow_untrusted_routing, sendmail with
    relay_entire_domain) ends up: it undoes each kind of route as long as the domain in front is its own. ``first`` is
    the mark that it heeds first, "%" or "!"."""
    local, at, domain = unicodedata.normalize("NFKC", mailbox).rpartition("@")
    while at and (domain.lower().rstrip(".") in HOME or domain.lower().endswith(".example.com")):
        local = re.sub(r"\\(.)", r"\1", local.strip('"'))
        mark = next((mark for mark in ("@", first, "%", "!") if mark in local), "")
        match mark:
            case "":
                return "home"
            case "!":
                domain, at, local = local.partition("!")
            case _:
                local, at, domain = local.rpartition(mark)
    return domain


@settings(max_examples=2_000)
@given(st.lists(pieces, max_size=9).map("".join), st.sampled_from("%!"))
@example("victim\\%other.example@example.com", "%")
@example('"victim\\@other.example"@example.com', "%")
def test_who_is_admitted_is_carried_nowhere_else_by_a_server_that_trusts_the_box(recipient: str, first: str) -> None:
    if admission(TO_SERVER, recipient, RULE) is None and recipient.lower() != "postmaster":
        mailbox = without_route(recipient)
        assert message_direction(mailbox, RULE.on(TO_SERVER)) is Direction.INCOMING
        assert carried_on_to(mailbox, first) == "home"


@pytest.mark.parametrize(
    "recipient",
    ["victim%other.example@example.com", "other.example!victim@example.com", '"v@other.example"@example.com'],
)
def test_that_law_can_fail(recipient: str) -> None:
    assert carried_on_to(recipient, "%") == "other.example"


@given(st.text(max_size=40))
def test_any_text_has_an_answer(recipient: str) -> None:
    assert admission(TO_SERVER, recipient, RULE) in (None, RELAY_DENIED, BAD_MAILBOX)
