"""The law of a valid file: whatever text is accepted, all that is made of it can be made.

A text of the schema's own keys with values of their kinds, sound or not, is told of with `ConfigErrors` alone;
one that is accepted gives the bridge, the plan, the policy, the next hops and the limits, and is the same when printed
and read again. So what remains to refuse is the host's (`tests/kernel/test_check.py`).
"""

from __future__ import annotations

from typing import Any

import tomli_w
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from bridge.plan import make_plan
from bridge.present import LinkFacts, Present
from hwprofiles.shelf import profiles
from smtp_intercept.app import config as configuration
from smtp_intercept.app.config import Config, ConfigError, ConfigErrors
from smtp_intercept.app.rule_schema import written
from smtp_intercept.app.wanted import wanted
from smtp_intercept.direction import Servers
from smtp_intercept.inspect.written import read_rules

PORTS = ("p0", "p1", "p2")
GENERIC = next(profile for profile in profiles() if profile.name == "generic")
PRESENT = Present({name: LinkFacts(name, mac=f"00:00:5e:00:53:0{n}") for n, name in enumerate(("lo", *PORTS))})
ACTIONS = st.sampled_from(["intercept", "pass", "drop", "reject"])
HANDLERS = st.sampled_from(["proxy", "mta"])
NUMBERS = st.sampled_from([1, 1, 2, 5, 25, 300, 300, 587, 1000, 2000, 65_536, 0, -1])
SERVERS = st.sampled_from(["192.0.2.20", "192.0.2.0/24", "2001:db8::20", "mx", "mail.example.com", "0.0.0.0/0", "*.x"])
DOMAINS = st.sampled_from(["example.com", "example.net", "EXAMPLE.com.", "*.example.org", "bücher.example"])
NETWORKS = st.sampled_from(["10.0.0.0/8", "192.0.2.7", "0.0.0.0/0", "::/0", "10.0.0.1/8"])
FILES = st.sampled_from(["/x/a", "/x/b", "/x/c", "relative"])


def table(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


def some(of: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=most)


PORT = st.sampled_from(["p0", "p1"] * 4 + ["p2", "p9"])
BRIDGE = st.fixed_dictionaries(
    {"ports": st.sampled_from([["p0", "p1"], ["p2", "p0", "p1"], ["p0", "p1"], ["p0"]])},
    optional={
        "name": st.sampled_from(["br0", "wire", "br1", "p0"]),
        "stp": st.booleans(),
        "vlans": st.sampled_from([[], [10], [10, 20], [4094], [4095], [10, 10]]),
        "on_failure": st.sampled_from(["pass", "block"]),
        "link_loss": st.sampled_from(["keep", "propagate"]),
        "management": st.sampled_from([[], ["198.51.100.2/24"], ["198.51.100.2/24", "2001:db8:1::2/64"]]),
        "gateway": st.sampled_from(["198.51.100.1", "192.0.2.1"]),
    },
)
RULE = st.fixed_dictionaries(
    {"action": ACTIONS},
    optional={"client": NETWORKS, "server": NETWORKS, "port": PORT, "vlan": NUMBERS, "direction": st.just("incoming")},
)
PROTECTED = st.fixed_dictionaries(
    {"servers": some(SERVERS)},
    optional={
        "domain": DOMAINS,
        "subdomains": st.booleans(),
        "handler": HANDLERS,
        "deliver_to": some(st.sampled_from(["192.0.2.20:2525", "mx", "mail.example.com"])),
    },
)
RULES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c", ""]),
        "then": st.sampled_from(
            [{"accept": True}, {"refuse": "550 5.7.1 no"}, {"close": "421 go"}, {"discard": True}, {}, {"refuse": "no"}]
        ),
    },
    optional={
        "mode": st.sampled_from(["enforce", "observe"]),
        "when": table(
            client=some(NETWORKS),
            sender=st.sampled_from(["a@example.com", ["*@*.com", ".example.org"], "@/x/list"]),
            recipient_not=st.sampled_from(["example.com", ["<>"]]),
            port=PORT,
            vlan=NUMBERS,
            message=st.just("incoming"),
            hours=st.sampled_from(["08:00-18:00", "8"]),
            header=st.sampled_from([{"Subject": "*x*"}, {"X": ["a", "b"]}, {"a b": "x"}]),
            size_over_bytes=NUMBERS,
        ),
    },
)
FILE = table(
    inspect=table(mode=st.sampled_from(["enforce", "observe"])),
    rule=some(RULES, 2),
    intercept=table(
        ports=st.sampled_from([[25], [25, 587], [2525], [25, 25], []]),
        hidden=st.booleans(),
        incoming=HANDLERS,
        outgoing=HANDLERS,
        port=st.dictionaries(PORT, table(incoming=HANDLERS, outgoing=HANDLERS), max_size=2),
    ),
    pickup=table(
        incoming=ACTIONS,
        outgoing=ACTIONS,
        local=st.sampled_from(["allow", "drop"]),
        port=st.dictionaries(PORT, table(incoming=ACTIONS, outgoing=ACTIONS), max_size=2),
        rule=some(RULE, 2),
    ),
    protected=some(PROTECTED, 2),
    mta=table(
        queue=st.sampled_from(["own", "relay"]),
        source=st.sampled_from(["box", "client"]),
        relay_from=some(NETWORKS),
        relay_from_ports=some(PORT),
    ),
    relay=st.fixed_dictionaries(
        {"host": st.sampled_from(["relay.example.net", "192.0.2.25", "relay"])},
        optional={"username": st.just("u"), "password_file": FILES, "tls": st.sampled_from(["none", "verified"])},
    ),
    limits=table(sessions=NUMBERS, session_idle_s=NUMBERS, next_hops=NUMBERS, drain_s=NUMBERS),
    interceptor=table(workers=NUMBERS),
    diverter=table(queues=NUMBERS),
)


def read(text: str) -> tuple[Config | None, tuple[ConfigError, ...]]:
    try:
        return configuration.parse(text), ()
    except ConfigErrors as errors:
        return None, errors.errors


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bridge=BRIDGE, rest=FILE)
def test_what_is_accepted_can_be_made(bridge: dict[str, Any], rest: dict[str, Any]) -> None:
    config, errors = read(tomli_w.dumps({"bridge": bridge, **rest}))
    event("refused" if config is None else "accepted")
    assert all(error.line and error.reason and error.remedy for error in errors)
    if config is None:
        return
    assert configuration.parse(configuration.effective(config)) == config
    want = wanted(config, GENERIC, "room")
    made = make_plan(want, PRESENT)
    assert [leg.port for leg in made.legs] == list(config.bridge.ports)
    policy = configuration.policy(config, Servers(), frozenset())
    assert policy.by_port.keys() == config.pickup.port.keys()
    configuration.rules(config)
    assert len(read_rules(map(written, config.rule), lambda path, kind: ())) == len(config.rule)
    configuration.routes(config)
    configuration.relay_rule(config)
    configuration.handling(config)
    assert all(": " in warning for warning in configuration.warnings(config))
