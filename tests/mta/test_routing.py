"""Next hops: the table R1-R8 of the design, row by row, and what overrides it.

client ──▶ A 192.0.2.20 (a.example, relays what it gets) ┐
       ──▶ B 192.0.2.30 (b.example and c.example)        ├ protected      relay host: relay.example.net
       ──▶ D 192.0.2.40 (d.example, a network)           ┘
       ──▶ X 203.0.113.9                                   anywhere else
"""

from __future__ import annotations

import string
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smtp_intercept.direction import (
    MAX_DOMAIN,
    Direction,
    Domains,
    Protection,
    Servers,
    message_direction,
    recipient_domain,
)
from smtp_intercept.mta.envelope import OURSELVES, Origin
from smtp_intercept.mta.nexthop import NextHop, Place, Protocol, Security, place_of
from smtp_intercept.mta.routing import DomainRoute, RouteTable, route, straight

A, A2, B, D, X = (
    Place("192.0.2.20"),
    Place("mail.a.example", 2525),
    Place("192.0.2.30"),
    Place("192.0.2.40"),
    "203.0.113.9",
)
RELAY = NextHop("", (Place("relay.example.net", 587),), security=Security.REQUIRED, authenticate=True)

NO_RELAY = RouteTable(
    {
        entry.name: entry
        for entry in (
            DomainRoute("a.example", servers=(A, A2), via_server=True),
            DomainRoute("b.example", subdomains=True, servers=(B,), by_mx=True),
            DomainRoute("c.example", deliver_to=(Place("192.0.2.31", 2525), Place("192.0.2.30", 2525)), servers=(B,)),
            DomainRoute("d.example"),
            DomainRoute("own.b.example", servers=(Place("192.0.2.99"),)),
        )
    }
)
LISTED = ["192.0.2.20", "192.0.2.30", "192.0.2.31", "198.51.100.0/24", "2001:db8::/64"]
BY_ADDRESS = replace(NO_RELAY, servers=Servers.of(LISTED))
RELAYED = replace(NO_RELAY, relay=RELAY)
BOTH = replace(BY_ADDRESS, relay=RELAY)
CLUSTER = replace(RELAYED, relay_only=True)
SERVED = {
    "192.0.2.20": ("a.example",),
    "192.0.2.30": ("b.example", "c.example"),
    "192.0.2.40": ("d.example",),
    "2001:db8::40": ("d.example",),
}


def came(server: str, port: int = 25) -> Origin:
    served = SERVED.get(server, ())
    direction = Direction.INCOMING if served else Direction.OUTGOING
    return Origin(("198.51.100.7", 40_000), (server, port), direction, "enp1s0", served)


class Row(NamedTuple):
    dialled: str
    recipient: str
    table: RouteTable
    row: str
    goes_to: str


# fmt: off
TABLE = [
    # connection         recipient                  configuration  row   goes to
    Row("192.0.2.20",   "u@a.example",              NO_RELAY,      "R1", "192.0.2.20:25, mail.a.example:2525"),
    Row("192.0.2.20",   "u@a.example",              RELAYED,       "R1", "192.0.2.20:25, mail.a.example:2525"),
    Row("192.0.2.30",   "u@b.example",              NO_RELAY,      "R1", "192.0.2.30:25, MX of b.example"),
    Row("192.0.2.30",   "u@c.example",              NO_RELAY,      "R1", "192.0.2.30:2525, 192.0.2.31:2525"),
    Row("192.0.2.40",   "u@d.example",              NO_RELAY,      "R1", "192.0.2.40:25"),
    Row("192.0.2.20",   "u@other.example",          NO_RELAY,      "R2", "192.0.2.20:25"),
    Row("192.0.2.20",   "u@other.example",          RELAYED,       "R2", "192.0.2.20:25"),
    Row("192.0.2.30",   "u@other.example",          RELAYED,       "R3", "relay.example.net:587"),
    Row("192.0.2.30",   "u@other.example",          NO_RELAY,      "R4", "MX of other.example"),
    Row(X,              "u@a.example",              NO_RELAY,      "R6", "192.0.2.20:25, mail.a.example:2525"),
    Row(X,              "u@b.example",              RELAYED,       "R6", "192.0.2.30:25, MX of b.example"),
    Row(X,              "u@c.example",              RELAYED,       "R6", "192.0.2.31:2525, 192.0.2.30:2525"),
    Row(X,              "u@other.example",          RELAYED,       "R7", "relay.example.net:587"),
    Row(X,              "u@other.example",          NO_RELAY,      "R8", "MX of other.example"),
    # a server that is protected, but not the recipient's: that domain's own, and the one dialled if it has none
    Row("192.0.2.30",   "u@a.example",              NO_RELAY,      "R1", "192.0.2.20:25, mail.a.example:2525"),
    Row("192.0.2.30",   "u@d.example",              NO_RELAY,      "R1", "192.0.2.30:25"),
    # a domain of networks only, from elsewhere (the configuration's check speaks up before)
    Row(X,              "u@d.example",              NO_RELAY,      "R6", "MX of d.example"),
    # subdomains: protected if the domain says so, and the nearest entry counts
    Row("192.0.2.30",   "u@sub.b.example",          NO_RELAY,      "R1", "192.0.2.30:25, MX of b.example"),
    Row(X,              "u@x.y.b.example",          RELAYED,       "R6", "192.0.2.30:25, MX of b.example"),
    Row(X,              "u@own.b.example",          RELAYED,       "R6", "192.0.2.99:25"),
    Row(X,              "u@x.own.b.example",        RELAYED,       "R6", "192.0.2.30:25, MX of b.example"),
    Row(X,              "u@sub.a.example",          NO_RELAY,      "R8", "MX of sub.a.example"),
    Row(X,              "u@notb.example",           NO_RELAY,      "R8", "MX of notb.example"),
    # spelling of the recipient
    Row(X,              "u@A.Example.",             NO_RELAY,      "R6", "192.0.2.20:25, mail.a.example:2525"),
    Row(X,              '"u@a.example"@other.example', NO_RELAY,   "R8", "MX of other.example"),
    Row(X,              "u@Bücher.example",         NO_RELAY,      "R8", "MX of xn--bcher-kva.example"),
    Row(X,              "u@[192.0.2.77]",           NO_RELAY,      "R8", "192.0.2.77:25"),
    Row("192.0.2.30",   "u@[IPv6:2001:db8::7]",     NO_RELAY,      "R4", "[2001:db8::7]:25"),
    Row(X,              "u@[192.0.2.77]",           RELAYED,       "R7", "relay.example.net:587"),
    Row(X,              "u@[nonsense]",             NO_RELAY,      "R8", "nowhere"),
    # the address of a protected server: there, whatever the relay host would do, and without DNS
    Row("192.0.2.20",   "u@[192.0.2.20]",           BY_ADDRESS,    "R1", "192.0.2.20:25"),
    Row("192.0.2.20",   "u@[192.0.2.20]",           NO_RELAY,      "R1", "192.0.2.20:25"),
    Row("192.0.2.20",   "u@[IPv6:::ffff:192.0.2.20]", BOTH,        "R1", "192.0.2.20:25"),
    Row("192.0.2.30",   "u@[192.0.2.20]",           BOTH,          "R1", "192.0.2.20:25"),
    Row("192.0.2.20",   "u@[192.0.2.31]",           BOTH,          "R1", "192.0.2.31:2525"),
    Row("2001:db8::40", "u@[IPv6:2001:DB8::40]",    BOTH,          "R1", "[2001:db8::40]:25"),
    Row("192.0.2.20",   "u@[198.51.100.7]",         BOTH,          "R1", "198.51.100.7:25"),
    Row(X,              "u@[192.0.2.20]",           BOTH,          "R6", "192.0.2.20:25"),
    Row(X,              "u@[IPv6:2001:db8::7]",     BOTH,          "R6", "[2001:db8::7]:25"),
    Row(X,              "u@[192.0.2.020]",          BOTH,          "R7", "relay.example.net:587"),
    Row(X,              "u@[203.0.113.9]",          BY_ADDRESS,    "R8", "203.0.113.9:25"),  # dialled, not protected
    # no domain: at the server that the client spoke to
    Row("192.0.2.30",   "postmaster",               RELAYED,       "R1", "192.0.2.30:25"),
    Row(X,              "Postmaster",               RELAYED,       "R8", "203.0.113.9:25"),
    # IPv6
    Row("2001:db8::40", "u@d.example",              NO_RELAY,      "R1", "[2001:db8::40]:25"),
    # another MTA queues for the box
    Row("192.0.2.20",   "u@a.example",              CLUSTER,       "relay", "relay.example.net:587"),
    Row(X,              "u@other.example",          CLUSTER,       "relay", "relay.example.net:587"),
    Row("192.0.2.20",   "u@[192.0.2.20]",           CLUSTER,       "relay", "relay.example.net:587"),
]
# fmt: on


@pytest.mark.parametrize("line", TABLE, ids=lambda line: f"{line.row}-{line.dialled}-{line.recipient}")
def test_the_table(line: Row) -> None:
    hop = route(came(line.dialled), line.recipient, line.table)
    assert (hop.row, str(hop)) == (line.row, line.goes_to)


def test_every_row_is_in_the_table_but_the_proxys() -> None:
    assert {line.row for line in TABLE} == {"R1", "R2", "R3", "R4", "R6", "R7", "R8", "relay"}


@pytest.mark.parametrize("recipient", ["u@a.example", "u@other.example", "postmaster"])
def test_r5_the_proxy_goes_where_the_client_went(recipient: str) -> None:
    hop = straight(came(X, 587))
    assert (hop.row, str(hop), hop.from_client) == ("R5", "203.0.113.9:587", True)
    assert straight(came("192.0.2.20")).row == "proxy"


@pytest.mark.parametrize("line", TABLE, ids=lambda line: f"{line.row}-{line.dialled}-{line.recipient}")
@pytest.mark.parametrize("alternate", ["alternate.example.net", "192.0.2.200:26", "[2001:db8::200]:26"])
def test_an_alternate_host_overrides_every_row(line: Row, alternate: str) -> None:
    hop = route(came(line.dialled), line.recipient, line.table, alternate)
    assert (hop.row, hop.places, hop.domain) == ("alternate", (place_of(alternate),), "")


def test_the_server_dialled_comes_first_on_the_port_dialled() -> None:
    assert route(came("192.0.2.20", 587), "u@a.example", NO_RELAY).places == (Place("192.0.2.20", 587), A2)
    assert route(came("192.0.2.20", 587), "u@[192.0.2.20]", NO_RELAY).places == (Place("192.0.2.20", 587),)


def test_what_deliver_to_says_of_its_port_is_more() -> None:
    assert route(came("192.0.2.30", 587), "u@c.example", NO_RELAY).places[0] == Place("192.0.2.30", 2525)


def test_no_place_is_tried_twice() -> None:
    twice = DomainRoute("a.example", servers=(A, B, A, Place("192.0.2.20", 26)))
    table = RouteTable({"a.example": twice})
    assert route(came("192.0.2.20"), "u@a.example", table).places == (A, B)
    assert route(came(X), "u@a.example", table).places == (A, B, Place("192.0.2.20", 26))


def test_a_transaction_is_split_by_next_hop() -> None:
    recipients = ["1@a.example", "2@a.example", "3@b.example", "4@one.example", "5@two.example", "6@one.example"]
    hops = [route(came("192.0.2.30"), recipient, NO_RELAY) for recipient in recipients]
    assert hops[0] == hops[1]
    assert hops[3] == hops[5]
    assert len(set(hops)) == 4
    relayed = {route(came("192.0.2.30"), recipient, RELAYED) for recipient in recipients}
    assert {hop.row for hop in relayed} == {"R1", "R3"}
    assert len(relayed) == 3  # one copy for the relay host, whatever the domain


def test_only_incoming_connections_are_relayed_by_the_server_dialled() -> None:
    """The table of servers may have changed between the SYN and the question whose server it is."""
    late = replace(came("192.0.2.20"), direction=Direction.OUTGOING)
    assert route(late, "u@other.example", RELAYED).row == "R7"


def test_a_domain_too_long_to_be_one_is_nobodys() -> None:
    at_most = "a." * 122 + "b.example"
    assert NO_RELAY.protected("aa" + at_most) == NO_RELAY.domains["b.example"]
    assert len("aaa" + at_most) == MAX_DOMAIN + 1
    assert NO_RELAY.protected("aaa" + at_most) is None


class TestWhatAHopCarries:
    def test_the_relays_own_security_protocol_and_credentials(self) -> None:
        table = replace(RELAYED, relay=replace(RELAY, protocol=Protocol.LMTP), from_client=True)
        hop = route(came(X), "u@other.example", table)
        assert (hop.security, hop.protocol, hop.authenticate) == (Security.REQUIRED, Protocol.LMTP, True)
        assert not hop.from_client  # the relay knows the box

    @pytest.mark.parametrize(
        ("recipient", "security"),
        [
            ("u@other.example", Security.OPPORTUNISTIC),
            ("u@Safe.example", Security.VERIFIED),
            ("u@sub.safe.example", Security.OPPORTUNISTIC),
            ("u@a.example", Security.NONE),
        ],
    )
    def test_security_is_the_recipients_domains(self, recipient: str, security: Security) -> None:
        own = {"safe.example": Security.VERIFIED, "a.example": Security.NONE}
        for alternate in ("", "192.0.2.200"):
            assert route(came(X), recipient, replace(NO_RELAY, security_for=own), alternate).security is security

    @pytest.mark.parametrize("recipient", ["u@a.example", "u@other.example", "u@[192.0.2.1]", "postmaster"])
    def test_the_clients_address(self, recipient: str) -> None:
        assert not route(came(X), recipient, NO_RELAY).from_client
        assert route(came(X), recipient, replace(NO_RELAY, from_client=True)).from_client


class TestOurOwn:
    """A DSN comes by no connection: it goes as outgoing mail does, from the box."""

    @pytest.mark.parametrize(
        ("sender", "table", "row", "goes_to"),
        [
            ("u@b.example", RELAYED, "R6", "192.0.2.30:25, MX of b.example"),
            ("u@other.example", RELAYED, "R7", "relay.example.net:587"),
            ("u@other.example", NO_RELAY, "R8", "MX of other.example"),
            ("root", RELAYED, "R7", "relay.example.net:587"),
            ("root", NO_RELAY, "R8", "nowhere"),
        ],
    )
    def test_goes(self, sender: str, table: RouteTable, row: str, goes_to: str) -> None:
        hop = route(OURSELVES, sender, replace(table, from_client=True))
        assert (hop.row, str(hop), hop.from_client) == (row, goes_to, False)


labels = st.text(string.ascii_lowercase, min_size=1, max_size=2)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
hosts = st.ip_addresses(v=4).map(str)
places = st.builds(Place, hosts, st.sampled_from([25, 2525]))


@st.composite
def tables(draw: st.DrawFn) -> RouteTable:
    entries = st.builds(
        DomainRoute,
        name=domains,
        subdomains=st.booleans(),
        servers=st.lists(places, max_size=2).map(tuple),
        deliver_to=st.lists(places, max_size=2).map(tuple),
        by_mx=st.booleans(),
        via_server=st.booleans(),
    )
    known = {entry.name: entry for entry in draw(st.lists(entries, max_size=4))}
    return RouteTable(known, relay=draw(st.sampled_from([None, RELAY])), from_client=draw(st.booleans()))


@st.composite
def origins(draw: st.DrawFn, table: RouteTable) -> Origin:
    served = tuple(draw(st.lists(st.sampled_from(sorted(table.domains)), unique=True))) if table.domains else ()
    direction = Direction.INCOMING if served else Direction.OUTGOING
    return Origin(("198.51.100.7", 1), (draw(hosts), 25), direction, "p", served)


class TestLaws:
    @given(st.data(), tables())
    def test_only_direction_server_served_domain_and_table_count(self, data: st.DataObject, table: RouteTable) -> None:
        origin, domain = data.draw(origins(table)), data.draw(domains)
        other = replace(
            origin,
            client=(data.draw(hosts), data.draw(st.integers(1, 65_535))),
            port=data.draw(labels),
            helo=data.draw(labels),
            tls=data.draw(labels),
        )
        assert route(origin, f"one@{domain}", table) == route(other, f'"t w@o"@{domain.upper()}.', table)

    @given(st.data(), tables())
    def test_an_incoming_protected_recipient_goes_to_protected_places_only(
        self, data: st.DataObject, table: RouteTable
    ) -> None:
        assume(table.domains)
        entry = data.draw(st.sampled_from(list(table.domains.values())))
        below = data.draw(st.sampled_from(["", "below."])) if entry.subdomains else ""
        origin = replace(data.draw(origins(table)), direction=Direction.INCOMING)
        hop = route(origin, f"u@{below}{entry.name}", table)
        assert hop.row == "R1"
        assert set(hop.places) <= {Place(*origin.server), *entry.servers, *entry.deliver_to}
        assert hop.domain in {"", entry.name}
        assert hop.places or hop.domain

    @given(st.data(), tables())
    def test_protected_is_what_the_directions_say(self, data: st.DataObject, table: RouteTable) -> None:
        known = Protection(Domains.of((entry.name, entry.subdomains) for entry in table.domains.values()))
        mailbox = f"u@{data.draw(domains)}"
        protected = message_direction(mailbox, known) is Direction.INCOMING
        assert (table.protected(recipient_domain(mailbox) or "") is not None) is protected
        row = route(data.draw(origins(table)), mailbox, table).row
        assert (row in {"R1", "R6"}) is protected

    @given(st.data(), tables(), st.lists(hosts, max_size=3), hosts)
    def test_an_address_literal_goes_to_that_host_and_no_other(
        self, data: st.DataObject, table: RouteTable, servers: list[str], host: str
    ) -> None:
        table = replace(table, servers=Servers.of(servers))
        origin = data.draw(origins(table))
        for address in (host, origin.server[0], *servers):
            hop = route(origin, f"u@[{address}]", table)
            known = Protection(servers=table.servers).on(origin.server[0], origin.direction)
            inside = message_direction(f"u@[{address}]", known)
            assert (hop.row in {"R1", "R6"}) is (inside is Direction.INCOMING)
            if inside is Direction.INCOMING:
                assert ([place.host for place in hop.places], hop.domain) == ([address], "")


class TestPlaces:
    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("192.0.2.20", Place("192.0.2.20")),
            ("192.0.2.20:2525", Place("192.0.2.20", 2525)),
            ("2001:DB8::20", Place("2001:db8::20")),
            ("[2001:db8::20]", Place("2001:db8::20")),
            ("[2001:db8::20]:2525", Place("2001:db8::20", 2525)),
            ("[192.0.2.20]", Place("192.0.2.20")),
            ("Mail.Example.COM.", Place("mail.example.com")),
            ("mail.example.com:1", Place("mail.example.com", 1)),
            ("bücher.example:65535", Place("xn--bcher-kva.example", 65_535)),
        ],
    )
    def test_read(self, text: str, place: Place) -> None:
        assert place_of(text) == place
        assert place_of(str(place)) == place

    def test_silence_is_the_callers_port(self) -> None:
        assert place_of("192.0.2.53", 53) == Place("192.0.2.53", 53)

    @pytest.mark.parametrize(
        "text",
        [
            *("", ":25", "mail", "mail.example.com:", "mail.example.com:0", "mail.example.com:65536", "192.0.2.256"),
            *("mail.example.com:x", "mail.example.com:٢٥", "192.0.2.20:25:25", "[2001:db8::20", "2001:db8::20]:25"),
            *("fe80::1%eth0", "[fe80::1%eth0]:25", "a b.example", "192.0.2.0/24", "[mail.example.com]:25", "1.2.3"),
        ],
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            place_of(text)
