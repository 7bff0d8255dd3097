"""Everything that can be listed of a host's network, as text: what `up` may touch and `down` must give back.

Reads only. Leaves out what moves by itself: timers, counters, neighbours that were learned.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import patient

Snapshot = Mapping[str, tuple[str, ...]]

# topic → the program that lists it
COMMANDS = {
    "links": "ip -details -json link show",
    "addresses": "ip -json address show",
    "routes4": "ip -4 -details route show table all",
    "routes6": "ip -6 -details route show table all",
    "rules4": "ip -4 rule show",
    "rules6": "ip -6 rule show",
    "neighbours": "ip neigh show nud permanent",
    "nft": "nft --stateless list ruleset",
    "raw4": "iptables-save -t raw",
    "raw6": "ip6tables-save -t raw",
}
SYSCTLS = Path("/proc/sys/net")
_MOVING = re.compile(r"_timer$|^(stats|stats64|valid_life_time|preferred_life_time|qdisc|fdb_n_learned)$")
_MOVING_SYSCTLS = re.compile(r"/(nf_conntrack_count|flush)$")
_COUNTED = re.compile(r" \[\d+:\d+\]$")  # packets and octets of a chain, as iptables 1.8.11 tells them
SETTLE_S = 8.0
_UNSETTLED = re.compile('"(tentative|NO-CARRIER)"')


def snapshot(namespace: str) -> Snapshot:
    """topic → lines, of one network namespace, as soon as no address is on trial and no carrier awaited."""
    deadline_at = time.monotonic() + patient(SETTLE_S)
    while True:
        taken = namespaces.inside(namespace, _take)
        if not any(map(_UNSETTLED.search, taken["addresses"])) or time.monotonic() > deadline_at:
            return taken
        time.sleep(0.1)


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not the same, a line each: ``links - …`` is gone, ``links + …`` is new."""
    return [
        f"{topic} {sign} {line}"
        for topic in {**before, **after}
        for sign, these, others in (("-", before, after), ("+", after, before))
        for line in sorted(set(these.get(topic, ())) - set(others.get(topic, ())))
    ]


def settled_difference(namespace: str, before: Snapshot) -> list[str]:
    """The same against the present, which is given time: link-local addresses come back by themselves."""
    deadline_at = time.monotonic() + patient(SETTLE_S)
    while (found := difference(before, snapshot(namespace))) and time.monotonic() < deadline_at:
        time.sleep(0.1)
    return found


def _take() -> Snapshot:
    listed = {topic: tuple(_lines(command)) for topic, command in COMMANDS.items()}
    return {**listed, "sysctls": tuple(_sysctls())}


def _lines(command: str) -> list[str]:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)  # noqa: S603 - the table above
    if "-json" in command:
        return [json.dumps(_still(item), sort_keys=True) for item in json.loads(done.stdout or "[]")]
    return [_COUNTED.sub("", line) for line in done.stdout.splitlines() if not line.startswith("#")]


def _still(item: Any) -> Any:
    match item:
        case dict():
            return {key: _still(value) for key, value in item.items() if not _MOVING.search(key)}
        case list():
            return [_still(value) for value in item if value != {}]
        case _:
            return item


def _sysctls() -> list[str]:
    lines = []
    for path in sorted(SYSCTLS.rglob("*")):
        if path.is_dir() or _MOVING_SYSCTLS.search(str(path)):
            continue
        try:
            lines.append(f"{path.relative_to(SYSCTLS)} = {path.read_text().strip()}")
        except (OSError, ValueError):  # not readable, e.g. stable_secret
            continue
    return lines
