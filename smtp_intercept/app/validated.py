"""From what the TOML parser gives to a whole `Config`, or to every mistake on the way.

Tables are read one by one and each check runs whenever the tables that it needs are sound, so that one slip does not
hide the next.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hwprofiles.validation import told
from smtp_intercept.app.checks import CHECKS
from smtp_intercept.app.located import KeyPath, spelled
from smtp_intercept.app.mistakes import Mistake
from smtp_intercept.app.rule_schema import MAX_FILTERS, MAX_RULES, Filter, Inspect, Rule, RuleTables
from smtp_intercept.app.schema import (
    Bridge,
    Bypass,
    Config,
    Diverter,
    Dns,
    Intercept,
    Interceptor,
    Limits,
    Log,
    Metrics,
    Mta,
    PickUp,
    PickUpRule,
    PortHandlers,
    PortPickUp,
    Protected,
    Relay,
    Tracking,
)
from smtp_intercept.app.tls_schema import Tls, TlsTables

_TABLES: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): Config,
    ("bridge",): Bridge,
    ("bypass", "*"): Bypass,
    ("intercept",): Intercept,
    ("intercept", "port", "*"): PortHandlers,
    ("pickup",): PickUp,
    ("pickup", "port", "*"): PortPickUp,
    ("pickup", "rule", "*"): PickUpRule,
    ("protected", "*"): Protected,
    **RuleTables,
    **TlsTables,
    ("mta",): Mta,
    ("relay",): Relay,
    ("dns",): Dns,
    ("log",): Log,
    ("tracking",): Tracking,
    ("metrics",): Metrics,
    ("limits",): Limits,
    ("interceptor",): Interceptor,
    ("diverter",): Diverter,
}
_SECTIONS: Mapping[str, TypeAdapter[Any]] = {
    "bridge": TypeAdapter(Bridge),
    "bypass": TypeAdapter(tuple[Bypass, ...]),
    "intercept": TypeAdapter(Intercept),
    "pickup": TypeAdapter(PickUp),
    "protected": TypeAdapter(tuple[Protected, ...]),
    "inspect": TypeAdapter(Inspect),
    "filter": TypeAdapter(Annotated[tuple[Filter, ...], Field(max_length=MAX_FILTERS)]),
    "rule": TypeAdapter(Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)]),
    "tls": TypeAdapter(Tls),
    "mta": TypeAdapter(Mta),
    "relay": TypeAdapter(Relay | None),
    "dns": TypeAdapter(Dns),
    "log": TypeAdapter(Log),
    "tracking": TypeAdapter(Tracking),
    "metrics": TypeAdapter(Metrics),
    "limits": TypeAdapter(Limits),
    "interceptor": TypeAdapter(Interceptor),
    "diverter": TypeAdapter(Diverter),
}


def validated(raw: Mapping[str, Any]) -> tuple[Config | None, list[Mistake]]:
    """The configuration, or None and every mistake in it. ``raw`` is what a TOML parser gives."""
    sections: dict[str, Any] = {}
    mistakes = [_unknown((name,)) for name in raw if name not in Config.model_fields]
    for name, section in _SECTIONS.items():
        try:
            sections[name] = section.validate_python(_frozen(raw.get(name, _absent(name))))
        except ValidationError as error:
            mistakes += [_told((name, *details["loc"]), details) for details in error.errors()]
    for needed, check in CHECKS:
        if sections.keys() >= set(needed):
            mistakes += check(*(sections[name] for name in needed))
    return (None, mistakes) if mistakes else (Config(**sections), [])


def _absent(section: str) -> Any:
    return {"bypass": (), "protected": (), "rule": (), "filter": (), "relay": None}.get(section, {})


def _frozen(value: Any) -> Any:
    match value:
        case dict():
            return {key: _frozen(item) for key, item in value.items()}
        case list():
            return tuple(map(_frozen, value))
    return value


def _told(at: KeyPath, details: ErrorDetails) -> Mistake:
    at = tuple(part for part in at if part != "[key]")
    reason, remedy = told(details)
    match details["type"]:
        case "missing":
            remedy = f"add {at[-1]} = … to {spelled(at[:-1])}"
        case "extra_forbidden":
            return _unknown(at)
        case "tuple_type" if isinstance(details["input"], dict):
            remedy = f"write it as [[{spelled(at)}]]"
    return Mistake(at, reason, remedy)


def _unknown(at: KeyPath) -> Mistake:
    key, within = str(at[-1]), tuple(part for part in at[:-1])
    table = _TABLES.get(_pattern(within), Config)
    near = difflib.get_close_matches(key, table.model_fields, n=1)
    elsewhere = [path for path, other in _TABLES.items() if path and key in other.model_fields]
    if near:
        remedy = f"did you mean {near[0]}?"
    elif elsewhere:
        remedy = f"it belongs to [{'.'.join(elsewhere[0])}]"
    else:
        remedy = f"known here are {', '.join(table.model_fields)}"
    return Mistake(at, "is not a known key", remedy)


def _pattern(path: KeyPath) -> tuple[str, ...]:
    """[pickup.port.enp1s0] and [[protected]] number 3 as `_TABLES` has them."""
    names = tuple("*" if isinstance(part, int) else part for part in path)
    return (*names[:2], "*") if names[1:2] == ("port",) and len(names) == 3 else names
