"""This box as the command line sees it: the links and the network cards of the host, and those of the wire's room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from bridge import glance
from bridge.glance import Listed
from hwprofiles.box import Box
from smtp_intercept.app import here

if TYPE_CHECKING:
    from bridge.present import LinkFacts

_T = TypeVar("_T")


def links() -> Mapping[str, LinkFacts]:
    """Those of the room and of the host."""
    from bridge.links import Links  # and with it pyroute2, slower to load than what only asks for names needs in all

    def facts_of_all() -> Mapping[str, LinkFacts]:
        with Links() as those:
            return those.facts()

    return _both(facts_of_all)


def names() -> Mapping[str, Listed]:
    """The same links, and no more of them than what they are called and made of."""
    return _both(glance.links)


def _both(read: Callable[[], Mapping[str, _T]]) -> Mapping[str, _T]:
    found = read()
    try:
        with here.inside() as away:
            if away:
                found = {**read(), **found}
    except PermissionError:
        pass
    return found


def box(ports: Iterable[str] | None = None) -> Box:
    """As `facts.box`."""
    from hwprofiles import facts  # and pyroute2

    wanted = None if ports is None else list(ports)
    whole = facts.box(wanted)
    away = here.ask(lambda: facts.box(wanted))
    if away is None:
        return whole
    if wanted is not None:  # each in its place, without a MAC where it is not
        found = (nic if nic.mac else other for nic, other in zip(whole.nics, away.nics, strict=True))
        return replace(whole, nics=tuple(found))
    both = {nic.name: nic for nic in (*away.nics, *whole.nics)}
    return replace(whole, nics=tuple(both[name] for name in sorted(both)))
