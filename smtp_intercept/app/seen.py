"""This box as the command line sees it: the links and the network cards of the host, and those of the wire's room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from bridge.links import Links
from bridge.present import LinkFacts
from hwprofiles import facts
from hwprofiles.box import Box
from smtp_intercept.app import here


def links() -> Mapping[str, LinkFacts]:
    """Those of the room and of the host."""
    with Links() as those:
        found = those.facts()
    try:
        with here.inside() as away:
            if away:
                with Links() as those:
                    found = {**those.facts(), **found}
    except PermissionError:
        pass
    return found


def box(ports: Iterable[str] | None = None) -> Box:
    """As `facts.box`."""
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
