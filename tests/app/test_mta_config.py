"""The MTA's keys: their defaults, every mistake with its line and remedy, the warnings, and the tables they make."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from bridge.lane import LEARNED_S, LEARNED_UNTIL_BANNER_S
from hwprofiles.match import named
from hwprofiles.shelf import profiles
from smtp_intercept.app.config import (
    Config,
    ConfigErrors,
    effective,
    parse,
    relay_rule,
    resolvers,
    routes,
    sample,
    warnings,
)
from smtp_intercept.app.fields import Queue, Source, VerifyFailure
from smtp_intercept.app.mistakes import MistakeError
from smtp_intercept.app.password import MAX_PASSWORD_BYTES, relay_password
from smtp_intercept.app.wanted import wanted
from smtp_intercept.direction import Domains, Protection, Servers
from smtp_intercept.mta.nexthop import NextHop, Place, Protocol, Security
from smtp_intercept.mta.relaying import RelayRule
from smtp_intercept.mta.routing import DomainRoute

LEAST = '[bridge]\nports = ["enp1s0", "enp2s0"]\n'
BOX = LEAST + 'management = ["198.51.100.2/24"]\n'
SERVED = '[[protected]]\ndomain = "a.example"\nservers = ["192.0.2.20"]\n'
NETWORKS = '[[protected]]\ndomain = "a.example"\nservers = ["192.0.2.0/24", "2001:db8::/64"]\n'
RELAY = '[relay]\nhost = "relay.example.net"\n'


def told(text: str) -> list[str]:
    """The mistakes in a text: ``LINE: KEY: REASON; REMEDY``."""
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("x"))
    return [str(error).removeprefix("x:") for error in caught.value.errors]


def test_the_defaults_are_the_documented_ones() -> None:
    config = parse(LEAST)
    assert config.mta.model_dump() == {
        "hostname": None,
        "spool": PurePosixPath("/var/spool/tollbridge"),
        "queue": Queue.OWN,
        "source": Source.BOX,
        "relay_from": (),
        "relay_from_ports": (),
        "verify_recipients": True,
        "verify_failure": VerifyFailure.ACCEPT,
        "certificate": None,
        "key": None,
        "tls": Security.OPPORTUNISTIC,
        "tls_for": {},
        "size_bytes": 50 * 1024 * 1024,
        "recipients": 1_000,
        "notices_per_hour": 100,
        "hops": 100,
        "reserve_bytes": 64 * 1024 * 1024,
        "connections": 100,
        "connections_per_host": 10,
        "messages_per_connection": 100,
        "retry_s": 27 * 60,
        "retry_most_s": 4 * 3600,
        "delay_notice_s": 4 * 3600,
        "give_up_s": 5 * 86_400,
        "dsn_give_up_s": 5 * 86_400,
    }
    assert config.relay is None
    assert config.dns.model_dump() == {"resolvers": (), "timeout_s": 5, "list": {}}
    least = parse(LEAST + RELAY).relay
    assert least is not None
    assert least.model_dump() == {
        "host": "relay.example.net",
        "port": 25,
        "protocol": Protocol.SMTP,
        "tls": Security.OPPORTUNISTIC,
        "username": None,
        "password_file": None,
    }
    (entry,) = parse(LEAST + SERVED).protected
    assert (entry.handler, entry.deliver_via_server, entry.deliver_to) == (None, False, ())


def test_the_samples_figures_are_the_defaults() -> None:
    own = {"hostname", "relay_from", "relay_from_ports", "certificate", "key", "tls_for"}
    assert parse(sample()).mta.model_dump(exclude=own) == parse(LEAST).mta.model_dump(exclude=own)


def test_what_is_not_set_is_named() -> None:
    text = effective(parse(LEAST))
    for key in ("mta.hostname", "mta.certificate", "mta.key", "[relay]"):
        assert f"# {key} is not set\n" in text
    assert "# relay.username is not set\n" in effective(parse(LEAST + RELAY))


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        # handlers by port
        ("[intercept]\nincoming = 'queue'", "4: intercept.incoming: 'queue' is not one of proxy, mta; choose one"),
        (
            "[intercept.port.eth9]\nincoming = 'mta'",
            "3: intercept.port.eth9: is not a port of the bridge; name one of bridge.ports: enp1s0, enp2s0",
        ),
        (
            "[intercept.port.enp1s0]\noutgoing = 'pass'",
            "4: intercept.port.enp1s0.outgoing: 'pass' is not one of proxy, mta",
        ),
        (
            "[intercept.port.enp1s0]\nincomming = 'mta'",
            "4: intercept.port.enp1s0.incomming: is not a known key; did you mean incoming?",
        ),
        # protected domains
        ("[[protected]]\ndomain='a.b'\nhandler = 'x'", "5: protected[0].handler: 'x' is not one of proxy, mta"),
        (
            "[[protected]]\ndomain='a.b'\ndeliver_via_server = 'yes'",
            "5: protected[0].deliver_via_server: 'yes' is not true or false",
        ),
        (
            "[[protected]]\ndomain='a.b'\ndeliver_to = ['192.0.2.0/24']",
            '5: protected[0].deliver_to[0]: \'192.0.2.0/24\' is not a name; write it like "192.0.2.20", "[2001:db8',
        ),
        (
            "[[protected]]\ndomain='a.b'\ndeliver_to = ['m.a.b:70000']",
            "5: protected[0].deliver_to[0]: '70000' is not a port, 1 to 65535",
        ),
        (
            "[[protected]]\ndomain='a.b'\ndeliver_to = ['m.a.b', 'M.A.B:25']",
            "5: protected[0].deliver_to[1]: 'm.a.b:25' is named twice; name each once, in the order in which to try",
        ),
        (
            "[[protected]]\ndomain='a.b'\ndeliver_to = [\n'MX',\n'm.a.b']",
            "5: protected[0].deliver_to[0]: 'mx' stands before other hosts; put it last: nothing is tried after it",
        ),
        (
            "[[protected]]\ndomain='a.b'\nservers = ['192.0.2.1']\nhandler = 'mta'\n"
            "[[protected]]\ndomain='c.d'\nservers = ['192.0.2.1']\nhandler = 'proxy'",
            "10: protected[1].handler: 'proxy' differs from that of a.b, whose server 192.0.2.1 is too; give both the",
        ),
        # nowhere to deliver to
        *(
            (
                f"[intercept]\noutgoing = 'mta'\n[[protected]]\ndomain = 'a.example'\nservers = {servers}\n",
                "5: protected[0].deliver_to: is needed: outgoing mail for a.example has no server that is an addr",
            )
            for servers in ("[]", "['192.0.2.0/24']", "['192.0.2.0/31', '2001:db8::/64']")
        ),
        (
            "[intercept.port.enp2s0]\noutgoing = 'mta'\n" + NETWORKS,
            "5: protected[0].deliver_to: is needed: outgoing mail for a.example",
        ),
        # [mta]
        ("[mta]\nhostname = 'a b'", "4: mta.hostname: 'a b' is not a name; write it like \"example.com\""),
        ("[mta]\nspool = 'spool'", "4: mta.spool: 'spool' is not the absolute path of a file"),
        ("[mta]\nqueue = 'theirs'", "4: mta.queue: 'theirs' is not one of own, relay; choose one of them"),
        ("[mta]\nqueue = 'relay'", "4: mta.queue: 'relay' needs the host that queues; add [relay], or use \"own\""),
        ("[mta]\nsource = 'relay'", "4: mta.source: 'relay' is not one of box, client"),
        (
            "[mta]\nrelay_from = ['10.0.0.1/8']",
            "4: mta.relay_from[0]: '10.0.0.1/8' has host bits set; the network is 10.0.0.0/8",
        ),
        (
            "[mta]\nrelay_from = ['10.0.0.0/8']",
            "4: mta.relay_from: says who may send to everybody, but not where they arrive: any neighbour can claim an "
            "address; add relay_from_ports = […], those of bridge.ports behind which these clients are: enp1s0, enp2s0",
        ),
        (
            "[mta]\nrelay_from_ports = [\n'enp1s0',\n'eth9',\n]",
            "4: mta.relay_from_ports[1]: 'eth9' is not a port of the bridge; name one of bridge.ports: enp1s0, enp2s0",
        ),
        (
            "[mta]\ncertificate = '/x/y'",
            "4: mta.certificate: needs mta.key; add key = …, or remove certificate",
        ),
        ("[mta]\nkey = '/x/y'", "4: mta.key: needs mta.certificate; add certificate = …, or remove key"),
        ("[mta]\ntls = 'dane'", "4: mta.tls: 'dane' is not one of none, opportunistic, required, verified"),
        (
            "[mta.tls_for]\n'example.org' = 'yes'",
            "4: mta.tls_for.\"example.org\": 'yes' is not one of none, opportunistic, required, verified",
        ),
        ("[mta.tls_for]\n'a..b' = 'none'", "4: mta.tls_for.\"a..b\": 'a..b' is not a name"),
        (
            "[mta]\nretry_s = 60\nretry_most_s = 59",
            "5: mta.retry_most_s: is less than retry_s, 60; waits grow: give as much or more",
        ),
        (
            "[mta]\nconnections = 5",
            "3: mta.connections_per_host: is more than connections, 5; give as much or less",
        ),
        ("[mta]\nretries = 5", "4: mta.retries: is not a known key; did you mean retry_s?"),
        ("[mta]\nresolvers = []", "4: mta.resolvers: is not a known key; it belongs to [dns]"),
        # [relay]
        ("[relay]", "3: relay.host: is missing; add host = … to relay"),
        ("[relay]\nhost = 'relay'", "4: relay.host: 'relay' is not a full name; write it like \"relay.example.net\""),
        ("[relay]\nhost = 'r.example:26'", "4: relay.host: 'r.example:26' does not appear to be an IPv4 or IPv6"),
        ("[relay]\nhost = '192.0.2.256'", "4: relay.host: '192.0.2.256' does not appear to be an IPv4 or IPv6"),
        (RELAY + "port = 0", "5: relay.port: 0 is too low; the least is 1"),
        (RELAY + "protocol = 'esmtp'", "5: relay.protocol: 'esmtp' is not one of smtp, lmtp"),
        (RELAY + "protocol = 'lmtp'", "5: relay.protocol: 'lmtp' is never spoken on port 25; give relay.port"),
        (RELAY + "username = ''", "5: relay.username: '' is not a user's name"),
        (
            RELAY + "username = 'box'",
            "5: relay.username: needs relay.password_file; add password_file = …, or remove username",
        ),
        (RELAY + "password_file = '/x/y'", "5: relay.password_file: needs relay.username; add username = …, or rem"),
        (
            RELAY + "username = 'box'\npassword_file = '/x/y'\ntls = 'none'",
            "7: relay.tls: 'none' shows the password to everybody; use \"verified\"",
        ),
        (RELAY + "password = 'x'", "5: relay.password: is not a known key; did you mean password_file?"),
        ("relay = 'relay.example.net'", "3: bridge.relay: is not a known key"),
        # [dns]
        ("[dns]\nresolvers = ['ns.example.net']", "4: dns.resolvers[0]: 'ns.example.net' is not an address; write it"),
        ("[dns]\nresolvers = ['192.0.2.53:0']", "4: dns.resolvers[0]: '0' is not a port, 1 to 65535; write it like"),
        ("[dns]\nresolvers = '192.0.2.53'", "4: dns.resolvers: '192.0.2.53' is not a list; put it in brackets"),
    ],
)
def test_a_mistake_is_told_with_line_key_reason_and_remedy(lines: str, error: str) -> None:
    (only,) = told(LEAST + lines)
    assert only.startswith(error)
    assert "; " in only


@pytest.mark.parametrize(
    "lines",
    [
        "[intercept]\nincoming = 'mta'\n" + NETWORKS,  # the server dialled is always there
        "[intercept]\noutgoing = 'mta'\n" + SERVED,
        "[intercept]\noutgoing = 'mta'\n" + NETWORKS + "deliver_to = ['192.0.2.20']\n",
        "[intercept]\noutgoing = 'mta'\n[[protected]]\ndomain = 'a.example'\nservers = ['mx']\n",
        "[intercept]\noutgoing = 'mta'\n[[protected]]\ndomain = 'a.example'\nservers = ['192.0.2.20/32']\n",
        "[mta]\nqueue = 'relay'\n[intercept]\noutgoing = 'mta'\n" + NETWORKS + RELAY,
        NETWORKS + "handler = 'mta'\n",
        "[intercept.port.enp1s0]\nincoming = 'mta'\n" + NETWORKS,
        "[[protected]]\ndomain='a.b'\nservers = ['mx']\nhandler = 'mta'\n"
        "[[protected]]\ndomain='c.d'\nservers = ['mx']\nhandler = 'proxy'\n",
        "[mta]\ncertificate = '/x/y'\nkey = '/x/z'\n",
        RELAY + "protocol = 'lmtp'\nport = 24\n",
    ],
)
def test_what_looks_similar_and_is_right(lines: str) -> None:
    parse(LEAST + lines)


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("mta.size_bytes", 65_536, 2_147_483_647),
        ("mta.hops", 30, 1_000),
        ("mta.reserve_bytes", 0, 1 << 40),
        ("mta.connections", 1, 10_000),
        ("mta.connections_per_host", 1, 1_000),
        ("mta.messages_per_connection", 1, 100_000),
        ("mta.retry_s", 1, 86_400),
        ("mta.retry_most_s", 1, 86_400),
        ("mta.delay_notice_s", 0, 864_000),
        ("mta.give_up_s", 1, 864_000),
        ("mta.dsn_give_up_s", 0, 864_000),
        ("dns.timeout_s", 1, 60),
        ("relay.port", 1, 65_535),
    ],
)
def test_edges(key: str, least: int, most: int) -> None:
    section, _, name = key.partition(".")
    beside = {
        "connections": "connections_per_host = 1\n",
        "connections_per_host": "connections = 10000\n",
        "retry_s": "retry_most_s = 86400\n",
        "retry_most_s": "retry_s = 1\n",
        "port": 'host = "relay.example.net"\n',
    }.get(name, "")
    for value in (least, most):
        assert getattr(getattr(parse(f"{LEAST}[{section}]\n{beside}{name} = {value}"), section), name) == value
    for value, reason in ((least - 1, f"too low; the least is {least}"), (most + 1, f"too high; the most is {most}")):
        (only,) = told(f"{LEAST}[{section}]\n{beside}{name} = {value}")
        assert only.endswith(f": {key}: {value} is {reason}")


class TestWarnings:
    MTA = "[intercept]\nincoming = 'mta'\n"

    def those(self, lines: str, box: str = BOX) -> list[str]:
        return warnings(parse(box + lines))

    @pytest.mark.parametrize(
        "lines",
        [
            SERVED,
            MTA + SERVED,
            MTA + SERVED + RELAY + "username = 'box'\npassword_file = '/x/y'\ntls = 'verified'\n",
            MTA + SERVED + "[mta]\nrelay_from = ['10.0.0.0/8', '0.0.0.0/1']\nrelay_from_ports = ['enp1s0']\n",
            MTA + SERVED + "[mta]\nrelay_from = ['0.0.0.0/0']\nrelay_from_ports = ['enp1s0']\n",
            MTA + "hidden = true\nstarttls = 'strip'\non_doubt = 'close'\n" + SERVED,  # outgoing is the proxy's
        ],
    )
    def test_none(self, lines: str) -> None:
        unrelated = "intercept.starttls"
        assert [line for line in self.those(lines) if not line.startswith(unrelated)] == []

    @pytest.mark.parametrize(
        ("lines", "warning"),
        [
            (
                MTA + "[mta]\nrelay_from = ['0.0.0.0/0']\nrelay_from_ports = ['enp1s0', 'enp2s0']\n",
                "mta.relay_from: open relay: 0.0.0.0/0 lets every IPv4 client send to everybody",
            ),
            (
                MTA
                + "[mta]\nrelay_from = ['10.0.0.0/8', '::/1', '8000::/1']\nrelay_from_ports = ['enp1s0', 'enp2s0']\n",
                "mta.relay_from: open relay: ::/0 lets every IPv6 client send to everybody",
            ),
            (
                MTA + "[mta]\nrelay_from_ports = ['enp2s0', 'enp1s0']\n",
                "mta.relay_from_ports: open relay: whatever port clients arrive on, they may send to everybody",
            ),
            (RELAY, "relay: nothing goes there: no connection is the MTA's"),
            (
                MTA + RELAY + "username = 'box'\npassword_file = '/x/y'\n",
                'relay.tls: "opportunistic" gives the password to whoever answers there; "verified" does not',
            ),
            (
                MTA + "[mta]\ndelay_notice_s = 600\ngive_up_s = 600\nretry_s = 600\n",
                "mta.delay_notice_s: no sender hears of a delay: mail is given up before",
            ),
            (
                MTA + "[mta]\ndelay_notice_s = 0\ngive_up_s = 600\n",
                "mta.give_up_s: mail is tried once only: it is given up before the first retry",
            ),
            (
                MTA + "outgoing = 'mta'\nhidden = false\n",
                "intercept.hidden: says nothing of connections that are the MTA's, and all are: mta.source does",
            ),
            (
                MTA + "outgoing = 'mta'\non_doubt = 'close'\n",
                "intercept.on_doubt: says nothing of connections that are the MTA's, and all are",
            ),
        ],
    )
    def test_one(self, lines: str, warning: str) -> None:
        (only,) = (line for line in self.those(SERVED + lines) if not line.startswith("intercept.hidden: false"))
        assert only.startswith(warning)

    def test_a_relay_host_that_may_stand_behind_the_box(self) -> None:
        outgoing = self.MTA + "outgoing = 'mta'\n[relay]\nhost = '192.0.2.21'\n"
        (only,) = self.those(SERVED + outgoing)
        assert only.startswith("relay.host: if 192.0.2.21 sends its mail on through this box, it comes back to it")
        rule = "[[pickup.rule]]\nclient = '192.0.2.16/28'\naction = '{}'\n"
        assert self.those(SERVED + outgoing + rule.format("pass")) == []
        assert len(self.those(SERVED + outgoing + rule.format("intercept"))) == 1
        assert self.those(SERVED + outgoing.replace("192.0.2.21", "relay.example.net")) == []

    @pytest.mark.parametrize("key", ["deliver_via_server = true", "deliver_to = ['192.0.2.20']"])
    def test_where_to_deliver_means_nothing_without_the_mta_and_to_a_cluster(self, key: str) -> None:
        name = f"protected[0].{key.split()[0]}"
        assert self.those(f"{SERVED}{key}\n") == [f"{name}: says nothing: no connection is the MTA's"]
        cluster = f"{SERVED}{key}\n{self.MTA}[mta]\nqueue = 'relay'\n{RELAY}"
        assert self.those(cluster) == [f'{name}: says nothing: mta.queue = "relay" sends all mail to the relay host']

    def test_a_box_without_an_address(self) -> None:
        (only,) = self.those(self.MTA + SERVED, LEAST)
        assert only.startswith("bridge.management: the box has no address there, so mail leaves by whatever other port")
        (only,) = self.those(self.MTA + SERVED + "[mta]\nsource = 'client'\n", LEAST)
        assert "so what the MTA asks the DNS leaves" in only
        assert self.those(self.MTA + SERVED, LEAST + "adopt = true\nnamespace = 'host'\n") == []


class TestTables:
    def test_the_routes_of_the_sample(self) -> None:
        table = routes(parse(sample()))
        assert table.domains == {
            "example.com": DomainRoute(
                "example.com",
                servers=(Place("192.0.2.20"), Place("mail.example.com")),
                deliver_to=(Place("192.0.2.20"), Place("mail.example.com", 2525)),
                by_mx=True,
            )
        }
        assert table.relay is not None
        assert (str(table.relay), table.relay.security, table.relay.authenticate) == (
            "relay.example.net:25",
            Security.VERIFIED,
            True,
        )
        assert (table.relay_only, table.security, table.from_client) == (False, Security.OPPORTUNISTIC, False)
        assert table.security_for == {"example.org": Security.VERIFIED}

    def test_each_key_arrives(self) -> None:
        table = routes(
            parse(
                LEAST
                + "[mta]\nqueue = 'relay'\nsource = 'client'\ntls = 'required'\n[relay]\nhost = '2001:DB8::25'\n"
                + "port = 24\nprotocol = 'lmtp'\ntls = 'none'\n[[protected]]\ndomain = 'b.example'\nsubdomains = true\n"
                + "servers = ['192.0.2.0/24', '2001:db8:0::1', '192.0.2.9/32', 'mx', 'm.b.example']\n"
                + "deliver_via_server = true\n"
            )
        )
        lmtp = NextHop("relay", (Place("2001:db8::25", 24),), security=Security.NONE, protocol=Protocol.LMTP)
        assert (table.relay, table.relay_only, table.security, table.from_client) == (
            lmtp,
            True,
            Security.REQUIRED,
            True,
        )
        places = (Place("2001:db8::1"), Place("192.0.2.9"), Place("m.b.example"))
        assert table.domains["b.example"] == DomainRoute(
            "b.example", subdomains=True, servers=places, by_mx=True, via_server=True
        )

    def test_deliver_to_decides_about_the_mx_too(self) -> None:
        entry = "[[protected]]\ndomain = 'b.example'\nservers = {}\ndeliver_to = {}\n"
        for servers, deliver_to, by_mx in ((["mx"], ["192.0.2.1"], False), (["192.0.2.1"], ["mx"], True)):
            assert routes(parse(LEAST + entry.format(servers, deliver_to))).domains["b.example"].by_mx is by_mx

    def test_who_may_relay(self) -> None:
        mac = "52:54:00:12:34:56"
        config = parse(
            f"[bridge]\nports = ['{mac}', 'enp2s0']\n[mta]\nrelay_from = ['10.0.0.0/8']\nrelay_from_ports = ['{mac}']\n"
            + SERVED
        )
        expected = RelayRule(
            Protection(Domains.of([("a.example", False)]), Servers.of(["192.0.2.20"])),
            Servers.of(["10.0.0.0/8"]),
            frozenset({"enp1s0"}),
        )
        assert relay_rule(config, {mac: "enp1s0"}) == expected

    def test_resolvers(self) -> None:
        config = parse(LEAST + "[dns]\nresolvers = ['192.0.2.53', '2001:db8::53', '[2001:db8::53]:5353']\n")
        assert resolvers(config) == (Place("192.0.2.53", 53), Place("2001:db8::53", 53), Place("2001:db8::53", 5353))
        assert resolvers(parse(LEAST)) == ()

    def test_the_effective_file_makes_the_same_tables(self) -> None:
        config = parse(sample())
        again = parse(effective(config))
        assert (routes(again), relay_rule(again), resolvers(again)) == (
            routes(config),
            relay_rule(config),
            resolvers(config),
        )


@pytest.mark.parametrize(
    ("lines", "learned_s"),
    [
        ("", LEARNED_S),
        ("[intercept]\nhidden = false\n", LEARNED_UNTIL_BANNER_S),
        ("[intercept]\noutgoing = 'mta'\n", LEARNED_UNTIL_BANNER_S),
        ("[intercept.port.enp1s0]\nincoming = 'mta'\n", LEARNED_UNTIL_BANNER_S),
    ],
)
def test_next_hops_are_kept_until_the_banner_where_no_server_is_dialled_by_the_lane(lines: str, learned_s: int) -> None:
    assert wanted(parse(BOX + lines), named("generic", profiles()), "").learned_s == learned_s


class TestPassword:
    def config(self, path: Path) -> Config:
        return parse(LEAST + RELAY + f"username = 'box'\npassword_file = '{path}'\n")

    def write(self, path: Path, content: bytes, mode: int = 0o600) -> Config:
        path.write_bytes(content)
        path.chmod(mode)
        return self.config(path)

    @pytest.mark.parametrize("content", [b"s3cret pass", b"s3cret pass\n", b"s3cret pass\r\n"])
    def test_is_the_line_of_its_file(self, tmp_path: Path, content: bytes) -> None:
        assert relay_password(self.write(tmp_path / "p", content)) == "s3cret pass"

    def test_longest(self, tmp_path: Path) -> None:
        assert relay_password(self.write(tmp_path / "p", b"x" * MAX_PASSWORD_BYTES)) == "x" * MAX_PASSWORD_BYTES

    def test_none(self) -> None:
        assert relay_password(parse(LEAST)) is relay_password(parse(LEAST + RELAY)) is None

    @pytest.mark.parametrize(
        ("content", "mode", "reason"),
        [
            (b"s3cret", 0o604, "can be read by every user of this host; chmod 600 "),
            (b"", 0o600, "is not one line of 1 to 1024 octets; is it the right file?"),
            (b"\n", 0o600, "is not one line"),
            (b"s3cret\nmore\n", 0o600, "is not one line"),
            (b"s3cret\0", 0o600, "is not one line"),
            (b"x" * (MAX_PASSWORD_BYTES + 1), 0o600, "is not one line"),
            ("\ufeffs3cret\n".encode(), 0o600, "begins with a byte order mark; save it as UTF-8 without one"),
            (b"s3cret\xff", 0o600, "is not UTF-8; save it as UTF-8"),
        ],
    )
    def test_mistakes_never_show_it(self, tmp_path: Path, content: bytes, mode: int, reason: str) -> None:
        path = tmp_path / "p"
        with pytest.raises(MistakeError) as caught:
            relay_password(self.write(path, content, mode))
        assert str(caught.value).startswith(f"relay.password_file: {path} {reason}")
        assert "s3cret" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(
            MistakeError, match=r"relay.password_file: .*/none cannot be read: No such file or directory; create"
        ):
            relay_password(self.config(tmp_path / "none"))

    def test_a_pipe_is_no_file_to_wait_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p", 0o600)
        with pytest.raises(MistakeError, match="is not a file"):
            relay_password(self.config(tmp_path / "p"))

    def test_the_effective_configuration_and_the_warnings_do_not_have_it(self, tmp_path: Path) -> None:
        config = self.write(tmp_path / "p", b"s3cret")
        shown: list[Any] = [effective(config), config.model_dump_json(), *warnings(config), repr(config)]
        assert not [text for text in shown if "s3cret" in text]
        assert str(tmp_path / "p") in shown[0]
