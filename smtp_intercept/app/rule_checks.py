"""What does not go together in the rules (mistakes), and what will surprise their author (warnings).

Reads data only, as `checks` does, which takes these in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smtp_intercept.app.fields import FROM_PROFILE
from smtp_intercept.app.mistakes import Mistake
from smtp_intercept.app.rule_schema import Filter, Inspect, Mode, Rule, Then
from smtp_intercept.app.schema import Bridge, Config, Dns
from smtp_intercept.inspect.actions import EDITS, ENDING
from smtp_intercept.inspect.criteria import CRITERIA
from smtp_intercept.inspect.facts import Known


def _names(rule: tuple[Rule, ...]) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, each in enumerate(rule):
        if each.name in seen:
            reason = f"{each.name!r} is another rule's name too"
            yield Mistake(("rule", index, "name"), reason, "give each its own: log and status name rules by it")
        seen.add(each.name)


def _actions(rule: tuple[Rule, ...]) -> Iterator[Mistake]:
    for index, each in enumerate(rule):
        at = ("rule", index, "then")
        ending = [name for name in ENDING if getattr(each.then, name) is not None]
        if len(ending) > 1:
            yield Mistake(at, f"has {' and '.join(ending)}, and a message has one end", "keep one of them")
        if not ending and not _edits(each.then) and not each.then.filter:
            yield Mistake(at, "does nothing", f"add one of {', '.join(ENDING)}")
        if each.then.filter and ending and ending != ["accept"]:
            yield Mistake(at, f"has filter, but with {ending[0]} nobody gets the message", "keep one of them")
        if _edits(each.then) and ending and ending != ["accept"]:
            reason = f"has {_edits(each.then)[0]}, but with {ending[0]} nobody gets the message"
            yield Mistake(at, reason, "keep one of them")


def _filters(rule: tuple[Rule, ...], filter: tuple[Filter, ...]) -> Iterator[Mistake]:  # noqa: A002 - the table's name
    seen: set[str] = set()
    for index, each in enumerate(filter):
        if each.name in seen:
            yield Mistake(("filter", index, "name"), f"{each.name!r} is another filter's name too", "give each its own")
        seen.add(each.name)
    for index, asking in enumerate(rule):
        for number, name in enumerate(asking.then.filter or ()):
            if name not in seen:
                at = ("rule", index, "then", "filter", number)
                remedy = f"name one of {', '.join(sorted(seen))}" if seen else "add a [[filter]] of that name"
                yield Mistake(at, f"{name!r} is no [[filter]]", remedy)


def _edits(then: Then) -> list[str]:
    return [name for name in EDITS if getattr(then, name)]


def _ports(bridge: Bridge, rule: tuple[Rule, ...]) -> Iterator[Mistake]:
    for index, each in enumerate(rule):
        for key in ("port", "port_not"):
            for number, port in enumerate(getattr(each.when, key) or ()):
                if bridge.ports != FROM_PROFILE and port not in bridge.ports:
                    reason = f"{port!r} is not a port of the bridge"
                    remedy = f"name one of bridge.ports: {', '.join(bridge.ports)}"
                    yield Mistake(("rule", index, "when", key, number), reason, remedy)
        for key in ("vlan", "vlan_not"):
            for number, vlan in enumerate(getattr(each.when, key) or ()):
                if vlan and vlan not in bridge.vlans:
                    reason = f"{vlan} is not in bridge.vlans, so its mail is never picked up"
                    remedy = "add it there, or leave it out here"
                    yield Mistake(("rule", index, "when", key, number), reason, remedy)


def _dns_lists(dns: Dns, rule: tuple[Rule, ...]) -> Iterator[Mistake]:
    for index, each in enumerate(rule):
        for key in ("dns_list", "dns_list_not"):
            for number, name in enumerate(getattr(each.when, key) or ()):
                if name not in dns.list:
                    reason, remedy = f"there is no list {name!r}", f'add [dns.list.{name}] with zone = "…"'
                    yield Mistake(("rule", index, "when", key, number), reason, remedy)


CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterable[Mistake]]], ...] = (
    (("rule",), _names),
    (("rule",), _actions),
    (("bridge", "rule"), _ports),
    (("rule", "filter"), _filters),
    (("dns", "rule"), _dns_lists),
)


def _given(rule: Rule) -> dict[str, Any]:
    return {key: value for key, value in rule.when if value is not None}


def known(rule: Rule) -> Known:
    """When it can be decided at the latest."""
    keys = (key.removesuffix("_not") for key in _given(rule))
    return max((CRITERIA[key].known for key in keys), default=Known.CONNECT)


def ends(rule: Rule) -> bool:
    """Those after it may not be asked."""
    return rule.mode is Mode.ENFORCE and any(getattr(rule.then, name) is not None for name in ENDING)


def _warn_never(config: Config) -> Iterator[str]:
    for index, rule in enumerate(config.rule[:-1]):
        if not _given(rule) and ends(rule):
            yield f"rule[{index}]: {rule.name!r} holds for every message, so the rules after it are never asked"
            return


def _warn_waiting(config: Config) -> Iterator[str]:
    """A refusal that could come early, behind a rule that is decided late."""
    waits, latest = "", Known.CONNECT
    for index, rule in enumerate(config.rule):
        if not ends(rule):
            continue
        if latest is Known.MESSAGE and known(rule) < Known.MESSAGE and not rule.then.accept:
            yield (
                f"rule[{index}]: {rule.name!r} decides behind {waits!r}, which needs the whole message: to decide "
                "earlier, put it before that one"
            )
        if known(rule) > latest:
            waits, latest = rule.name, known(rule)


def _warn_observed(config: Config) -> Iterator[str]:
    inspect: Inspect = config.inspect
    if config.rule and inspect.mode is Mode.OBSERVE:
        yield "inspect.mode: observe: what rules decide is written in the log, and not done"


def _warn_signed(config: Config) -> Iterator[str]:
    for index, rule in enumerate(config.rule):
        if edits := _edits(rule.then):
            yield (
                f"rule[{index}].then.{edits[0]}: a message that its sender has signed (DKIM, RFC 6376) may no longer "
                "verify at its receiver"
            )


def _warn_filters(config: Config) -> Iterator[str]:
    asked = {name for rule in config.rule for name in rule.then.filter or ()}
    for index, each in enumerate(config.filter):
        if each.name not in asked:
            yield f"filter[{index}]: no rule sends mail through {each.name!r}"
    times = {each.name: each.end_s for each in config.filter}
    for index, rule in enumerate(config.rule):
        together = sum(times[name] for name in rule.then.filter or ())
        if together > config.inspect.decide_s:
            yield (
                f"rule[{index}].then.filter: its filters may take {together} s together, and inspect.decide_s is "
                f"{config.inspect.decide_s}: then on_silence decides, not their on_failure"
            )


def _warn_unasked(config: Config) -> Iterator[str]:
    """A rule for what is never inspected."""
    if config.inspect.mode is Mode.OBSERVE and not config.rule:
        yield "inspect.mode: there are no rules"


WARNINGS: tuple[Callable[[Config], Iterator[str]], ...] = (
    *(_warn_never, _warn_waiting, _warn_signed, _warn_observed, _warn_unasked, _warn_filters),
)
