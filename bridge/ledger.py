"""What undoes each step that was taken, written down before the step: one JSON line each, in order.

A run killed at any instant leaves a ledger from which `down` restores the host and `up` goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bridge.moves import RemoveRoom, ReturnLink
from bridge.present import BRIDGE_NF, Present
from bridge.steps import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    DeleteLink,
    Inside,
    SetLink,
    SetSysctl,
    Step,
    UnloadModule,
    from_json,
    plain,
    to_json,
)

_T = TypeVar("_T")


class Ledger:
    """The file, and its entries as key → inverse in the order in which the steps were taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, Step] = dict(_read(path))

    def mine(self, room: str = "") -> frozenset[str]:
        """Links that were created in the host, or in that room, and not yet deleted."""
        return mine(self.entries.values(), room)

    @property
    def moved(self) -> dict[str, str]:
        """The links that were moved away, and the room of each."""
        return {step.link: step.room for step in self.entries.values() if isinstance(step, ReturnLink)}

    @property
    def room(self) -> str:
        """The network namespace that the wire has for itself; "" if there is none."""
        return next((step.room for step in self.entries.values() if isinstance(step, RemoveRoom)), "")

    def record(self, key: str, inverse: Step) -> None:
        """Durable when it returns. An entry once made is kept: it holds the value from before the first `up`."""
        if key in self.entries:
            return
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # A new line first: the last one may be torn.
            file.write("\n" + json.dumps({"key": key, "undo": to_json(inverse)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries[key] = inverse

    def forget(self, keys: Iterable[str]) -> None:
        """Entries that were undone leave the file; the last one takes the file with it."""
        for key in keys:
            self.entries.pop(key, None)
        if not self.entries:
            self._path.unlink(missing_ok=True)
            return
        fresh = self._path.with_suffix(".new")
        lines = (json.dumps({"key": key, "undo": to_json(inverse)}) + "\n" for key, inverse in self.entries.items())
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def _read(path: Path) -> Iterator[tuple[str, Step]]:
    """A torn last line is a step that was never taken: the line comes first."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            yield entry["key"], from_json(entry["undo"])
        except (ValueError, KeyError, TypeError):
            continue


def mine(inverses: Iterable[Step], room: str = "") -> frozenset[str]:
    """Links of the host, or of that room, that these inverses would delete."""
    deletions = [plain(step) for step in inverses if _place(step) == room or (room and isinstance(step, DeleteLink))]
    return frozenset(
        link for step in deletions if isinstance(step, DeleteLink) for link in (step.link, step.peer) if link
    )


def _place(step: Step) -> str:
    return step.room if isinstance(step, Inside) else ""


def original(present: Present, inverses: Iterable[Step], room: str = "") -> Present:
    """The host as it was before Tollbridge, as far as plans ask: so that a second plan equals the first. ``room`` is
    where ``present`` has its sysctls from."""
    inverses = list(inverses)
    own, sysctls = mine(inverses), dict(present.sysctls)
    links = {name: link for name, link in present.links.items() if name not in own}
    sysctls.update((undo.name, undo.value) for undo in _sysctls(inverses, room) if undo.name in sysctls or not room)
    for step in inverses:
        match step:
            case AddAddress(link, address) if link in links:
                links[link] = replace(links[link], addresses=_with(links[link].addresses, address))
            case AddRoute(route) if route.link in links:
                links[route.link] = replace(links[route.link], routes=_with(links[route.link].routes, route))
            case AddNeighbour(link, address, mac) if link in links:
                links[link] = replace(links[link], neighbours=_with(links[link].neighbours, (address, mac)))
            case SetLink(link, "master", value) if link in links:
                links[link] = replace(links[link], master=str(value))
            case _:
                pass
    if UnloadModule("br_netfilter") in inverses:  # last: it takes along the sysctls that were set after it was loaded
        sysctls = {name: value for name, value in sysctls.items() if name not in BRIDGE_NF}
    return replace(present, links=links, sysctls=sysctls)


def _sysctls(inverses: Iterable[Step], room: str) -> Iterator[SetSysctl]:
    """Those of the place that plans ask about."""
    for step in inverses:
        undo = plain(step)
        if isinstance(undo, SetSysctl) and _place(step) == room:
            yield undo


def _with(items: tuple[_T, ...], item: _T) -> tuple[_T, ...]:
    return items if item in items else (*items, item)
