"""The sample with somebody's answers in force and all else a comment that says the default; or a preset with them.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# key of the answer → (table, key) of the sample
KEYS = {
    "ports": ("[bridge]", "ports"),
    "management": ("[bridge]", "management"),
    "gateway": ("[bridge]", "gateway"),
    "domain": ("[[protected]]", "domain"),
    "servers": ("[[protected]]", "servers"),
    "handler": ("[[protected]]", "handler"),
}
_TABLE = re.compile(r"\[.*?\]+(?=\s|$)")
_KEY = re.compile(r"(\w+) = (.*?)(\s+#.*)?$")


def filled(sample: str, answers: Mapping[str, Any]) -> str:
    """``answers`` by the keys of `KEYS`, values as TOML has them; None stays a comment."""
    wanted = {KEYS[key]: value for key, value in answers.items() if value is not None}
    kept = {table for table, _ in wanted}
    lines, table = [], ""
    for line in sample.splitlines():
        if found := _TABLE.match(line):
            table = found[0]
            lines.append(line if table in kept else f"#{line}")
        elif (key := _KEY.match(line)) and not line.startswith("#"):
            lines.append(_line(key, wanted.get((table, key[1]))))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def asked(preset: str) -> frozenset[str]:
    """The keys of `KEYS` that a preset has, a commented one included."""
    places = {place: key for key, place in KEYS.items()}
    return frozenset(places[place] for _, place, _ in _placed(preset) if place in places)


def adapted(preset: str, answers: Mapping[str, Any]) -> str:
    """A preset with these in force, and all else as it is; None leaves a line as it is."""
    wanted = {KEYS[key]: value for key, value in answers.items() if value is not None}
    lines = [_line(key, wanted[place]) if key and place in wanted else line for line, place, key in _placed(preset)]
    return "\n".join(lines) + "\n"


def _placed(text: str) -> Iterator[tuple[str, tuple[str, str], re.Match[str] | None]]:
    """Each line, its table and key, and how the key is written there, if one is."""
    table = ""
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = found[0]
        key = _KEY.match(line.removeprefix("#"))
        yield line, (table, key[1] if key else ""), key


def _line(found: re.Match[str], value: Any) -> str:
    """JSON's strings, numbers and arrays of them are TOML's."""
    if value is None:
        return f"#{found[0]}"
    said = f"{found[1]} = {json.dumps(value, ensure_ascii=False)}"
    return f"{said:<39} {found[3].strip()}" if found[3] else said
