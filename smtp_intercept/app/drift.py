"""How a configuration differs from the one in force, key by key. Pure: texts in, words out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hwprofiles.shown import shown
from smtp_intercept.app.config import ConfigErrors, parse
from smtp_intercept.app.located import KeyPath, spelled

MOST = 5  # keys named; the file has them all
_NONE = "not set"

# What `up` makes something of; of all else only `run` does.
OF_UP = (
    *(("bridge",), ("bypass",), ("intercept", "ports"), ("intercept", "hidden"), ("pickup", "local")),
    *(("pickup", "port"), ("limits", "new_connections_per_s"), ("limits", "new_connections_per_s_per_network")),
    *(("limits", "next_hops"), ("limits", "sessions"), ("diverter",)),
)


def differences(file: str, in_force: str, among: tuple[KeyPath, ...] = ((),)) -> list[str]:
    """One line for each key below those of ``among`` that is another one; comments and spaces do not count. A file that
    is not valid has a line that says so."""
    if file == in_force:
        return []
    try:
        there = parse(file)
    except ConfigErrors as errors:
        return [f"it has {errors.count} mistake{'s' * (errors.count != 1)} now (tollbridge check)"]
    try:
        here = parse(in_force)
    except ConfigErrors:  # of another version
        return ["what is in force was made by another version"]
    found = _different((), there.model_dump(mode="json"), here.model_dump(mode="json"))
    lines = [
        f"{spelled(path)} is {_said(new)}, in force is {_said(old)}"
        for path, new, old in found
        if any(path[: len(top)] == top for top in among)
    ]
    return lines if len(lines) <= MOST else [*lines[:MOST], f"and {len(lines) - MOST} keys more"]


def _different(at: KeyPath, new: Any, old: Any) -> Iterator[tuple[KeyPath, Any, Any]]:
    if new == old:
        return
    if isinstance(new, dict) and isinstance(old, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from _different((*at, key), new.get(key), old.get(key))
    else:
        yield at, new, old


def _said(value: Any) -> str:
    return _NONE if value is None else shown(value)
