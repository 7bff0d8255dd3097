"""The configuration: the sample, every mistake with its line and remedy, warnings, and what is in force."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from bridge.flow import Action
from hwprofiles.match import named
from hwprofiles.shelf import profiles
from smtp_intercept.app import config as configuration
from smtp_intercept.app.config import (
    Config,
    ConfigErrors,
    effective,
    handling,
    limits,
    load,
    parse,
    policy,
    protected_servers,
    protection,
    sample,
)
from smtp_intercept.app.fields import (
    BareNewline,
    BypassWhen,
    LinkLoss,
    LocalAction,
    OnDoubt,
    OnFailure,
    OnOverload,
)
from smtp_intercept.app.reading import MAX_FILE_BYTES
from smtp_intercept.direction import Direction, Domains, Protection, Servers
from smtp_intercept.handling import Handler
from smtp_intercept.pickup import decide
from smtp_intercept.tls.manners import Way

LEAST = '[bridge]\nports = ["enp1s0", "enp2s0"]\n'
GENERIC = named("generic", profiles())


def told(text: str) -> list[str]:
    """The mistakes in a text: ``LINE: KEY: REASON; REMEDY``."""
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("x"))
    return [str(error).removeprefix("x:") for error in caught.value.errors]


class TestGood:
    def test_the_least_is_two_ports_and_the_defaults_are_the_documented_ones(self) -> None:
        config = parse(LEAST)
        assert config.bridge.model_dump() == {
            "name": "br0",
            "ports": ("enp1s0", "enp2s0"),
            "adopt": False,
            "stp": False,
            "on_failure": OnFailure.PASS,
            "link_loss": LinkLoss.KEEP,
            "bypass": BypassWhen.BOX,
            "management": (),
            "vlans": (),
            "gateway": (),
            "namespace": "own",
            "profile": "auto",
        }
        assert config.intercept.model_dump() == {
            "ports": (25,),
            "tls_ports": (),
            "hidden": True,
            "incoming": Handler.PROXY,
            "outgoing": Handler.PROXY,
            "starttls": Way.PASS,
            "bare_newline": BareNewline.REJECT,
            "on_doubt": None,
            "on_client_doubt": OnDoubt.CLOSE,
            "balancers": (),
            "on_overload": OnOverload.PASS,
            "port": {},
        }
        assert config.pickup.model_dump() == {
            "incoming": Action.INTERCEPT,
            "outgoing": Action.PASS,
            "local": LocalAction.ALLOW,
            "port": {},
            "rule": (),
        }
        assert (config.protected, str(config.log.mail)) == ((), "/var/log/tollbridge/mail.log")

    def test_the_sample_is_sound_and_names_every_key(self) -> None:
        config = parse(sample())
        assert config.pickup.port["enp2s0"].outgoing is Action.INTERCEPT
        assert config.protected[0].servers == ("192.0.2.20", "2001:db8::/64", "mail.example.com", "mx")
        assert config.pickup.rule[0].client == ip_network("10.0.0.0/8")
        raw = tomllib.loads(sample())
        for section, model in Config.model_fields.items():
            several = section in ("bypass", "protected", "rule", "filter")
            present = raw[section][0] if several else raw[section]
            keys = parse(effective(config)).model_dump()[section]
            assert set(present) == set(keys[0] if several else keys), model

    def test_its_defaults_are_those_it_states(self) -> None:
        """The sample's limits are the generic profile's, and what it gives in brackets is what silence means."""
        config = parse(sample())
        assert limits(config, GENERIC) == GENERIC.limits
        silent = parse(LEAST)
        shown = {"port", "on_doubt", "balancers"}  # their brackets say what silence means
        assert config.intercept.model_dump(exclude=shown) == silent.intercept.model_dump(exclude=shown)
        assert (config.log, config.pickup.incoming, config.pickup.outgoing, config.pickup.local) == (
            silent.log,
            silent.pickup.incoming,
            silent.pickup.outgoing,
            silent.pickup.local,
        )

    def test_spelling_is_made_one(self) -> None:
        config = parse(
            """
            [bridge]
            ports = ["52:54:00:AB:CD:EF", "enp2s0"]
            [pickup.port."52:54:00:AB:CD:EF"]
            incoming = "drop"
            [[protected]]
            domain = "Bücher.Example."
            servers = ["MX", "Mail.Example.COM", "2001:DB8::1"]
            """
        )
        assert config.bridge.ports[0] == "52:54:00:ab:cd:ef"
        assert list(config.pickup.port) == ["52:54:00:ab:cd:ef"]
        assert config.protected[0].domain == "xn--bcher-kva.example"
        assert config.protected[0].servers == ("mx", "mail.example.com", "2001:db8::1")

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            parse(LEAST).bridge.name = "br1"  # type: ignore[misc]


class TestTheFileItself:
    def errors(self, path: Path) -> str:
        with pytest.raises(ConfigErrors) as caught:
            load(path)
        return str(caught.value)

    def test_good(self, tmp_path: Path) -> None:
        path = tmp_path / "tollbridge.toml"
        path.write_text(sample())
        assert load(path) == parse(sample())

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "none.toml"
        assert self.errors(path).startswith(f"{path}: cannot be read: No such file or directory; create it, or name ")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.errors(tmp_path) == f"{tmp_path}: is a directory; name a file"

    def test_larger_than_1_mib(self, tmp_path: Path) -> None:
        path = tmp_path / "tollbridge.toml"
        path.write_text(LEAST + "#" * (MAX_FILE_BYTES - len(LEAST)))
        assert load(path) == parse(LEAST)
        path.write_text(LEAST + "#" * (MAX_FILE_BYTES - len(LEAST) + 1))
        assert self.errors(path) == f"{path}: is larger than 1048576 bytes; is it the right file?"
        assert self.errors(Path("/dev/zero")) == "/dev/zero: is a device; name a file"

    def test_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "tollbridge.toml"
        path.write_bytes(LEAST.encode() + b"name = 'br\xfc'\n")
        assert self.errors(path) == f"{path}:3: byte 0xfc is not UTF-8; save it as UTF-8"

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("[bridge]\nports = [\n", "2: "),
            ("[bridge]\nports\n", "2: Expected '=' after a key in a key/value pair; correct the TOML syntax"),
            ("[bridge]\n[bridge]\n", "2: Cannot declare ('bridge',) twice; correct the TOML syntax"),
            ("a = 1\na = 2\n", "2: Cannot overwrite a value; correct the TOML syntax"),
        ],
    )
    def test_not_toml(self, text: str, error: str) -> None:
        (only,) = told(text)
        assert only.startswith(error)


names = st.from_regex(r"[a-z][a-z0-9.-]{0,10}", fullmatch=True).filter(lambda name: name not in {"lo", "br0"})
actions = st.sampled_from(["intercept", "pass", "drop", "reject"])
local = st.sampled_from(["allow", "drop"])
networks = st.sampled_from(["10.0.0.0/8", "192.0.2.7", "0.0.0.0/0"])


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    ports = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    vlans = draw(st.lists(st.integers(1, 4094), max_size=3, unique=True))
    rule = st.fixed_dictionaries(
        {"action": actions},
        optional={
            "client": networks,
            "server": networks,
            "port": st.sampled_from(ports),
            "vlan": st.sampled_from([0, *vlans]),
            "direction": st.sampled_from(["incoming", "outgoing"]),
        },
    )
    table = some(incoming=actions, outgoing=actions, local=local)
    protected = some(subdomains=st.booleans(), servers=st.lists(st.sampled_from(["mx", "192.0.2.20", "m.example"])))
    return {
        "bridge": {
            "ports": ports,
            "vlans": vlans,
            **draw(some(stp=st.booleans(), on_failure=st.sampled_from(["pass", "block"]))),
        },
        "pickup": {
            **draw(table),
            "port": draw(st.dictionaries(st.sampled_from(ports), table)),
            "rule": draw(st.lists(rule, max_size=3)),
        },
        "protected": [{"domain": f"d{n}.example", **draw(protected)} for n in range(draw(st.integers(0, 3)))],
        "log": draw(some(mail=st.sampled_from(["/var/log/m.log", '/tmp/ü "x".log']))),
        "limits": draw(some(sessions=st.integers(1, 1000), drain_s=st.integers(0, 60))),
    }


class TestEffective:
    def test_the_sample_loaded_again_is_equal(self) -> None:
        config = parse(sample())
        assert parse(effective(config)) == config

    @given(files())
    def test_loading_it_gives_an_equal_configuration(self, raw: dict[str, Any]) -> None:
        config = parse(tomli_w.dumps(raw))
        assert parse(effective(config)) == config
        assert limits(parse(effective(config, GENERIC)), GENERIC) == limits(config, GENERIC)

    def test_defaults_are_shown_and_what_is_not_set_is_named(self) -> None:
        text = effective(parse(LEAST))
        assert 'on_failure = "pass"' in text
        assert "gateway = []" in text
        assert "# [relay] is not set" in text
        assert "# limits.sessions is the hardware profile's" in text

    def test_with_a_profile_every_limit_is_a_number(self) -> None:
        text = effective(parse(f"{LEAST}[limits]\nsessions = 7\n"), GENERIC)
        assert "sessions = 7\n" in text
        assert "# limits.next_hops is not set\n" in text
        assert "hardware profile's" not in text


class TestInForce:
    CONFIG = parse(sample())

    def test_limits_are_the_files_else_the_profiles(self) -> None:
        config = parse(f"{LEAST}[limits]\ndrain_s = 0\n")
        assert limits(config, GENERIC) == replace(GENERIC.limits, drain_s=0)

    def test_domains(self) -> None:
        text = "[[protected]]\ndomain = 'a.example'\n[[protected]]\ndomain = 'b.example'\nsubdomains = true\n"
        assert protection(parse(LEAST + text)) == Protection(Domains.of([("a.example", False), ("b.example", True)]))

    def test_servers_without_a_domain(self) -> None:
        text = "[[protected]]\nservers = ['192.0.2.20', '192.0.2.0/28']\nhandler = 'mta'\n"
        config = parse(f"{LEAST}{text}[[protected]]\ndomain = 'a.example'\n")
        listed = Servers.of(["192.0.2.20", "192.0.2.0/28"])
        assert protection(config) == Protection(Domains.of([("a.example", False)]), listed)
        assert protected_servers(config) == (("[192.0.2.20]", ("192.0.2.20", "192.0.2.0/28")), ("a.example", ()))
        assert handling(config).choose("enp1s0", Direction.INCOMING, ("[192.0.2.20]",)).decided_by == (
            "protected[0].handler"
        )
        assert parse(effective(config, GENERIC)).protected == config.protected

    def test_protected_servers(self) -> None:
        expected = (("example.com", ("192.0.2.20", "2001:db8::/64", "mail.example.com", "mx")),)
        assert protected_servers(self.CONFIG) == expected

    @pytest.mark.parametrize(
        ("client", "server", "port", "answer"),
        [
            ("203.0.113.9", "192.0.2.20", "enp1s0", ("incoming", "intercept", "pickup.incoming")),
            ("10.0.0.9", "192.0.2.20", "enp1s0", ("incoming", "pass", "pickup.rule[0]")),
            ("10.0.0.9", "192.0.2.20", "enp2s0", ("incoming", "intercept", "pickup.incoming")),
            ("192.0.2.20", "203.0.113.9", "enp2s0", ("outgoing", "intercept", "pickup.port.enp2s0.outgoing")),
            ("192.0.2.20", "203.0.113.9", "enp1s0", ("outgoing", "pass", "pickup.outgoing")),
            ("203.0.113.9", "198.51.100.2", "enp1s0", ("local", "pass", "pickup.local")),
        ],
    )
    def test_the_samples_policy(self, client: str, server: str, port: str, answer: tuple[str, str, str]) -> None:
        own = frozenset(interface.ip.packed for interface in self.CONFIG.bridge.management)
        in_force = policy(self.CONFIG, Servers.of(["192.0.2.20"]), own)
        decision = decide(in_force, ip_address(client).packed, ip_address(server).packed, port)
        assert (decision.direction.value, decision.action.value, decision.decided_by) == answer

    def test_local_allow_and_drop(self) -> None:
        config = parse(f"{LEAST}[pickup]\nlocal = 'drop'\n[pickup.port.enp1s0]\nlocal = 'allow'\n")
        box = ip_address("198.51.100.2").packed
        in_force = policy(config, Servers(), frozenset({box}))
        assert decide(in_force, box, box, "enp1s0").action is Action.PASS
        assert decide(in_force, box, box, "enp2s0").action is Action.DROP

    def test_a_port_named_by_its_mac_is_asked_for_by_its_link(self) -> None:
        mac = "52:54:00:12:34:56"
        config = parse(
            f"[bridge]\nports = ['{mac}', 'enp2s0']\n[pickup.port.'{mac}']\noutgoing = 'drop'\n"
            f"[[pickup.rule]]\nport = '{mac}'\ndirection = 'incoming'\naction = 'reject'\n"
        )
        server = ip_address("192.0.2.20").packed
        for servers, action, direction in (
            (Servers(), Action.DROP, Direction.OUTGOING),
            (Servers.of(["192.0.2.20"]), Action.REJECT, Direction.INCOMING),
        ):
            in_force = policy(config, servers, frozenset(), {mac: "enp1s0"})
            decision = decide(in_force, server, server, "enp1s0")
            assert (decision.action, decision.direction) == (action, direction)


def test_what_the_module_promises_exists() -> None:
    assert all(hasattr(configuration, name) for name in configuration.__all__)
