"""The configuration: one TOML file, read whole or not at all.

Every mistake in the file is reported at once, each with its key, its line, the reason and the remedy.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from importlib import resources
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import tomli_w

from bridge.flow import Action
from hwprofiles import profile as hardware
from hwprofiles.shown import cut
from hwprofiles.validation import MOST_REASON
from smtp_intercept import pickup
from smtp_intercept.accounts import LEAST_HELD_BYTES, LEAST_OF_SESSION, Budget
from smtp_intercept.answers import LARGE_FOR_NOW, MESSAGE_TOO_LARGE, Answer
from smtp_intercept.app.checks import warnings
from smtp_intercept.app.defaults import CONFIG
from smtp_intercept.app.fields import BareNewline, LocalAction, OnDoubt
from smtp_intercept.app.located import line_of
from smtp_intercept.app.maillog import Bounds
from smtp_intercept.app.mistakes import ConfigError, ConfigErrors, Mistake
from smtp_intercept.app.reading import read, whole_file
from smtp_intercept.app.rule_schema import OnSilence, TooLarge
from smtp_intercept.app.schema import Config, PickUpRule, PortPickUp
from smtp_intercept.app.tables import (
    handling,
    protected_servers,
    protection,
    relay_rule,
    resolvers,
    routes,
    uses_mta,
    ways,
)
from smtp_intercept.app.validated import validated
from smtp_intercept.direction import Direction, Network, Servers
from smtp_intercept.limits import Limits as SessionLimits
from smtp_intercept.limits import Phase
from smtp_intercept.policy import NOT_DECIDED, PASSED, Ruling
from smtp_intercept.rules import Rules
from smtp_intercept.shares import Shares
from smtp_intercept.tls.manners import Way

_TOO_LARGE: Mapping[TooLarge, Answer | None] = {
    TooLarge.REFUSE: MESSAGE_TOO_LARGE,
    TooLarge.DEFER: LARGE_FOR_NOW,
    TooLarge.PASS: None,
}

__all__ = [
    "Config",
    "ConfigError",
    "ConfigErrors",
    "budget",
    "effective",
    "handling",
    "limits",
    "load",
    "parse",
    "policy",
    "protected_servers",
    "protection",
    "queues",
    "read",
    "relay_rule",
    "resolvers",
    "routes",
    "rules",
    "sample",
    "shares",
    "silence",
    "uses_mta",
    "warnings",
    "ways",
    "workers",
]

MOST_MISTAKES = 50  # told at once; nobody reads more, and to find the line of each takes time

_LOCAL_ACTIONS = {LocalAction.ALLOW: Action.PASS, LocalAction.DROP: Action.DROP}


def load(path: Path = CONFIG) -> Config:
    """Read and check the file; `ConfigErrors` holds every mistake in it, in the order of their lines."""
    return parse(read(path), path)


def toml(text: str) -> dict[str, Any]:
    """Raises ValueError for all that is none, also for what is nested too deeply or has a number too long to read."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def parse(text: str, path: Path = CONFIG) -> Config:
    """As `load`, from text; ``path`` only appears in the errors."""
    try:
        raw = toml(text)
    except ValueError as error:
        raise _syntax(path, text, str(error)) from None
    config, mistakes = validated(raw)
    if config is None:
        raise located(mistakes, text, path)
    return config


def located(mistakes: Iterable[Mistake], text: str, path: Path) -> ConfigErrors:
    """The mistakes with their lines in the file's text, and in the order of these."""
    found = list(mistakes)
    told = found[:MOST_MISTAKES]
    errors = [
        ConfigError(m.key, cut(m.reason, MOST_REASON), m.remedy, line_of(text, m.at), path if m.at else None)
        for m in told
    ]
    errors.sort(key=lambda error: error.line or 0)
    if more := len(found) - len(told):
        errors.append(ConfigError("", f"has {more} mistakes more", "mend these first", None, path))
    return ConfigErrors(errors, len(found))


def _syntax(path: Path, text: str, message: str) -> ConfigErrors:
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    lines = text.splitlines()
    line = int(at[1]) if at and at[1] else len(lines)
    reason = message[: at.start()] if at else message
    if strange := _lookalikes(lines[line - 1] if 0 < line <= len(lines) else ""):
        return whole_file(path, f"{reason}: the line has {strange}", "type it anew; it was pasted from somewhere", line)
    return whole_file(path, reason, "correct the TOML syntax (https://toml.io)", line)


def _lookalikes(line: str) -> str:
    """Letters that look like quotes, spaces or nothing, and are not, by their names."""
    found = dict.fromkeys(c for c in line if not c.isascii() and unicodedata.category(c) in ("Pi", "Pf", "Zs", "Cf"))
    return ", ".join(f"U+{ord(c):04X} ({unicodedata.name(c, 'without a name').lower()})" for c in found)


def sample() -> str:
    """A whole configuration with every key explained."""
    return (resources.files("smtp_intercept.app") / "sample.toml").read_text(encoding="utf-8")


def effective(config: Config, profile: hardware.Profile | None = None) -> str:
    """The whole configuration as TOML, defaults and (if given) the hardware profile's limits included; what is not set
    is a comment. Without a profile, loading it gives an equal `Config`."""
    whole = config.model_dump(mode="json", exclude_none=True)
    unset = [f"# {key} is not set" for key in _unset(config)]
    if profile is not None:
        whole["limits"] |= asdict(limits(config, profile))
        whole["interceptor"]["workers"], whole["diverter"]["queues"] = workers(config, profile), queues(config, profile)
    else:
        tables = {"limits": config.limits, "interceptor": config.interceptor, "diverter": config.diverter}
        silent = [f"{table}.{name}" for table, values in tables.items() for name, value in values if value is None]
        unset += [f"# {name} is the hardware profile's" for name in silent if name != "limits.next_hops"]
    return tomli_w.dumps(whole) + "".join(f"{line}\n" for line in unset)


def _unset(config: Config) -> Iterator[str]:
    if config.relay is None:
        yield "[relay]"
    if config.limits.next_hops is None:
        yield "limits.next_hops"
    for section in (config.mta, config.relay, config.tracking, config.metrics):
        for key, value in section or ():
            if value is None:
                yield f"{type(section).__name__.lower()}.{key}"


def limits(config: Config, profile: hardware.Profile) -> hardware.Limits:
    """The limits in force: the configuration's, else the hardware profile's."""
    given = config.limits.model_dump(include={field.name for field in fields(profile.limits)}, exclude_none=True)
    return replace(profile.limits, **given)


def workers(config: Config, profile: hardware.Profile) -> int:
    """Interceptors in force."""
    return config.interceptor.workers or profile.workers


def queues(config: Config, profile: hardware.Profile) -> int:
    """Diverters in force, each with a queue of its own."""
    return config.diverter.queues or profile.queues


def shares(config: Config) -> Shares:
    """What one client may have of the places that all have."""
    limits = config.limits
    return Shares(limits.client_percent, limits.network_percent, limits.sessions_per_client)


def budget(config: Config, processes: int | None = 1) -> Budget:
    """What one of so many processes that share it may hold of peers' octets, and one client of that."""
    limits = config.limits
    held_bytes = limits.held_bytes or (limits.sessions or 1) * LEAST_OF_SESSION
    return Budget(
        max(LEAST_HELD_BYTES, held_bytes) // (processes or 1),
        limits.client_percent,
        limits.network_percent,
    )


def log_bounds(config: Config) -> Bounds:
    """Of the mail log."""
    log = config.log
    return Bounds(log.records_per_minute_per_network, log.records_per_minute, log.mail_bytes, log.reserve_bytes)


def balancer(config: Config) -> Callable[[str], bool]:
    """Whether a client's PROXY protocol is believed, by its address."""
    networks = config.intercept.balancers
    return lambda address: any(ip_address(address) in network for network in networks)


def rules(config: Config, direction: Direction = Direction.INCOMING, way: Way = Way.PASS) -> Rules:
    """What every session of this direction, with this way of STARTTLS, does besides passing on what it reads. An
    incoming connection's server is one's own; any other's may be its client's accomplice."""
    intercept, given = config.intercept, config.limits.model_dump()
    doubtful = intercept.on_doubt or (OnDoubt.PASS if direction is Direction.INCOMING else OnDoubt.CLOSE)
    own = {name: given[name] for name in given.keys() & {field.name for field in fields(SessionLimits)}}
    patience_s = {phase: float(given[f"wait_{phase.name.lower()}_s"]) for phase in Phase}
    return Rules(
        strip_starttls=way is Way.STRIP,
        reject_bare_newline=intercept.bare_newline is BareNewline.REJECT,
        close_in_doubt=doubtful is OnDoubt.CLOSE,
        pass_client_doubt=intercept.on_client_doubt is OnDoubt.PASS,
        takes_part=way is Way.TERMINATE,
        limits=SessionLimits(
            **own,
            held_message_bytes=config.inspect.size_bytes,
            decide_s=float(config.inspect.decide_s),
            patience_s=patience_s,
        ),
        too_large=_TOO_LARGE[config.inspect.too_large],
        silence=silence(config),
    )


def silence(config: Config) -> Ruling:
    """What rules that are not decided in time are taken for."""
    return PASSED if config.inspect.on_silence is OnSilence.ACCEPT else NOT_DECIDED


def policy(
    config: Config, servers: Servers, own: frozenset[bytes], links: Mapping[str, str] | None = None
) -> pickup.Policy:
    """The pick-up policy. ``own`` are the box's packed addresses. ``links`` gives the name of the link for each port
    that the configuration names by its MAC address: `pickup.decide` is asked with names of links."""
    names = links or {}
    default = pickup.PickUp(config.pickup.incoming, config.pickup.outgoing, _LOCAL_ACTIONS[config.pickup.local])
    return pickup.Policy(
        own=own,
        servers=servers,
        default=default,
        by_port={
            names.get(port, port): default.overridden(_set_by(table)) for port, table in config.pickup.port.items()
        },
        rules=tuple(_rule(index, rule, names) for index, rule in enumerate(config.pickup.rule)),
    )


def _set_by(table: PortPickUp) -> dict[Direction, Action]:
    actions = {
        Direction.INCOMING: table.incoming,
        Direction.OUTGOING: table.outgoing,
        Direction.LOCAL: None if table.local is None else _LOCAL_ACTIONS[table.local],
    }
    return {direction: action for direction, action in actions.items() if action is not None}


def _rule(index: int, rule: PickUpRule, names: Mapping[str, str]) -> pickup.Rule:
    return pickup.Rule(
        name=f"pickup.rule[{index}]",
        client=_network(rule.client),
        server=_network(rule.server),
        port=None if rule.port is None else names.get(rule.port, rule.port),
        direction=rule.direction,
        action=rule.action,
        vlan=rule.vlan,
    )


def _network(network: IPv4Network | IPv6Network | None) -> Network | None:
    return None if network is None else Network.of(network)
