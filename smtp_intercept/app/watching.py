"""What `status` says of the watch over the gateway's own rules and links: what is not as it should be, what was put
right. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

PASSING = "passed"  # the stage of canaries that pass (`bridge.stages`)
SHOWN = 5  # one cause, a lane taken away, has dozens of steps


def warnings(watch: Mapping[str, Any]) -> Iterator[str]:
    """``watch`` is the page of `watcher.Watcher`."""
    if failure := watch.get("failed"):
        yield f"nobody watches over the gateway's own rules and links: {failure}"
    if watch.get("expected") is False:
        yield "nobody watches over the gateway's own rules and links: no `up` has come to its end; tollbridge up"
    yield from losses(watch.get("lost", []))
    contended = watch.get("contended", [])
    others = [said for said in watch.get("differences", []) if said not in contended]
    yield from (f"somebody else undoes it again and again: {step}" for step in _first(contended))
    yield from (f"not as `up` made it: {said}" for said in _first(others))


def _first(items: list[str]) -> list[str]:
    more = len(items) - SHOWN
    return [*items[:SHOWN], f"and {more} more"] if more > 0 else items


def losses(lost: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Of `lost.told`."""
    for each in lost:
        by = f"; in the way may be: {each['by']}" if each["by"] else ""
        yield f"{each['path']}: a canary was lost: {each['why']}{by}"


def lost(watch: Mapping[str, Any]) -> list[str]:
    """What of mail is not inspected, or does not cross, because its canary does not come back."""
    return [f"{each['path']}{' (if it passes)' if each['stage'] == PASSING else ''}" for each in watch.get("lost", [])]


def healings(watch: Mapping[str, Any]) -> list[tuple[str, str]]:
    """When, and what was put right, newest first: of what was done within a second the first, which is the cause."""
    causes: list[tuple[float, str, int]] = []
    for each in watch.get("healed", []):
        if causes and each["at"] - causes[-1][0] < 1.0:
            at, what, more = causes[-1]
            causes[-1] = at, what, more + 1
        else:
            causes.append((each["at"], each["what"], 0))
    return [
        (time.strftime("%F %T", time.localtime(at)), f"{what}, and {more} more" if more else what)
        for at, what, more in reversed(causes[-SHOWN:])
    ]
