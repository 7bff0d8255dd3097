"""The configuration with every port by the name of its link: labels on the case and the profile's pair are looked up.

The name of a link wins over a MAC address, and both over a label. Reads netlink and sysfs; changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hwprofiles.box import Box
from hwprofiles.case import Case, LabelError, case, case_of, default_pair, resolved
from hwprofiles.match import named
from hwprofiles.profile import Profile
from hwprofiles.shelf import profiles
from smtp_intercept.app import config as configuration
from smtp_intercept.app import seen
from smtp_intercept.app.checks import CHECKS
from smtp_intercept.app.config import Config
from smtp_intercept.app.fields import FROM_PROFILE
from smtp_intercept.app.mistakes import Mistake, MistakeError
from smtp_intercept.app.ports import NO_PORTS
from smtp_intercept.app.rule_schema import Rule

_T = TypeVar("_T")


def load(path: Path) -> Config:
    """As `config.load`. Raises `ConfigErrors` for a label that names no port, or several."""
    return parse(configuration.read(path), path)


def parse(text: str, path: Path) -> Config:
    """As `config.parse`."""
    try:
        return on_this_box(configuration.parse(text, path))
    except MistakeError as error:
        raise configuration.located(error.mistakes, text, path) from None


def on_this_box(config: Config) -> Config:
    """A port that is not here is left as it is named where this box has no labels: whoever needs it says so."""
    names, here_now = tuple(_names(config)), present()
    if config.bridge.ports != FROM_PROFILE and here_now.keys() >= {*names}:
        return _by_link(config, {name: here_now[name] for name in names})
    box, shelf = seen.box(), profiles()
    chosen = None if config.bridge.profile == "auto" else named(config.bridge.profile, shelf)
    try:
        pair = default_pair(box, shelf, chosen) if config.bridge.ports == FROM_PROFILE else ()
        links = dict(zip(names, resolved(names, here_now, box, shelf, chosen), strict=True))
    except LabelError as error:
        labels = case_of(box, shelf) if chosen is None else case(chosen, box)
        if config.bridge.ports == FROM_PROFILE:
            raise MistakeError(Mistake(("bridge", "ports"), str(error), _remedy(labels, box))) from None
        if not (labels.links or labels.ambiguous):
            return config
        reason = f"there is no such link, and {error}"
        raise MistakeError(Mistake(("bridge", "ports"), reason, _remedy(labels, box))) from None
    return _by_link(config, {name: here_now.get(link, link) for name, link in links.items()}, pair)


def _by_link(config: Config, links: Mapping[str, str], pair: tuple[str, ...] = ()) -> Config:
    if not pair and all(name == link for name, link in links.items()):
        return config
    return _checked(_renamed(config, pair or _by(links, config.bridge.ports), links))


def case_here(profile: Profile) -> Case:
    """The case of this box as that profile has it."""
    return case(profile, seen.box()) if profile.ports.labels else Case(profile.name)


def present() -> dict[str, str]:
    """Names and MACs of all links → their names. A MAC that several ports have stays itself; what is made of ports, as
    a bridge is, has one of theirs."""
    known = list(seen.names().values())
    ports = [link for link in known if link.kind not in NO_PORTS]
    macs = Counter(link.mac for link in ports)
    by_mac = {link.mac: link.name if macs[link.mac] == 1 else link.mac for link in ports if link.mac}
    return {**by_mac, **{link.name: link.name for link in known}}


def link_of(name: str, config: Config) -> str:
    """A port of the bridge as somebody types it, by name, MAC or label; the same if it is none."""
    if name in config.bridge.ports:
        return name
    present_now, chosen = (
        present(),
        named(config.bridge.profile, profiles()) if config.bridge.profile != "auto" else None,
    )
    with suppress(LabelError):
        (name,) = resolved((name,), present_now, seen.box(), profiles(), chosen)
    return present_now.get(name, name)


def _remedy(labels: Case, box: Box) -> str:
    listed = ", ".join(labels.titled(nic.name) for nic in box.physical) or "none that is a device"
    return f"name links or labels; here are {listed}"


def _names(config: Config) -> Iterator[str]:
    """Every port that the configuration names, once."""
    ports = () if config.bridge.ports == FROM_PROFILE else config.bridge.ports
    rules = [rule.port for rule in config.pickup.rule if rule.port is not None]
    rules += [port for rule in config.rule for port in (*(rule.when.port or ()), *(rule.when.port_not or ()))]
    relays = [port for relay in config.bypass for port in relay.ports]
    yield from dict.fromkeys(
        [*ports, *config.intercept.port, *config.pickup.port, *rules, *config.mta.relay_from_ports, *relays]
    )


def _by(links: Mapping[str, str], ports: Iterable[str]) -> tuple[str, ...]:
    return tuple(links[port] for port in ports)


def _renamed(config: Config, ports: tuple[str, ...], links: Mapping[str, str]) -> Config:
    rules = tuple(
        rule if rule.port is None else rule.model_copy(update={"port": links[rule.port]}) for rule in config.pickup.rule
    )
    changes = {
        "bridge": {"ports": ports},
        "intercept": {"port": _keyed(("intercept", "port"), config.intercept.port, links)},
        "pickup": {"port": _keyed(("pickup", "port"), config.pickup.port, links), "rule": rules},
        "mta": {"relay_from_ports": _by(links, config.mta.relay_from_ports)},
    }
    tables = {name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    relays = tuple(relay.model_copy(update={"ports": _by(links, relay.ports)}) for relay in config.bypass)
    decisions = tuple(_rule_renamed(rule, links) for rule in config.rule)
    return config.model_copy(update={**tables, "bypass": relays, "rule": decisions})


def _rule_renamed(rule: Rule, links: Mapping[str, str]) -> Rule:
    given = {key: ports for key in ("port", "port_not") if (ports := getattr(rule.when, key))}
    if not given:
        return rule
    named_by = {key: _by(links, ports) for key, ports in given.items()}
    return rule.model_copy(update={"when": rule.when.model_copy(update=named_by)})


def _keyed(at: tuple[str, str], tables: Mapping[str, _T], links: Mapping[str, str]) -> dict[str, _T]:
    by_link: dict[str, _T] = {}
    for port, table in tables.items():
        if links[port] in by_link:
            raise MistakeError(
                Mistake((*at, port), f"is {links[port]}, which has a table already", "write one of them")
            )
        by_link[links[port]] = table
    return by_link


def _checked(config: Config) -> Config:
    """What the names hid: two of them for one port, a port that is not of the bridge."""
    checks: Sequence[tuple[tuple[str, ...], Callable[..., Iterable[Mistake]]]] = CHECKS
    mistakes = [m for needed, check in checks for m in check(*(getattr(config, name) for name in needed))]
    if mistakes:
        raise MistakeError(*mistakes)
    return config
