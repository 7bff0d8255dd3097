"""Where canaries were lost, and what lies there: reads the traces that they left in the kernel, and others' rules.

Reads only, and only when a canary has not come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bridge import firewall
from bridge.stages import DIAL_STAGES, PASSING, SYN_STAGES, Stage, number, trace

SHOWN = 3  # candidates that are named


def told(failing: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Of each lost canary that a diverter tells of: its ``path``, ``stage``, ``why``, and ``by`` whom perhaps."""
    found = {}
    for lost in failing:
        stage = _stage(lost)
        version = 4 if "IPv4" in lost["path"] else 6
        by = [chain for hook in stage.hook.split() for chain in firewall.strangers(hook, version)][:SHOWN]
        found[lost["path"], stage is PASSING] = {
            "path": lost["path"],
            "stage": stage.name,
            "why": stage.lost,
            "by": ", ".join(by),
        }
    return list(found.values())


def _stage(lost: Mapping[str, Any]) -> Stage:
    """The first of which there is no trace."""
    if lost["passes"]:
        return PASSING
    known = {"judged": lost["judged"], "back": lost["answered"], "crossed": False}
    stages = DIAL_STAGES if lost["answered"] else SYN_STAGES
    for stage in stages:
        if not known.get(stage.name, False) if not stage.family else not _left(stage, lost["sequence"]):
            return stage
    return stages[-1]


def _left(stage: Stage, sequence: int) -> bool:
    return number(stage.name, sequence) in firewall.traces(stage.family, trace(stage.name))
