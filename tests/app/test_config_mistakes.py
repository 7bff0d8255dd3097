"""Operators' mistakes: each told with its line, its key, the reason and the remedy; and the warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.flow import MAX_PORTS
from bridge.lane import MAX_VLANS, NEXT_HOP_S
from smtp_intercept.app.checks import MAX_MAIL_PORTS
from smtp_intercept.app.config import (
    ConfigErrors,
    parse,
    warnings,
)
from smtp_intercept.app.rule_schema import MAX_RULES

BYPASS = "[[bypass]]\nports = ['enp1s0', 'enp2s0']\nkind = '{}'"
LEAST = '[bridge]\nports = ["enp1s0", "enp2s0"]\n'


def told(text: str) -> list[str]:
    """The mistakes in a text: ``LINE: KEY: REASON; REMEDY``."""
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("x"))
    return [str(error).removeprefix("x:") for error in caught.value.errors]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        # keys
        ("[brigde]", "3: brigde: is not a known key; did you mean bridge?"),
        ("prots = 1", "3: bridge.prots: is not a known key; did you mean ports?"),
        ("hidden = true", "3: bridge.hidden: is not a known key; it belongs to [intercept]"),
        (
            "zzz = 1",
            "3: bridge.zzz: is not a known key; known here are name, namespace, ports, adopt, stp, on_failure,",
        ),
        (
            "[pickup.port.enp1s0]\nincomming = 1",
            "4: pickup.port.enp1s0.incomming: is not a known key; did you mean inc",
        ),
        (
            "[[pickup.rule]]\nclinet = 1\naction = 'pass'",
            "4: pickup.rule[0].clinet: is not a known key; did you mean cl",
        ),
        ("[[protected]]\nserver = []\ndomain = 'a.b'", "4: protected[0].server: is not a known key; did you mean ser"),
        ("[[pickup.rule]]", "3: pickup.rule[0].action: is missing; add action = … to pickup.rule[0]"),
        ("[[protected]]", "3: protected[0]: has neither domain nor servers; give one of them, or both"),
        # types
        ("vlans = 10", "3: bridge.vlans: 10 is not a list; put it in brackets: [ … ]"),
        ("vlans = ['10']", "3: bridge.vlans[0]: '10' is not a whole number; write it without quotes"),
        ("vlans = [true]", "3: bridge.vlans[0]: true is not a whole number"),
        ("vlans = [10, 0]", "3: bridge.vlans[1]: 0 is no VLAN's VID; give 1 to 4094 (802.1Q keeps 0 and 4095 for its"),
        ("vlans = [4095]", "3: bridge.vlans[0]: 4095 is no VLAN's VID; give 1 to 4094"),
        ("vlans = [-1]", "3: bridge.vlans[0]: -1 is no VLAN's VID; give 1 to 4094"),
        ("vlans = [10, 20, 10]", "3: bridge.vlans[2]: 10 is given twice; give each VLAN once"),
        (f"vlans = {[*range(1, MAX_VLANS + 2)]}", "3: bridge.vlans: has 65 VLANs, more than 64; each costs a bridge"),
        (
            "vlans = [10]\n[[pickup.rule]]\nvlan = 20\naction = 'pass'",
            "5: pickup.rule[0].vlan: 20 is not in bridge.vlans, so its mail is never picked up; add it there",
        ),
        (
            "[[pickup.rule]]\nvlan = 4095\naction = 'pass'",
            "4: pickup.rule[0].vlan: 4095 is no VLAN's VID; give 0 to 4094, 0 for untagged mail",
        ),
        ("adopt = 1", "3: bridge.adopt: 1 is not true or false; write true or false, without quotes"),
        ("adopt = 'yes'", "3: bridge.adopt: 'yes' is not true or false"),
        ("name = 7", '3: bridge.name: 7 is not a text; write it like "br0"'),
        ("profile = 7", "3: bridge.profile: 7 is not a text; put it in quotes"),
        ("management = 'x'", "3: bridge.management: 'x' is not a list; put it in brackets: [ … ]"),
        ("management = [1]", '3: bridge.management[0]: 1 is not a text; write it like "198.51.100.2/24" or'),
        ("[limits]\nsessions = '10'", "4: limits.sessions: '10' is not a whole number; write it without quotes"),
        ("[limits]\nsessions = 1.5", "4: limits.sessions: 1.5 is not a whole number"),
        ("[limits]\nsessions = true", "4: limits.sessions: true is not a whole number"),
        ("[protected]\ndomain = 'a.b'", "3: protected: { domain = 'a.b' } is not a list; write it as [[protected]]"),
        ("[pickup]\nrule = 3", "4: pickup.rule: 3 is not a list"),
        ("[pickup]\nport = 3", "4: pickup.port: 3 is not a table"),
        ("[pickup.port]\nenp1s0 = 'drop'", "4: pickup.port.enp1s0: 'drop' is not a table"),
        # choices
        ("on_failure = 'open'", "3: bridge.on_failure: 'open' is not one of pass, block; choose one of them"),
        ("[pickup]\nincoming = 'foo'", "4: pickup.incoming: 'foo' is not one of intercept, pass, drop, reject; choose"),
        ("[pickup]\nincoming = 1", "4: pickup.incoming: 1 is not one of intercept, pass, drop, reject"),
        ("[pickup]\nincoming = []", "4: pickup.incoming: [] is not one of"),
        ("[pickup]\nlocal = 'reject'", "4: pickup.local: 'reject' is not one of allow, drop"),
        ("[pickup]\nlocal = 'intercept'", "4: pickup.local: 'intercept' is not one of allow, drop"),
        ("[pickup.port.enp1s0]\nlocal = 'reject'", "4: pickup.port.enp1s0.local: 'reject' is not one of allow, drop"),
        ("link_loss = 'stop'", "3: bridge.link_loss: 'stop' is not one of keep, propagate; choose one of them"),
        ("bypass = 'on'", "3: bridge.bypass: 'on' is not one of box, gateway, off; choose one of them"),
        (
            "bypass = 'gateway'\non_failure = 'block'",
            '3: bridge.bypass: "gateway" lets mail cross uninspected, which on_failure = "block" forbids; choose',
        ),
        ("[[bypass]]\nkind = 'silicom'", "3: bypass[0].ports: is missing; add ports = … to bypass[0]"),
        (BYPASS.format("silicom").replace(", 'enp2s0'", ""), "4: bypass[0].ports: has 1 ports; a relay joins two"),
        (
            BYPASS.format("silicom").replace("enp2s0", "enp3s0"),
            "4: bypass[0].ports: 'enp3s0' is not a port of the bridge; name one of bridge.ports: enp1s0, enp2s0",
        ),
        (BYPASS.format("lanner"), "5: bypass[0].kind: 'lanner' is not one of silicom, gpio; choose one of them"),
        (BYPASS.format("gpio"), "3: bypass[0]: needs the file of its line; add driven_by = "),
        (BYPASS.format("gpio") + "\ndriven_by = 'gpio17'", "6: bypass[0].driven_by: 'gpio17' is not the absolute path"),
        (BYPASS.format("silicom") + "\nwatchdog_ms = 1999", "6: bypass[0].watchdog_ms: 1999 is too low; the least is"),
        (BYPASS.format("silicom") + "\nwatchdog_ms = 255001", "6: bypass[0].watchdog_ms: 255001 is too high; the most"),
        (BYPASS.format("silicom") + "\napart = 2", "6: bypass[0].apart: 2 is too high; the most is 1"),
        (BYPASS.format("silicom") + "\n" + BYPASS.format("silicom"), "7: bypass[1].ports: names a port of another"),
        ("link_loss = 'propagate'\nstp = true", '3: bridge.link_loss: "propagate" takes ports from a switch'),
        ("profile = 'toaster'", "3: bridge.profile: 'toaster' is not one of auto, appliance-1u, apu2, "),
        # not built
        ("[intercept]\nincoming = 'relay'", "4: intercept.incoming: 'relay' is not one of proxy, mta"),
        (
            "[intercept]\nstarttls = 'inspect'",
            "4: intercept.starttls: 'inspect' is not one of pass, strip, terminate; choose one of them, or write {",
        ),
        (
            "[intercept]\nstarttls = { incoming = 'open' }",
            "4: intercept.starttls.incoming: 'open' is not one of pass, strip, terminate; choose one of them",
        ),
        ("[tls]\nexempt = ['mx .example']", "4: tls.exempt[0]: 'mx .example' is not"),
        ("[tls]\nexempt = ['203.0.113.1/24']", "4: tls.exempt[0]: 203.0.113.1/24 has host bits set; write it like"),
        ("[tls]\nminimum = '1.4'", "4: tls.minimum: '1.4' is not one of 1.0, 1.1, 1.2, 1.3; choose one of them"),
        ("[[tls.identity]]\nkey = '/x/k'", "3: tls.identity[0].certificate: is missing; add certificate = … to tls"),
        (
            "[intercept]\non_doubt = 'what'",
            "4: intercept.on_doubt: 'what' is not one of pass, close; choose one of them",
        ),
        ("[limits]\nwait_block_s = 179", "4: limits.wait_block_s: 179 is too low; the least is 180"),
        ("[limits]\ncommand_line_bytes = 32769", "4: limits.command_line_bytes: 32769 is too high; the most is 32768"),
        # links
        ("name = ''", "3: bridge.name: '' is not a link's name"),
        ("name = 'a b'", "3: bridge.name: 'a b' is not a link's name"),
        ("name = '..'", "3: bridge.name: '..' is not a link's name"),
        ("name = 'abcdefghijklmnop'", "3: bridge.name: 'abcdefghijklmnop' is not a link's name (1-15 octets"),
        ("name = 'smtp0'", "3: bridge.name: 'smtp0' is a name that Tollbridge gives to its own links"),
        ("name = 'smtp0w1'", "3: bridge.name: 'smtp0w1' is a name that Tollbridge gives"),
        ("name = 'smtp0l1'", "3: bridge.name: 'smtp0l1' is a name that Tollbridge gives"),
        ("name = 'enp1s0'", "2: bridge.ports[0]: 'enp1s0' is the bridge itself; give the bridge another name"),
        # addresses of the box
        (
            "management = ['198.51.100.2']",
            "3: bridge.management[0]: '198.51.100.2' has no prefix length; write it like",
        ),
        (
            "management = ['198.51.100.0/24']",
            "3: bridge.management[0]: '198.51.100.0/24' is the network's own or its br",
        ),
        ("management = ['198.51.100.255/24']", "3: bridge.management[0]: '198.51.100.255/24' is the network's own or"),
        ("management = ['2001:db8::/64']", "3: bridge.management[0]: '2001:db8::/64' is the network's own"),
        (
            "management = ['127.0.0.1/8']",
            "3: bridge.management[0]: '127.0.0.1/8' is not an address that a box can have",
        ),
        (
            "management = ['224.0.0.1/8']",
            "3: bridge.management[0]: '224.0.0.1/8' is not an address that a box can have",
        ),
        ("management = ['x/24']", "3: bridge.management[0]: 'x/24' does not appear to be"),
        (
            "management = ['198.51.100.2/24', '198.51.100.2/25']",
            "3: bridge.management[1]: 198.51.100.2 is given twice; give each address once",
        ),
        ("gateway = '198.51.100.1'", "3: bridge.gateway: needs management; add management = […], or remove gateway"),
        (
            "management = ['198.51.100.2/24', '2001:db8::2/64']\ngateway = '203.0.113.1'",
            "4: bridge.gateway: 203.0.113.1 is not in 198.51.100.0/24, 2001:db8::/64; name a router",
        ),
        (
            "management = ['198.51.100.2/24']\ngateway = '198.51.100.2'",
            "4: bridge.gateway: 198.51.100.2 is the box itself; name the router",
        ),
        (
            "gateway = '198.51.100.1/24'",
            "3: bridge.gateway: '198.51.100.1/24' does not appear to be an IPv4 or IPv6 addr",
        ),
        (
            "adopt = true\nnamespace = 'host'\nmanagement = ['198.51.100.2/24']",
            "5: bridge.management: cannot be given with adopt = true; rem",
        ),
        (
            "adopt = true\nnamespace = 'host'\ngateway = '198.51.100.1'",
            "5: bridge.gateway: cannot be given with adopt = true; remove it",
        ),
        ("adopt = true", "3: bridge.adopt: an adopted bridge stays in the network namespace of the host; set bridge."),
        ("namespace = 'mine'", "3: bridge.namespace: 'mine' is not one of own, host; choose one of them"),
        (
            "management = ['192.0.2.2/24', '2001:db8::2/64']\ngateway = ['192.0.2.1', 'fe80::1', '2001:db8::1']",
            "4: bridge.gateway: has several for IPv6; give one default route of each family",
        ),
        (
            "management = ['192.0.2.2/24']\ngateway = ['fe80::1']",
            "4: bridge.gateway: fe80::1 is not in 192.0.2.0/24; name a router that a management address can reach",
        ),
        (
            "[intercept]\nhidden = false",
            "4: intercept.hidden: false needs an address of the box to speak from; add bri",
        ),
        # mail ports
        ("[intercept]\nports = [0]", "4: intercept.ports[0]: 0 is too low; the least is 1"),
        ("[intercept]\nports = [25, 65536]", "4: intercept.ports[1]: 65536 is too high; the most is 65535"),
        ("[intercept]\nports = []", "4: intercept.ports: has 0 ports; give 1 to 16"),
        ("[intercept]\nports = [25, 25]", "4: intercept.ports[1]: 25 is given twice; give each port once"),
        # pick-up
        (
            "[pickup.port.eth9]\nincoming = 'drop'",
            "3: pickup.port.eth9: is not a port of the bridge; name one of bridge.ports: enp1s0, enp2s0",
        ),
        ("[pickup.port.'a/b']", "3: pickup.port.\"a/b\": 'a/b' is not a link's name"),
        (
            "[[pickup.rule]]\nport = 'eth9'\naction = 'pass'",
            "4: pickup.rule[0].port: 'eth9' is not a port of the bridge",
        ),
        (
            "[[pickup.rule]]\nclient = '10.0.0.1/8'\naction = 'pass'",
            "4: pickup.rule[0].client: '10.0.0.1/8' has host bits set; the network is 10.0.0.0/8; write it like",
        ),
        (
            "[[pickup.rule]]\nserver = 'mx'\naction = 'pass'",
            "4: pickup.rule[0].server: 'mx' does not appear to be an IPv4",
        ),
        (
            "[[pickup.rule]]\nclient = '10.0.0.0/8'\nserver = '::/0'\naction = 'pass'",
            "3: pickup.rule[0]: can never match: client is IPv4 and server IPv6, or the reverse; write one rule for",
        ),
        (
            "[[pickup.rule]]\ndirection = 'local'\naction = 'reject'",
            '5: pickup.rule[0].action: \'reject\' is not possible for mail to the box itself; use "pass" or "drop"',
        ),
        (
            "[[pickup.rule]]\ndirection = 'in'\naction = 'drop'",
            "4: pickup.rule[0].direction: 'in' is not one of incoming",
        ),
        # protected
        (
            "[[protected]]\ndomain = 'a..b'",
            "4: protected[0].domain: 'a..b' is not a name; write it like \"example.com\"",
        ),
        (
            "[[protected]]\ndomain = '[192.0.2.20]'",
            "4: protected[0].domain: '[192.0.2.20]' is an address: leave domain out, and name the address in servers",
        ),
        (
            "[[protected]]\ndomain = '192.0.2.20'",
            "4: protected[0].domain: '192.0.2.20' is an address: leave domain out",
        ),
        ("[[protected]]\ndomain = '2001:db8::20'", "4: protected[0].domain: '2001:db8::20' is an address: leave"),
        (
            "[[protected]]\ndomain = 'a.b'\nservers = ['[192.0.2.20]']",
            "5: protected[0].servers[0]: '[192.0.2.20]' is an address literal, as mail has it: write the address",
        ),
        ("[[protected]]\nservers = ['[IPv6:2001:db8::20]']", "4: protected[0].servers[0]: '[IPv6:2001:db8::20]' is an"),
        (
            "[[protected]]\nservers = ['192.0.2.20', 'mx']",
            "4: protected[0].servers[1]: 'mx' is not an address: a server without a domain has no other name; "
            'give its address, or add domain = "example.com"',
        ),
        (
            "[[protected]]\nservers = ['m.a.b']",
            "4: protected[0].servers[0]: 'm.a.b' is not an address: a server without",
        ),
        (
            "[[protected]]\nservers = ['192.0.2.1']\n[[protected]]\nservers = ['192.0.2.1']",
            "6: protected[1].servers[0]: '192.0.2.1' is protected twice without a domain; name each server once",
        ),
        (
            "[[protected]]\nservers = ['192.0.2.1']\nsubdomains = true",
            "5: protected[0].subdomains: there is no domain; remove it, or add domain",
        ),
        (
            "[[protected]]\nservers = ['192.0.2.1']\ndeliver_to = ['192.0.2.2']",
            "5: protected[0].deliver_to: says nothing without a domain: mail to an address goes to that address;",
        ),
        (
            "[[protected]]\nservers = ['192.0.2.1']\nhandler = 'mta'\n"
            "[[protected]]\ndomain = 'a.b'\nservers = ['192.0.2.1']\nhandler = 'proxy'",
            "9: protected[1].handler: 'proxy' differs from that of [192.0.2.1], whose server 192.0.2.1 is too",
        ),
        (
            "[[protected]]\ndomain = '*.a.b'",
            "4: protected[0].domain: '*.a.b' is a wildcard: write the domain itself; [[protected]] takes all below it",
        ),
        ("[[protected]]\ndomain = '.a.b'", "4: protected[0].domain: '.a.b' is a wildcard: write the domain itself"),
        ("[[protected]]\ndomain = 'x@a.b'", "4: protected[0].domain: 'x@a.b' is a mailbox: write what stands behind"),
        ("[[protected]]\ndomain = 'a.b:25'", "4: protected[0].domain: 'a.b:25' has a port: write the domain alone"),
        ("[mta]\nhostname = 'https://a.b/'", "4: mta.hostname: 'https://a.b/' is the address of a page: write the"),
        (
            "[[protected]]\ndomain = 'a.b'\nservers = ['*.a.b']",
            "5: protected[0].servers[0]: '*.a.b' is a wildcard: name each host, their network, or mx; write it like",
        ),
        (
            "[[protected]]\ndomain = 'a.b'\n[[protected]]\ndomain = 'A.B.'",
            "6: protected[1].domain: 'a.b' is protected twice; put all its servers in one [[protected]]",
        ),
        (
            "[[protected]]\ndomain = 'a.b'\nservers = [\n  'mx',\n  '192.0.2.1',\n  '192.0.2.256',\n]",
            "5: protected[0].servers[2]: '192.0.2.256' does not appear to be an IPv4 or IPv6 network; write it like",
        ),
        ("[[protected]]\ndomain = 'a.b'\nservers = ['mail']", "5: protected[0].servers[0]: 'mail' is not a full name"),
        (
            "[[protected]]\ndomain = 'a.b'\nservers = ['m.a.b:25']",
            "5: protected[0].servers[0]: 'm.a.b:25' does not appear",
        ),
        # log and limits
        ("[log]\nmail = 'mail.log'", "4: log.mail: 'mail.log' is not the absolute path of a file; write it like"),
        ("[log]\nmail = '/'", "4: log.mail: '/' is not the absolute path of a file"),
    ],
)
def test_a_mistake_is_told_with_line_key_reason_and_remedy(lines: str, error: str) -> None:
    (only,) = told(LEAST + lines)
    assert only.startswith(error)
    assert "; " in only


@pytest.mark.parametrize(
    ("ports", "error"),
    [
        ("[]", "2: bridge.ports: has 0 of at least 2 ports; a bridge joins two or more"),
        ("['a']", "2: bridge.ports: has 1 of at least 2 ports"),
        ("['a', 'b', 'a']", "2: bridge.ports[2]: 'a' is named twice; name each port once"),
        ("['a', 'lo']", "2: bridge.ports[1]: 'lo' is the loopback; name an Ethernet port"),
        ("['a', 'br0']", "2: bridge.ports[1]: 'br0' is the bridge itself"),
        ("['a', 'smtp0w0']", "2: bridge.ports[1]: 'smtp0w0' is a name that Tollbridge gives"),
        ("['a', '01:00:5e:00:00:01']", "2: bridge.ports[1]: '01:00:5e:00:00:01' is not one card's MAC address"),
        ("['a', '00:00:00:00:00:00']", "2: bridge.ports[1]: '00:00:00:00:00:00' is not one card's MAC address"),
        ("['a', '52:54:00:12:34']", "2: bridge.ports[1]: '52:54:00:12:34' is not a link's name"),
    ],
)
def test_ports(ports: str, error: str) -> None:
    (only,) = told(f"[bridge]\nports = {ports}\n")
    assert only.startswith(error)


def test_twice_the_same_port_is_one_port() -> None:
    assert [error.split(":")[1] for error in told("[bridge]\nports = ['a', 'a']")] == [
        " bridge.ports[1]",
        " bridge.ports",
    ]


@pytest.mark.parametrize(("count", "good"), [(2, True), (MAX_PORTS, True), (MAX_PORTS + 1, False)])
def test_a_bridge_has_2_to_64_ports(count: int, good: bool) -> None:
    text = f"[bridge]\nports = {[f'p{n}' for n in range(count)]}"
    if good:
        assert len(parse(text).bridge.ports) == count
    else:
        assert told(text) == [f"2: bridge.ports: has {count} ports, more than 64; a mark has no room for more"]


@pytest.mark.parametrize(("count", "good"), [(1, True), (MAX_MAIL_PORTS, True), (MAX_MAIL_PORTS + 1, False)])
def test_mail_has_1_to_16_ports(count: int, good: bool) -> None:
    text = f"{LEAST}[intercept]\nports = {list(range(25, 25 + count))}"
    if good:
        assert len(parse(text).intercept.ports) == count
    else:
        assert told(text) == ["4: intercept.ports: has 17 ports; give 1 to 16"]


def test_ports_that_begin_with_tls_are_mail_ports() -> None:
    assert parse(f"{LEAST}[intercept]\nports = [25, 465]\ntls_ports = [465]").intercept.tls_ports == (465,)
    (mistake,) = told(f"{LEAST}[intercept]\ntls_ports = [465]")
    assert mistake.endswith("add 465 to intercept.ports too")


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("new_connections_per_s", 1, 1_000_000),
        ("new_connections_per_s_per_network", 1, 1_000_000),
        ("next_hops", 64, 4_194_304),
        ("sessions", 1, 1_000_000),
        ("session_idle_s", 300, 3_600),
        ("drain_s", 0, 3_600),
    ],
)
def test_edges_of_the_limits(key: str, least: int, most: int) -> None:
    for value in (least, most):
        assert getattr(parse(f"{LEAST}[limits]\n{key} = {value}").limits, key) == value
    assert told(f"{LEAST}[limits]\n{key} = {least - 1}") == [
        f"4: limits.{key}: {least - 1} is too low; the least is {least}"
    ]
    assert told(f"{LEAST}[limits]\n{key} = {most + 1}") == [
        f"4: limits.{key}: {most + 1} is too high; the most is {most}"
    ]


def test_a_session_is_idle_for_less_time_than_the_lane_remembers_its_next_hops() -> None:
    with pytest.raises(ConfigErrors):
        parse(f"{LEAST}[limits]\nsession_idle_s = {NEXT_HOP_S}")


def test_all_mistakes_of_a_file_are_told_at_once_in_order() -> None:
    text = """\
# one slip must not hide the next
[bridge]
ports = ["enp1s0", "lo"]
adopt = "no"

[intercept]
outgoing = "mta"
hidden = 0

[pickup.port.enp1s0]
incoming = "foo"

[[protected]]
domain = "example.com"
[[protected]]
domain = "example.com"
servers = ["a b"]

[limits]
sessions = 0
drain_s = -1
"""
    assert [(line.split(": ")[0], line.split(": ")[1]) for line in told(text)] == [
        ("4", "bridge.adopt"),
        ("8", "intercept.hidden"),
        ("11", "pickup.port.enp1s0.incoming"),
        ("17", "protected[1].servers[0]"),
        ("20", "limits.sessions"),
        ("21", "limits.drain_s"),
    ]


def test_the_checks_of_sound_tables_run_beside_broken_ones() -> None:
    text = '[bridge]\nports = ["enp1s0"]\n[intercept]\nstarttls = "end"\n[limits]\nsessions = 0\n'
    assert [line.split(": ")[1] for line in told(text)] == ["bridge.ports", "intercept.starttls", "limits.sessions"]


def test_an_empty_file_lacks_only_the_ports() -> None:
    (only,) = told("")
    assert only == " bridge.ports: is missing; add ports = … to bridge"


@pytest.mark.timeout(120)
def test_a_long_file_is_no_long_wait() -> None:
    entries = "".join(f"[[protected]]\ndomain = 'd{n}.example'\nservers = ['192.0.2.1']\n" for n in range(3000))
    servers = "".join(f"  'h{n}.example.com',\n" for n in range(10_000))
    text = f"{LEAST}{entries}[[protected]]\ndomain = 'last.example'\nservers = [\n{servers}  'bad',\n]\n"
    (only,) = told(text)
    assert only.startswith("9005: protected[3000].servers[10000]: 'bad' is not a full name")


class TestWarnings:
    def those(self, lines: str) -> list[str]:
        return warnings(parse(LEAST + lines))

    QUIET = "[[protected]]\ndomain = 'example.com'\nservers = ['192.0.2.20']\n"

    def test_none(self) -> None:
        assert self.those(self.QUIET) == []

    @pytest.mark.parametrize(
        ("before", "after", "warning"),
        [
            (
                "",
                "[[protected]]\ndomain='b.example'\n",
                "protected[1].servers: b.example has none, so no connection is inc",
            ),
            (
                "",
                "[[protected]]\nservers=['192.0.2.9']\n",
                "protected[1]: no domain: of mail only that to its servers' addresses (user@[192.0.2.20]) is incoming",
            ),
            (
                "",
                "[[protected]]\ndomain='b.example'\nservers=['mx', 'h.b.example']\n",
                "protected: MX of b.example, h.b.example: unknown until the DNS has answered;",
            ),
            ("[pickup]\nincoming = 'pass'\n", "", "pickup: nothing is set to intercept, so no mail is inspected"),
            (
                "on_failure = 'block'\n",
                "",
                'bridge.on_failure: "block" drops all mail while the gateway does not run, and VLAN',
            ),
            (
                "[[pickup.rule]]\naction='pass'\n[[pickup.rule]]\naction='drop'\n",
                "",
                "pickup.rule[0]: matches everything, so the rules after it and the tables are never asked",
            ),
            (
                "management = ['198.51.100.2/24']\n[intercept]\nhidden = false\n",
                "",
                "intercept.hidden: false, but management has no IPv6 address: IPv6 mail is not inspected",
            ),
            (
                "management = ['2001:db8::2/64']\n[intercept]\nhidden = false\n",
                "",
                "intercept.hidden: false, but management has no IPv4 address: IPv4 mail is not inspected",
            ),
            (
                "adopt = true\nnamespace = 'host'\n[intercept]\nhidden = false\n",
                "",
                "intercept.hidden: false speaks to servers from whatever addresses the adopted bridge has",
            ),
            ("[pickup]\nlocal = 'drop'\n", "", 'pickup.local: "drop" has nothing to drop'),
        ],
    )
    def test_one(self, before: str, after: str, warning: str) -> None:
        (only,) = self.those(before + self.QUIET + after)
        assert only.startswith(warning)

    def test_nothing_protected(self) -> None:
        assert self.those("") == ["protected: there is none, so every connection and every message is outgoing"]

    @pytest.mark.parametrize(
        "lines",
        ["[pickup.port.enp1s0]\noutgoing = 'intercept'\n", "[[pickup.rule]]\nport='enp1s0'\naction = 'intercept'\n"],
    )
    def test_one_port_or_rule_that_intercepts_is_something(self, lines: str) -> None:
        assert self.those("[pickup]\nincoming = 'pass'\n" + lines + self.QUIET) == []

    def test_both_families_of_management_are_enough(self) -> None:
        management = "management = ['198.51.100.2/24', '2001:db8::2/64']\n[intercept]\nhidden = false\n"
        assert self.those(management + self.QUIET) == []


RULE = "[[rule]]\nname = 'r'\n"
FILTER = "[[filter]]\nname = 'f'\n"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("[inspect]\nmode = 'watch'", "4: inspect.mode: 'watch' is not one of enforce, observe; choose one of them"),
        ("[[rule]]\nthen = { discard = true }", "3: rule[0].name: is missing; add name = … to rule[0]"),
        ("[[rule]]\nname = ''\nthen = { discard = true }", "4: rule[0].name: '' is not a name; give 1 to 64"),
        (f"{RULE}", "3: rule[0].then: is missing; add then = … to rule[0]"),
        (f"{RULE}then = {{}}", "5: rule[0].then: does nothing; add one of accept, refuse, defer, discard, close"),
        (f"{RULE}then = {{ accept = false }}", "5: rule[0].then.accept: false is not true; write true, or leave it"),
        (
            f"{RULE}then = {{ accept = true, discard = true }}",
            "5: rule[0].then: has accept and discard, and a message has one end; keep one of them",
        ),
        (
            f"{RULE}then = {{ discard = true }}\n{RULE}then = {{ discard = true }}",
            "7: rule[1].name: 'r' is another rule's name too; give each its own",
        ),
        (f"{RULE}then = {{ refuse = '450 x' }}", "5: rule[0].then.refuse: '450 x' does not refuse: that is 5yz; write"),
        (f"{RULE}then = {{ defer = '550 x' }}", "5: rule[0].then.defer: '550 x' does not defer: that is 4yz; write it"),
        (f"{RULE}then = {{ close = '250 x' }}", "5: rule[0].then.close: '250 x' does not close: that is 4yz or 5yz"),
        (f"{RULE}then = {{ refuse = '550 4.7.1 x' }}", "5: rule[0].then.refuse: '550 4.7.1 x' has an enhanced code of"),
        (f"{RULE}then = {{ refuse = 'no' }}", "5: rule[0].then.refuse: 'no' is no reply: a code of three digits and"),
        (f"{RULE}then = {{ refuse = '550 nö' }}", "5: rule[0].then.refuse: '550 nö' is not one line of ASCII"),
        (
            f'{RULE}then = {{ refuse = "550 a\\r\\n250 b" }}',
            "5: rule[0].then.refuse: '550 a\\r\\n250 b' is not one line",
        ),
        (f"{RULE}then = {{ quarantine = true }}", "5: rule[0].then.quarantine: is not available yet: it needs a quar"),
        (f"{RULE}then = {{ filter = ['x'] }}", "5: rule[0].then.filter[0]: 'x' is no [[filter]]; add a [[filter]] of"),
        (
            f"{FILTER}address = '127.0.0.1:1'\n{RULE}then = {{ filter = 'x' }}",
            "8: rule[0].then.filter[0]: 'x' is no [[filter]]; name one of f",
        ),
        (
            f"{FILTER}address = '/x/x'\n{RULE}then = {{ filter = 'f', discard = true }}",
            "8: rule[0].then: has filter, but with discard nobody gets the message; keep one of them",
        ),
        (
            f"{FILTER}address = '/x/x'\n{FILTER}address = '/x/y'\n{RULE}then = {{ filter = 'f' }}",
            "7: filter[1].name: 'f' is another filter's name too; give",
        ),
        (f"{FILTER}", "3: filter[0].address: is missing; add address = … to filter[0]"),
        (f"{FILTER}address = 'localhost:1'", "5: filter[0].address: 'localhost:1' has no IP address; names are not"),
        (f"{FILTER}address = '127.0.0.1'", "5: filter[0].address: '127.0.0.1' has no port from 1 to 65535; write it"),
        *(
            (f"{FILTER}address = '{path}'", f"5: filter[0].address: '{path}' is not in a directory of its own; write")
            for path in ("/run/f", "/f", "/run//f", "//run/./f", "/run/a/../f")
        ),
        (f"{FILTER}address = 'unix:x'", "5: filter[0].address: 'x' is not the absolute path of a socket, of at most"),
        (f"{FILTER}address = '/x/x'\nend_s = 571", "6: filter[0].end_s: 571 is too high; the most is 570"),
        (f"{RULE}then = {{ reject = 'x' }}", "5: rule[0].then.reject: is not a known key; did you mean redirect?"),
        (f"{RULE}when = {{ client = '10.0.0.1/8' }}", "5: rule[0].when.client: 10.0.0.1/8 has host bits set; write it"),
        (f"{RULE}when = {{ client = [] }}", "5: rule[0].when.client: is an empty list; leave it out, or name one"),
        (f"{RULE}when = {{ client = ['10.0.0.0/8', 7] }}", "5: rule[0].when.client[1]: 7 is not a text; write it like"),
        (f"{RULE}when = {{ sender = '@/x/../..' }}", "5: rule[0].when.sender: '/x/../..' is not the absolute path of"),
        (
            f"{RULE}when = {{ sender = '*.example.com' }}",
            "5: rule[0].when.sender: '*.example.com' is a pattern without",
        ),
        (
            f"{RULE}when = {{ header = {{ 'a b' = '*' }} }}",
            "5: rule[0].when.header.\"a b\": 'a b' is not the name of a",
        ),
        (f"{RULE}when = {{ message = 'local' }}", "5: rule[0].when.message: 'local' is not incoming or outgoing"),
        (f"{RULE}when = {{ vlan = 7 }}", "5: rule[0].when.vlan[0]: 7 is not in bridge.vlans, so its mail is never pi"),
        (f"{RULE}when = {{ port = 'x' }}", "5: rule[0].when.port[0]: 'x' is not a port of the bridge; name one of"),
        (
            f"{RULE}when = {{ greylisted = true }}",
            "5: rule[0].when.greylisted: is not available yet: it needs what is remembered",
        ),
        (
            f"{RULE}when = {{ dns_list = 'x' }}",
            "5: rule[0].when.dns_list[0]: there is no list 'x'; add [dns.list.x] with zone",
        ),
        (f"{RULE}when = {{ dns_list = 'x y' }}", "5: rule[0].when.dns_list: 'x y' is not the name of a list; write it"),
        (f"{RULE}unanswered = 'perhaps'", "5: rule[0].unanswered: 'perhaps' is not one of no, yes, defer"),
        ("[dns.list.x]\nzone = 'x'", "4: dns.list.x.zone: 'x' is not the zone of a list; write it like"),
        ("[dns.list.x]", "3: dns.list.x.zone: is missing; add zone = … to dns.list.x"),
        (
            "[dns.list.x]\nzone = 'x.example'\nanswers = ['192.0.2.1']",
            "5: dns.list.x.answers[0]: '192.0.2.1' is not an answer of a list: they are in 127.0.0.0/8",
        ),
        (f"{RULE}when = {{ recipients_over = -1 }}", "5: rule[0].when.recipients_over: -1 is too low; the least is 0"),
    ],
)
def test_rules(lines: str, error: str) -> None:
    then = "" if "then" in lines or lines == RULE else "\nthen = { discard = true }"
    assert told(f"{LEAST}{lines}{then}")[0].startswith(error)


def test_a_list_of_rules_has_an_end() -> None:
    rules = "".join(f"[[rule]]\nname = 'r{n}'\nthen.accept = true\n" for n in range(MAX_RULES + 1))
    assert told(f"{LEAST}{rules}") == [f"3: rule: has {MAX_RULES + 1}, more than {MAX_RULES}; give fewer"]


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        (
            f"{RULE}then.discard = true\n[[rule]]\nname = 's'\nthen.discard = true",
            "rule[0]: 'r' holds for every message, so the rules after it are never asked",
        ),
        (
            f"{RULE}when.header.Subject = 'x'\nthen.accept = true\n[[rule]]\nname = 's'\nwhen.client = '10.0.0.1'\n"
            "then.refuse = '550 no'",
            "rule[1]: 's' decides behind 'r', which needs the whole message: to decide earlier, put it before that one",
        ),
        (
            f"[inspect]\nmode = 'observe'\n{RULE}then.discard = true",
            "inspect.mode: observe: what rules decide is written in the log, and not done",
        ),
        ("[inspect]\nmode = 'observe'", "inspect.mode: there are no rules"),
    ],
)
def test_rules_that_surprise(lines: str, warning: str) -> None:
    assert warning in warnings(parse(f"{LEAST}{lines}"))
