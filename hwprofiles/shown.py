"""A value out of somebody's file as people write it there, and never long: what errors show. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MOST = 60  # letters of one value; more is not looked at, and hides the reason
_CUT = " … "
_BREAKING = frozenset({"Cc", "Zl", "Zp"})


def shown(value: object) -> str:
    """In TOML's words: ``true``, ``2026-01-31``, ``[1, 2]``, ``{ a = 1 }``; a text in quotes, escaped."""
    return cut(_shown(value))


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return repr(value[: 2 * MOST])
        case Mapping():
            items = [f"{key if str(key).isidentifier() else _shown(key)} = {_shown(item)}" for key, item in _few(value)]
            return f"{{ {', '.join(items)} }}" if items else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_shown, value[:MOST]))}]"
        case None:
            return "nothing"
    written = getattr(value, "isoformat", None)  # a date or a time
    return str(written()) if written else str(value)


def on_one_line(text: str) -> str:
    """Line breaks and what a terminal obeys escaped; all else as it is, octets that are no UTF-8 too."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in _BREAKING else c for c in text)


def _few(table: Mapping[object, object]) -> list[tuple[object, object]]:
    return list(table.items())[:MOST]


def cut(text: str, most: int = MOST) -> str:
    """Its beginning and its end, if it is longer."""
    if len(text) <= most:
        return text
    keep = most - len(_CUT)
    return text[: keep - keep // 3] + _CUT + text[-(keep // 3) :]
