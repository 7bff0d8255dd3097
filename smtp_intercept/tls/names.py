"""Names in certificates: which of them a name matches, and which an authority may speak for.

Pure. Takes names in lower case, without a dot at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def matches(pattern: str, name: str) -> bool:
    """RFC 6125 §6.4.3: a wildcard is the whole of the leftmost label, and stands for one."""
    if not pattern.startswith("*."):
        return bool(name) and pattern == name
    label, dot, rest = name.partition(".")
    return bool(label and dot) and rest == pattern[2:]


def any_matches(patterns: Iterable[str], name: str) -> bool:
    """One of a certificate's does."""
    return any(matches(pattern, name) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Of an authority (RFC 5280 §4.2.1.10), as far as they are of host names; without ``permitted`` all are."""

    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def allow(self, name: str) -> bool:
        """The authority may speak for it."""
        if any(_below(name, each) for each in self.excluded):
            return False
        return not self.permitted or any(_below(name, each) for each in self.permitted)


def _below(name: str, constraint: str) -> bool:
    """The name itself, and all that is made by adding labels to it; a wildcard for what it may stand for."""
    base = constraint.removeprefix(".")
    return not base or name.removeprefix("*.") == base or name.endswith(f".{base}")
