"""`explain`: what would happen to a connection and its messages, and which key says so."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from bridge.flow import Action
from smtp_intercept.app.config import Config, handling, parse, policy, relay_rule, routes
from smtp_intercept.app.explain import Explanation, Mail, explain
from smtp_intercept.direction import Direction, Servers

BOX, RELAY, STRANGER, USER = "198.51.100.2", "192.0.2.20", "203.0.113.9", "10.0.0.9"
RELAY6, STRANGER6, NAMED = "2001:db8::20", "2001:db8:ffff::9", "192.0.2.77"

SITE = """
[bridge]
ports = ["enp1s0", "enp2s0"]
management = ["198.51.100.2/24"]
{bridge}
[intercept]
ports = [25, 587]
{intercept}
[pickup.port.enp2s0]
outgoing = "intercept"
[[pickup.rule]]
client = "10.0.0.0/8"
direction = "incoming"
action = "reject"
[[pickup.rule]]
server = "203.0.113.66"
action = "drop"
[[protected]]
domain = "example.org"
servers = ["192.0.2.10"]
[[protected]]
domain = "example.com"
servers = ["mail.example.com", "192.0.2.20", "2001:db8::/64"]
"""


def site(intercept: str = "", bridge: str = "") -> Config:
    return parse(SITE.format(intercept=intercept, bridge=bridge))


def mail(config: Config) -> Mail:
    return Mail(handling(config), routes(config), relay_rule(config))


def asked(config: Config, client: str, server: str, port: str, **more: Any) -> Explanation:
    """As the command line asks, once the DNS has said that mail.example.com is 192.0.2.77."""
    servers = Servers.of(["192.0.2.10", RELAY, "2001:db8::/64", NAMED])
    in_force = policy(config, servers, frozenset({ip_address(BOX).packed}))
    return explain(in_force, mail(config), config, client=client, server=server, port=port, **more)


@pytest.mark.parametrize(
    ("client", "server", "port", "direction", "action", "decided_by", "handler", "next_hop"),
    [
        (
            *(STRANGER, RELAY, "enp1s0", "incoming", "intercept", "pickup.incoming", "proxy"),
            "the server dialled, 192.0.2.20 port 25, from the client's own address and port",
        ),
        (
            *(RELAY, STRANGER, "enp2s0", "outgoing", "intercept", "pickup.port.enp2s0.outgoing", "proxy"),
            "the server dialled, 203.0.113.9 port 25, from the client's own address and port",
        ),
        (
            *(RELAY6, STRANGER6, "enp1s0", "outgoing", "pass", "pickup.outgoing", None),
            "the server dialled, 2001:db8:ffff::9 port 25, bridged untouched",
        ),
        (*(STRANGER, BOX, "enp1s0", "local", "pass", "pickup.local", None), "the box itself"),
        (
            *(USER, RELAY, "enp1s0", "incoming", "reject", "pickup.rule[0]", None),
            "none: the client is refused with a RST in the name of 192.0.2.20 port 25",
        ),
        (
            *(STRANGER, "203.0.113.66", "enp2s0", "outgoing", "drop", "pickup.rule[1]", None),
            "none: the client hears nothing",
        ),
    ],
)
def test_connections(
    client: str,
    server: str,
    port: str,
    direction: str,
    action: str,
    decided_by: str,
    handler: str | None,
    next_hop: str,
) -> None:
    told = asked(site(), client, server, port)
    assert (told.direction.value, told.action.value, told.decided_by) == (direction, action, decided_by)
    assert (told.handler, told.next_hop) == (handler, next_hop)


@pytest.mark.parametrize(
    ("server", "because"),
    [
        (RELAY, "192.0.2.20 is a protected server (protected[1].servers[1], example.com)"),
        (RELAY6, "2001:db8::20 is a protected server (protected[1].servers[2], example.com)"),
        ("192.0.2.10", "192.0.2.10 is a protected server (protected[0].servers[0], example.org)"),
        (NAMED, "192.0.2.77 is a protected server (by a name that the DNS has answered)"),
        ("192.0.2.99", "192.0.2.99 is not a protected server"),
        (BOX, "198.51.100.2 is an address of the box itself"),
    ],
)
def test_the_reason_of_the_direction(server: str, because: str) -> None:
    client = STRANGER6 if ":" in server else STRANGER
    assert asked(site(), client, server, "enp1s0").because == because


def test_not_hidden_the_box_speaks_from_its_own_address() -> None:
    told = asked(site("hidden = false"), STRANGER, RELAY, "enp1s0")
    assert told.next_hop == "the server dialled, 192.0.2.20 port 25, from the box's own address 198.51.100.2"


def test_not_hidden_on_an_adopted_bridge_the_address_is_not_ours_to_know() -> None:
    config = parse(
        '[bridge]\nports = ["enp1s0", "enp2s0"]\nadopt = true\nnamespace = "host"\n[intercept]\nhidden = false\n'
    )
    told = explain(
        policy(config, Servers.of([RELAY]), frozenset()),
        mail(config),
        config,
        client=STRANGER,
        server=RELAY,
        port="enp1s0",
    )
    assert told.next_hop == "the server dialled, 192.0.2.20 port 25, from the box's own address"


def test_another_mail_port_and_a_port_that_carries_no_mail() -> None:
    assert asked(site(), STRANGER, RELAY, "enp1s0", server_port=587).action is Action.INTERCEPT
    told = asked(site(), STRANGER, RELAY, "enp1s0", server_port=443)
    assert (told.action, told.decided_by, told.handler) == (Action.PASS, "intercept.ports", None)
    assert told.next_hop == "the server dialled, 192.0.2.20 port 443, bridged untouched"


def test_one_message_can_be_both() -> None:
    told = asked(
        site(),
        STRANGER,
        RELAY,
        "enp1s0",
        recipients=["a@example.com", "b@elsewhere.example", '"x@y"@EXAMPLE.org.', "root"],
    )
    assert [(each.mailbox, each.domain, each.direction) for each in told.recipients] == [
        ("a@example.com", "example.com", Direction.INCOMING),
        ("b@elsewhere.example", "elsewhere.example", Direction.OUTGOING),
        ('"x@y"@EXAMPLE.org.', "example.org", Direction.INCOMING),
        ("root", None, Direction.INCOMING),
    ]


@pytest.mark.parametrize(
    ("client", "server", "reason"),
    [
        ("mail.example.com", RELAY, "'mail.example.com' does not appear to be an IPv4 or IPv6 address"),
        (STRANGER, "", "'' does not appear to be"),
        (STRANGER, RELAY6, "203.0.113.9 and 2001:db8::20 are not of one address family"),
    ],
)
def test_what_cannot_be_explained(client: str, server: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        asked(site(), client, server, "enp1s0")


def test_for_people() -> None:
    told = asked(site(), STRANGER, RELAY, "enp1s0", recipients=["a@example.com", "b@elsewhere.example", "root"])
    assert told.as_text().splitlines() == [
        "connection  203.0.113.9 → 192.0.2.20 port 25, arriving on enp1s0",
        "direction   incoming: 192.0.2.20 is a protected server (protected[1].servers[1], example.com)",
        "action      intercept, decided by pickup.incoming",
        "handler     proxy, decided by intercept.incoming",
        "next hop    the server dialled, 192.0.2.20 port 25, from the client's own address and port",
        "recipient   <a@example.com>: incoming: example.com is protected; proxy: 192.0.2.20:25",
        "recipient   <b@elsewhere.example>: outgoing: elsewhere.example is not protected; proxy: 192.0.2.20:25",
        "recipient   <root>: incoming: it has no domain, and the server dialled is protected; proxy: 192.0.2.20:25",
    ]


class TestServersWithoutADomain:
    """192.0.2.20 is protected and has no domain: its mail goes by its address."""

    LINES = """
[bridge]
ports = ["enp1s0", "enp2s0"]
[intercept]
incoming = "{0}"
outgoing = "{0}"
[pickup]
outgoing = "intercept"
[[protected]]
servers = ["192.0.2.20", "2001:db8::/64"]
"""
    RCPT = ("user@[192.0.2.20]", "user@[IPv6:2001:DB8::20]", "user@[203.0.113.9]", "postmaster")

    def told(self, handler: str, server: str = RELAY, port: str = "enp1s0") -> Explanation:
        config = parse(self.LINES.format(handler))
        in_force = policy(config, Servers.of([RELAY, "2001:db8::/64"]), frozenset())
        client = STRANGER6 if ":" in server else STRANGER
        served = ("[192.0.2.20]",) if server != STRANGER else ()
        return explain(
            in_force, mail(config), config, client=client, server=server, port=port, served=served, recipients=self.RCPT
        )

    def texts(self, told: Explanation) -> list[str]:
        return [line.partition("  ")[2].lstrip() for line in told.as_text().splitlines()]

    def test_through_the_proxy(self) -> None:
        told = self.texts(self.told("proxy"))
        assert told[1] == "incoming: 192.0.2.20 is a protected server (protected[0].servers[0], no domain)"
        assert told[5:] == [
            "<user@[192.0.2.20]>: incoming: 192.0.2.20 is a protected server; proxy: 192.0.2.20:25",
            "<user@[IPv6:2001:DB8::20]>: incoming: 2001:db8::20 is a protected server; proxy: 192.0.2.20:25",
            "<user@[203.0.113.9]>: outgoing: 203.0.113.9 is not a protected server; proxy: 192.0.2.20:25",
            "<postmaster>: incoming: it has no domain, and the server dialled is protected; proxy: 192.0.2.20:25",
        ]

    def test_through_the_mta(self) -> None:
        denied = "refused: 550 5.7.1 relay access denied"
        assert self.texts(self.told("mta"))[5:] == [
            "<user@[192.0.2.20]>: incoming: 192.0.2.20 is a protected server; R1: 192.0.2.20:25",
            f"<user@[IPv6:2001:DB8::20]>: incoming: 2001:db8::20 is a protected server; {denied}",
            f"<user@[203.0.113.9]>: outgoing: 203.0.113.9 is not a protected server; {denied}",
            "<postmaster>: incoming: it has no domain, and the server dialled is protected; R1: 192.0.2.20:25",
        ]
        assert self.texts(self.told("mta", "2001:db8::20"))[6].endswith("R1: [2001:db8::20]:25")

    def test_on_an_outgoing_connection(self) -> None:
        told = self.told("mta", STRANGER)
        assert self.texts(told)[5].endswith("192.0.2.20 is a protected server; R6: 192.0.2.20:25")
        assert self.texts(told)[8] == "<postmaster>: outgoing: it has no domain; refused: 550 5.7.1 relay access denied"
        assert json.loads(json.dumps(told.as_json()))["recipients"][0] == {
            "address": "user@[192.0.2.20]",
            "domain": "[192.0.2.20]",
            "direction": "incoming",
            "row": "R6",
            "next_hop": "192.0.2.20:25",
            "refusal": None,
        }


def test_a_tagged_connection_is_told_with_its_vlan() -> None:
    told = asked(site(), STRANGER, RELAY, "enp1s0", vlan=10)
    assert told.as_text().splitlines()[0].endswith("arriving on enp1s0 in VLAN 10")
    assert told.as_json()["vlan"] == 10


def test_for_machines() -> None:
    told = asked(site(), RELAY, STRANGER, "enp1s0", recipients=["a@example.com"])
    assert json.loads(json.dumps(told.as_json())) == {
        "client": "192.0.2.20",
        "server": {"address": "203.0.113.9", "port": 25},
        "port": "enp1s0",
        "vlan": None,
        "direction": "outgoing",
        "because": "203.0.113.9 is not a protected server",
        "action": "pass",
        "decided_by": "pickup.outgoing",
        "handler": None,
        "handled_by": None,
        "next_hop": "the server dialled, 203.0.113.9 port 25, bridged untouched",
        "recipients": [
            {
                "address": "a@example.com",
                "domain": "example.com",
                "direction": "incoming",
                "row": None,
                "next_hop": None,
                "refusal": None,
            }
        ],
    }


class TestMta:
    """Each recipient has its own next hop, or is refused."""

    MIXED = (
        "a@example.com",
        "@relay.example:b@elsewhere.example",
        "c@sub.example.org",
        "victim%else.example@example.com",
    )

    def told(self, client: str, server: str, port: str, more: str = "", **asking: Any) -> list[str]:
        config = site('incoming = "mta"\noutgoing = "mta"\n' + more)
        explanation = asked(config, client, server, port, recipients=self.MIXED, **asking)
        assert explanation.handler == "mta"
        assert explanation.next_hop.startswith("each recipient's own")
        return [line.partition("  ")[2].lstrip() for line in explanation.as_text().splitlines() if "recipient " in line]

    def test_incoming_from_a_stranger(self) -> None:
        assert self.told(STRANGER, RELAY, "enp1s0", served=("example.com",)) == [
            "<a@example.com>: incoming: example.com is protected; R1: 192.0.2.20:25, mail.example.com:25",
            "<@relay.example:b@elsewhere.example>: outgoing: elsewhere.example is not protected; "
            "refused: 550 5.7.1 relay access denied",
            "<c@sub.example.org>: outgoing: sub.example.org is not protected; refused: 550 5.7.1 relay access denied",
            "<victim%else.example@example.com>: incoming: example.com is protected; "
            "refused: 550 5.7.1 relay access denied",
        ]

    def test_outgoing_from_a_listed_client(self) -> None:
        listed = f'[mta]\nrelay_from = ["{RELAY}"]\nrelay_from_ports = ["enp2s0"]\n'
        assert self.told(RELAY, STRANGER, "enp2s0", listed) == [
            "<a@example.com>: incoming: example.com is protected; R6: mail.example.com:25, 192.0.2.20:25",
            "<@relay.example:b@elsewhere.example>: outgoing: elsewhere.example is not protected; "
            "R8: MX of elsewhere.example",
            "<c@sub.example.org>: outgoing: sub.example.org is not protected; R8: MX of sub.example.org",
            "<victim%else.example@example.com>: incoming: example.com is protected; "
            "R6: mail.example.com:25, 192.0.2.20:25",
        ]

    @pytest.mark.parametrize(
        ("lines", "server", "port", "served", "handler", "handled_by"),
        [
            ("", RELAY, "enp1s0", ("example.com",), "proxy", "intercept.incoming"),
            ('incoming = "mta"', RELAY, "enp1s0", ("example.com",), "mta", "intercept.incoming"),
            ('[intercept.port.enp1s0]\nincoming = "mta"', RELAY, "enp1s0", (), "mta", "intercept.port.enp1s0.incoming"),
            ('[intercept.port.enp1s0]\nincoming = "mta"', RELAY, "enp2s0", (), "proxy", "intercept.incoming"),
            (
                '[intercept.port.enp2s0]\noutgoing = "mta"',
                STRANGER,
                "enp2s0",
                (),
                "mta",
                "intercept.port.enp2s0.outgoing",
            ),
        ],
    )
    def test_the_key_that_chose_the_handler(
        self, lines: str, server: str, port: str, served: tuple[str, ...], handler: str, handled_by: str
    ) -> None:
        told = asked(site(lines), RELAY if server == STRANGER else STRANGER, server, port, served=served)
        assert (told.handler, told.handled_by) == (handler, handled_by)

    def test_the_proxys_outgoing_row(self) -> None:
        (only,) = asked(site(), RELAY, STRANGER, "enp2s0", recipients=["a@example.com"]).recipients
        assert (only.row, only.next_hop) == ("R5", "203.0.113.9:25")
