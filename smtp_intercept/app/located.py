"""On which line of a TOML text a key is defined, which no TOML library tells.

Pure, and used on the error path only. A TOML statement parses on its own, so a text falls into statements; the one that
defines a key is the one that the key appears with.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_MAY_END_A_VALUE = re.compile(r"""[\]}]|\"""|'''""")  # saves parsing a long array once per line
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def spelled(path: KeyPath) -> str:
    """A key path as people write it: ``protected[0].servers[2]``, ``pickup.port."52:54:00:00:00:01".incoming``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _BARE.fullmatch(part) else f'"{part}"')
    return text


def line_of(text: str, path: KeyPath) -> int | None:
    """The line (from 1) of the statement that defines the key, or the nearest table around a key that is missing.

    ``text`` must be valid TOML. None if nothing around the key is there either.
    """
    while path and not _contains(tomllib.loads(text), path):
        path = path[:-1]
    if not path:
        return None
    lines = text.splitlines(keepends=True)
    ends = _statement_ends(lines)
    defining = bisect_left(ends, True, key=lambda end: _contains(tomllib.loads("".join(lines[:end])), path))
    return 1 + (ends[defining - 1] if defining else 0)


def _statement_ends(lines: Sequence[str]) -> list[int]:
    """How many lines have been read at the end of each statement; comments and empty lines count as statements."""
    ends, start = [], 0
    for end, line in enumerate(lines, 1):
        if (end - start == 1 or _MAY_END_A_VALUE.search(line)) and _parses("".join(lines[start:end])):
            ends.append(end)
            start = end
    return ends


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _contains(document: Any, path: KeyPath) -> bool:
    for part in path:
        match part:
            case int():
                if not isinstance(document, list) or not part < len(document):
                    return False
            case str():
                if not isinstance(document, dict) or part not in document:
                    return False
        document = document[part]
    return True
