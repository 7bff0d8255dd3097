"""The two levels of direction, in the manual's sentences, in tables and as laws."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp_intercept.direction import (
    MAX_DOMAIN,
    MAX_LABEL,
    TAGS,
    Direction,
    Domains,
    Network,
    Protection,
    Servers,
    Serving,
    connection_direction,
    direction_of_tag,
    literal_address,
    message_direction,
    normal_domain,
    recipient_domain,
)

INCOMING, OUTGOING, LOCAL = Direction.INCOMING, Direction.OUTGOING, Direction.LOCAL
NOBODY: frozenset[bytes] = frozenset()


def packed(address: str) -> bytes:
    return ip_address(address).packed


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(addresses)
    return ip_network((address, draw(st.integers(0, address.max_prefixlen))), strict=False)


class TestConnections:
    SERVERS = Servers.of(["192.168.0.1", "198.51.100.0/24", "2001:db8::/64", "2001:db8:1::25"])

    def test_protected_192_168_0_1_all_connections_to_it_are_incoming(self) -> None:
        assert connection_direction(packed("192.168.0.1"), NOBODY, Servers.of(["192.168.0.1"])) is INCOMING

    def test_10_0_0_1_is_not_protected_all_connections_to_it_are_outgoing_even_from_outside(self) -> None:
        assert connection_direction(packed("10.0.0.1"), NOBODY, Servers.of(["192.168.0.1"])) is OUTGOING

    @pytest.mark.parametrize(
        ("server", "direction"),
        [
            ("192.168.0.0", OUTGOING),
            ("192.168.0.2", OUTGOING),
            ("198.51.99.255", OUTGOING),
            ("198.51.100.0", INCOMING),
            ("198.51.100.255", INCOMING),
            ("198.51.101.0", OUTGOING),
            ("2001:db8::", INCOMING),
            ("2001:db8::ffff:ffff:ffff:ffff", INCOMING),
            ("2001:db8:0:1::", OUTGOING),
            ("2001:db8:1::25", INCOMING),
            ("2001:db8:1::26", OUTGOING),
            ("::ffff:192.168.0.1", OUTGOING),  # on the wire this is another address
        ],
    )
    def test_edges_of_addresses_and_networks(self, server: str, direction: Direction) -> None:
        assert connection_direction(packed(server), NOBODY, self.SERVERS) is direction

    def test_the_box_itself_comes_first(self) -> None:
        own = frozenset({packed("198.51.100.2")})
        assert connection_direction(packed("198.51.100.2"), own, self.SERVERS) is LOCAL
        assert connection_direction(packed("198.51.100.3"), own, self.SERVERS) is INCOMING

    def test_nothing_protected_everything_is_outgoing(self) -> None:
        assert connection_direction(packed("192.168.0.1"), NOBODY, Servers()) is OUTGOING

    def test_a_whole_family_may_be_protected(self) -> None:
        servers = Servers.of(["0.0.0.0/0"])
        assert connection_direction(packed("203.0.113.9"), NOBODY, servers) is INCOMING
        assert connection_direction(packed("2001:db8::9"), NOBODY, servers) is OUTGOING

    @pytest.mark.parametrize("item", ["", "mail.example.com", "192.0.2.1/24", "192.0.2.256", "fe80::1%eth0", "1.2.3"])
    def test_what_is_neither_address_nor_network_is_refused(self, item: str) -> None:
        with pytest.raises(ValueError, match=r"does not appear|host bits|zone"):
            Servers.of([item])

    @given(st.lists(st.one_of(addresses, networks()), max_size=20), addresses)
    def test_holds_is_what_the_ipaddress_module_says(
        self, items: list[IPv4Address | IPv6Address | IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
    ) -> None:
        servers = Servers.of(items)
        for probe in (address, *(ip_network(item)[0] for item in items), *(ip_network(item)[-1] for item in items)):
            expected = any(probe in ip_network(item) for item in items)
            assert servers.holds(probe.packed) is expected
            assert any(Network.of(item).holds(probe.packed) for item in items) is expected

    @given(st.lists(networks(), max_size=20), st.randoms())
    def test_a_table_does_not_depend_on_the_order_of_its_items(
        self, items: list[IPv4Network | IPv6Network], random: Random
    ) -> None:
        shuffled = sorted(items, key=lambda _: random.random())
        assert Servers.of(items) == Servers.of(shuffled + items)


class TestServing:
    def test_whose_server_it_is(self) -> None:
        serving = Serving.of(
            [
                ("a.example", "192.0.2.0/24"),
                ("b.example", "192.0.2.20"),
                ("c.example", "192.0.2.20"),
                ("b.example", "192.0.2.20"),
                ("d.example", "2001:db8::/64"),
            ]
        )
        assert serving.by(packed("192.0.2.20")) == ("b.example", "c.example", "a.example")
        assert serving.by(packed("192.0.2.21")) == ("a.example",)
        assert serving.by(packed("2001:db8::1")) == ("d.example",)
        assert serving.by(packed("192.0.3.1")) == serving.by(packed("2001:db8:0:1::")) == ()

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(addresses, networks())), max_size=20), addresses)
    def test_somebodys_server_is_a_protected_one(
        self,
        items: list[tuple[str, IPv4Address | IPv6Address | IPv4Network | IPv6Network]],
        address: IPv4Address | IPv6Address,
    ) -> None:
        serving, servers = Serving.of(items), Servers.of(item for _, item in items)
        for probe in (address, *(ip_network(item)[0] for _, item in items)):
            assert bool(serving.by(probe.packed)) is servers.holds(probe.packed)
            assert set(serving.by(probe.packed)) == {name for name, item in items if probe in ip_network(item)}


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ("[ipv6:::1]", "::1"),
        ("[IPv6:::FFFF:192.0.2.1]", "192.0.2.1"),  # as it is to whoever dials it
        ("[IPv6:::ffff:c000:201]", "192.0.2.1"),
        ("[IPv6:::192.0.2.1]", "::c000:201"),
        *((text, None) for text in ("[192.0.2.01]", "[0300.0.2.1]", "[192.0.513]", "[192.0.2.1.]", "[ 192.0.2.1]")),
        *((text, None) for text in ("[IPv6:192.0.2.1]", "[IPv4:192.0.2.1]", "[IPv6:[2001:db8::1]]", "[IPv6:]")),
        *((text, None) for text in ("192.0.2.1", "[192.0.2]", "[2001:db8::1]", "[IPv6:fe80::1%eth0]", "[X:1]", "[]")),
        *((text, None) for text in ("[192.0.2.1", "[192.0.2.1].example.com", "[192.0.2.1]]", "")),
    ],
)
def test_address_literals(domain: str, address: str | None) -> None:
    found = literal_address(domain)
    assert (str(found) if found else None) == address


def test_tags_are_two_and_come_back() -> None:
    assert {tag: direction_of_tag(tag) for tag in range(16)} == {
        **dict.fromkeys(range(16)),
        1: INCOMING,
        2: OUTGOING,
    }
    assert [direction_of_tag(tag) for tag in TAGS.values()] == list(TAGS)


class TestRecipientDomain:
    @pytest.mark.parametrize(
        ("mailbox", "domain"),
        [
            ("user@example.com", "example.com"),
            ("User@EXAMPLE.Com", "example.com"),
            ("user@example.com.", "example.com"),
            ("user@mail.sub.example.com", "mail.sub.example.com"),
            # quoted local parts
            ('"a@b"@example.com', "example.com"),
            (r'"a\"@b"@example.com', "example.com"),
            (r'"a\\"@example.com', "example.com"),
            ('"@"@"@"@example.com', "example.com"),
            ('"a@b.example"', None),
            ('"a@b.example', None),  # unterminated: the server will refuse it
            (r'"a@b.example\"', None),
            ("a@b@example.com", "example.com"),
            # source routes, RFC 5321 §4.1.2
            ("@relay.example:user@example.com", "example.com"),
            ("@a.example,@b.example:user@example.com", "example.com"),
            ("@[IPv6:2001:db8::1],@b.example:user@example.com", "example.com"),
            ('@a.example:"x@y:z"@example.com', "example.com"),
            ("@a.example:postmaster", None),
            # address literals
            ("user@[192.0.2.20]", "[192.0.2.20]"),
            ("user@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
            # without a domain
            ("postmaster", None),
            ("", None),
            ("@", None),
            ("user@", None),
            ("user@.", None),
            # internationalised, RFC 6531
            ("user@bücher.example", "xn--bcher-kva.example"),
            ("user@BÜCHER.example.", "xn--bcher-kva.example"),
            ("user@bu\u0308cher.example", "xn--bcher-kva.example"),  # decomposed
            ("user@XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("user@straße.example", "xn--strae-oqa.example"),  # IDNA 2008: ß is not ss
            ("user@例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("üser@example.com", "example.com"),
            ("user@exam\uff50le.com", "example.com"),  # full-width p
            ("user@\u212aelvin.example", "kelvin.example"),
        ],
    )
    def test_is_what_comes_after_the_last_at_outside_quotes(self, mailbox: str, domain: str | None) -> None:
        assert recipient_domain(mailbox) == domain

    @given(st.text(st.characters(), max_size=80))
    @example("a@\udc80.example")
    def test_any_text_has_a_domain_or_none(self, mailbox: str) -> None:
        domain = recipient_domain(mailbox)
        assert domain is None or (domain and domain == domain.lower())

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    def test_the_normal_spelling_is_a_fixed_point(self, domain: str) -> None:
        once = normal_domain(domain.strip("."))
        assert normal_domain(once) == once.removesuffix(".")

    @pytest.mark.parametrize("unit", ['"', '"\\', '\\"', "@", "@[", "@[]", "a:", "[]", "\u00e9", "\u00e9."])
    @pytest.mark.timeout(60)
    def test_a_long_mailbox_costs_one_pass(self, unit: str) -> None:
        for mailbox in (unit * 200_000, "@" + unit * 200_000, "a@" + unit * 200_000):
            message_direction(mailbox, Protection(Domains.of([("example.com", True)])))


class TestMessages:
    DOMAINS = Protection(Domains.of([("example.com", False), ("Example.ORG.", True), ("bücher.example", True)]))

    @pytest.mark.parametrize(
        ("mailbox", "direction"),
        [
            ("user@example.com", INCOMING),
            ("user@EXAMPLE.COM.", INCOMING),
            ("user@sub.example.com", OUTGOING),
            ("user@notexample.com", OUTGOING),
            ("user@example.org", INCOMING),
            ("user@sub.example.org", INCOMING),
            ("user@a.b.c.example.org", INCOMING),
            ("user@notexample.org", OUTGOING),
            ("user@example.org.evil.example", OUTGOING),
            ("user@xn--bcher-kva.example", INCOMING),
            ("user@shop.BÜCHER.example", INCOMING),
            ('"user@example.com"@elsewhere.example', OUTGOING),
            ("@elsewhere.example:user@example.com", INCOMING),
            ("@example.com:user@elsewhere.example", OUTGOING),
            ("user%example.com@elsewhere.example", OUTGOING),
            ("user@[192.0.2.20]", OUTGOING),
            ("postmaster", OUTGOING),
            ("", OUTGOING),
        ],
    )
    def test_direction_is_the_recipient_domains(self, mailbox: str, direction: Direction) -> None:
        assert message_direction(mailbox, self.DOMAINS) is direction

    def test_no_protected_domain_no_incoming_message(self) -> None:
        assert message_direction("user@example.com", Protection()) is OUTGOING

    def test_a_domain_longer_than_255_octets_is_nobodys(self) -> None:
        room = MAX_DOMAIN - len("example.org")
        longest = ("a." * (room // 2 + 1))[-room:] + "example.org"
        assert len(longest) == MAX_DOMAIN
        assert message_direction(f"user@{longest}", self.DOMAINS) is INCOMING
        assert message_direction(f"user@a{longest}", self.DOMAINS) is OUTGOING

    def test_a_label_longer_than_63_is_not_converted(self) -> None:
        assert normal_domain("é" * MAX_LABEL + ".example").startswith("xn--")
        assert normal_domain("é" * (MAX_LABEL + 1) + ".example") == "é" * (MAX_LABEL + 1) + ".example"


SEED = Protection(
    Domains.of([("example.com", True)]),
    Servers.of(["192.0.2.20", "198.51.100.0/28", "2001:db8::20", "2001:db8:1::/64"]),
)


class TestServersWithoutADomain:
    """ "The message is outgoing if the domain is not protected, unless the email is incoming and the email server has
    no domain name and is accessed by IP address only." """

    @pytest.mark.parametrize(
        ("mailbox", "direction"),
        [
            ("user@[192.0.2.20]", INCOMING),
            ("user@[192.0.2.21]", OUTGOING),
            ("user@[198.51.100.0]", INCOMING),
            ("user@[198.51.100.15]", INCOMING),
            ("user@[198.51.100.16]", OUTGOING),
            ("user@[IPv6:2001:db8::20]", INCOMING),
            ("user@[ipv6:2001:DB8:0:0::20]", INCOMING),
            ("user@[IPv6:2001:db8:1::7]", INCOMING),
            ("user@[IPv6:2001:db8:2::7]", OUTGOING),
            ("user@[IPv6:::ffff:192.0.2.20]", INCOMING),  # goes to 192.0.2.20 as well
            ('"a@b"@[192.0.2.20]', INCOMING),
            ("@elsewhere.example,@[203.0.113.9]:user@[192.0.2.20]", INCOMING),
            ("@[192.0.2.20]:user@[203.0.113.9]", OUTGOING),
            ("@[192.0.2.20]:user@elsewhere.example", OUTGOING),
            ('"user@[192.0.2.20]"@elsewhere.example', OUTGOING),
            ("user%[192.0.2.20]@elsewhere.example", OUTGOING),
            # what one server reads as an address and another does not is nobody's
            ("user@192.0.2.20", OUTGOING),
            ("user@[192.0.2.020]", OUTGOING),
            ("user@[192.0.532]", OUTGOING),
            ("user@[2001:db8::20]", OUTGOING),
            ("user@[IPv6:2001:db8::20%eth0]", OUTGOING),
            ("user@[IPv6:::192.0.2.20]", OUTGOING),
            ("user@[IPv6:64:ff9b::192.0.2.20]", OUTGOING),
            ("user@[SMTP:192.0.2.20]", OUTGOING),
            ("user@[192.0.2.20", OUTGOING),
            ("user@192.0.2.20]", OUTGOING),
            ("user@[192.0.2.20].elsewhere.example", OUTGOING),
            ("user@[192.0.2.20]elsewhere.example", OUTGOING),
            ("user@[192.0.2.20]@elsewhere.example", OUTGOING),
        ],
    )
    @pytest.mark.parametrize(
        ("server", "way"), [("198.51.100.1", INCOMING), ("2001:db8::20", INCOMING), ("203.0.113.9", OUTGOING)]
    )
    def test_their_address_literals_are_incoming_whatever_was_dialled(
        self, mailbox: str, direction: Direction, server: str, way: Direction
    ) -> None:
        assert message_direction(mailbox, SEED.on(server, way)) is direction

    def test_a_server_known_by_its_name_is_protected_on_a_connection_to_it(self) -> None:
        assert message_direction("user@[192.0.2.77]", SEED.on("192.0.2.77", INCOMING)) is INCOMING
        assert message_direction("user@[192.0.2.77]", SEED.on("192.0.2.20", INCOMING)) is OUTGOING
        assert message_direction("user@[192.0.2.77]", SEED.on("192.0.2.77", OUTGOING)) is OUTGOING
        assert message_direction("user@[IPv6:fe80::7]", SEED.on("fe80::8%smtp0", INCOMING)) is OUTGOING

    @pytest.mark.parametrize("mailbox", ["postmaster", "Postmaster", "@a.example:postmaster", "root", '"postmaster"'])
    def test_without_a_domain_it_is_the_server_dialleds(self, mailbox: str) -> None:
        assert message_direction(mailbox, SEED) is OUTGOING
        assert message_direction(mailbox, SEED.on("192.0.2.20", INCOMING)) is INCOMING
        assert message_direction(mailbox, SEED.on("203.0.113.9", OUTGOING)) is OUTGOING

    @pytest.mark.parametrize(
        "mailbox", ["victim@", "victim@.", '"victim@elsewhere.example', '"victim@elsewhere.example"']
    )
    def test_a_domain_that_cannot_be_read_is_not_the_server_dialleds(self, mailbox: str) -> None:
        assert message_direction(mailbox, SEED.on("192.0.2.20", INCOMING)) is OUTGOING

    @given(st.lists(st.one_of(addresses, networks()), max_size=5), addresses, addresses, st.sampled_from(Direction))
    def test_the_law(
        self,
        items: list[IPv4Address | IPv6Address | IPv4Network | IPv6Network],
        server: IPv4Address | IPv6Address,
        address: IPv4Address | IPv6Address,
        way: Direction,
    ) -> None:
        """Incoming is a literal if, and only if, it is a listed server's or the protected one's that was dialled."""
        servers = Servers.of(items)
        protection = Protection(Domains.of([("example.com", True)]), servers).on(str(server), way)
        for probe in (address, server, *(ip_network(item)[-1] for item in items)):
            meant = getattr(probe, "ipv4_mapped", None) or probe
            expected = servers.holds(meant.packed) or (way is INCOMING and meant == server)
            literal = f"[{probe}]" if probe.version == 4 else f"[IPv6:{probe}]"
            assert (message_direction(f"user@{literal}", protection) is INCOMING) is expected
            assert (message_direction(f"user@{literal.upper()}", protection) is INCOMING) is expected


@given(addresses, addresses, st.lists(networks(), max_size=5))
def test_the_direction_depends_on_the_destination_only(
    client: IPv4Address | IPv6Address, server: IPv4Address | IPv6Address, items: list[IPv4Network | IPv6Network]
) -> None:
    """Whoever the client is, protected or not: the function is not even told."""
    servers = Servers.of([*items, client])
    expected = INCOMING if servers.holds(server.packed) else OUTGOING
    assert connection_direction(server.packed, NOBODY, servers) is expected
    assert connection_direction(server.packed, frozenset({client.packed}), servers) is (
        LOCAL if client == server else expected
    )
