"""The lines of dialogue files, in one grammar for all that play them: who, how, and what is said.

    c -> EHLO client.example     this line and CRLF
    c => b"..\\r\\n"               octets as they are, a Python literal
    c close                      the end of that side's stream

Lines that begin with # are comments. Who may speak, which signs there are besides, what it all means: the player's.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

LINE, OCTETS = "->", "=>"


class Spoken(NamedTuple):
    """``data`` is None at the end of a stream."""

    who: str
    how: str
    data: bytes | None


def lines(path: Path) -> Iterator[str]:
    """Without comments and empty ones."""
    return (line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#"))


def spoken(
    line: str, speakers: Collection[str], lined: Collection[str] = (LINE,), raw: Collection[str] = (OCTETS,)
) -> Spoken:
    """Of ``speakers``; by the signs in ``lined`` a line, by those in ``raw`` a literal. AssertionError for others."""
    who, how, what = line[0], line[2:4], line[5:]
    assert who in speakers, line
    if line[1:] == " close":
        return Spoken(who, "", None)
    assert how in {*lined, *raw}, line
    assert line[1] + line[4:5] in {"  ", " "}, line  # nothing may follow the sign: an empty line
    return Spoken(who, how, what.encode() + b"\r\n" if how in lined else ast.literal_eval(what))
