"""Which hosts take mail for a domain, in which order: RFC 5321 §5.1, RFC 7505.

Pure: judges the DNS's answers and asks nothing. Chance is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A host to try: its name as the DNS gave it (or the address, if it was given as one) and its addresses in the
    order to dial. ``authentic``: the resolver vouched for every answer on the way (the AD bit, RFC 4035 §3.2.3)."""

    host: str
    addresses: tuple[str, ...]
    authentic: bool = False
