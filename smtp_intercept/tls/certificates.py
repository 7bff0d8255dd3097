"""What a server's certificate is worth, and which one is shown to its clients instead.

Pure. Never makes a better one of a bad one: what the server's own lacks, the leaf lacks too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from smtp_intercept.tls.names import Constraints, any_matches


class UnmintableError(Exception):
    """A leaf cannot be made, or nobody may sign it."""


class Verified(Enum):
    """What a server's certificate is worth. UNNAMED: good, but its client has named no server."""

    VERIFIED = "verified"
    UNNAMED = "unnamed"
    NAME_MISMATCH = "name_mismatch"
    EXPIRED = "expired"
    SELF_SIGNED = "self_signed"
    UNTRUSTED = "untrusted"

    @property
    def sound(self) -> bool:
        """Nothing is wrong with it."""
        return self in {Verified.VERIFIED, Verified.UNNAMED}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is asked about one. ``names`` are hosts', ``addresses`` as text; times in seconds of UTC, as far as the
    calendar reaches; ``trusted``: somebody whom the box trusts has signed it, whatever the dates say."""

    names: tuple[str, ...]
    not_before: float
    not_after: float
    addresses: tuple[str, ...] = ()
    common_name: str = ""
    self_signed: bool = False
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """What the box's own may sign."""

    not_before: float
    not_after: float
    constraints: Constraints = field(default_factory=Constraints)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What is minted: signed by the authority, or by nobody whom clients trust."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    common_name: str
    not_before: float
    not_after: float
    signed: bool


def verify(certificate: Certificate, name: str, now: float) -> Verified:
    """The first thing that is wrong with it, the worst first."""
    if not certificate.trusted:
        return Verified.SELF_SIGNED if certificate.self_signed else Verified.UNTRUSTED
    if not certificate.not_before <= now <= certificate.not_after:
        return Verified.EXPIRED
    if not name:
        return Verified.UNNAMED
    return Verified.VERIFIED if any_matches(certificate.names, name) else Verified.NAME_MISMATCH


def leaf_for(certificate: Certificate, authority: Authority) -> Leaf | None:
    """With the server's names and dates, as far as the authority's reach; None where no name is the authority's to
    speak for."""
    names = tuple(filter(authority.constraints.allow, certificate.names))
    if certificate.trusted and certificate.names and not names:
        return None
    return Leaf(
        names=names if certificate.trusted else certificate.names,
        addresses=() if authority.constraints.permitted else certificate.addresses,
        common_name=certificate.common_name,
        not_before=max(certificate.not_before, authority.not_before),
        not_after=max(authority.not_before, min(certificate.not_after, authority.not_after)),
        signed=certificate.trusted,
    )
