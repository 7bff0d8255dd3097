"""The tables of TLS that the box takes part in: [tls], [[tls.identity]] and [tls.authority].

Data only. What becomes of each connection is said in `tls.manners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hwprofiles.shown import shown
from hwprofiles.validation import mistake
from smtp_intercept.app import fields
from smtp_intercept.names import read_host
from smtp_intercept.tls.manners import Way

ROOTS = "/etc/ssl/certs/ca-certificates.crt"  # Debian's, of the package ca-certificates
MAX_IDENTITIES = 1_000  # each is a key in memory
MAX_EXEMPT = 10_000


class Verify(StrEnum):
    """What becomes of a server whose certificate is not good."""

    RECORD = "record"
    REQUIRE = "require"


class Minimum(StrEnum):
    """The oldest version that is spoken."""

    V10 = "1.0"
    V11 = "1.1"
    V12 = "1.2"
    V13 = "1.3"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Ways(_Table):
    """intercept.starttls, where it is not the same for both directions."""

    incoming: fields.WayChoice = Way.PASS
    outgoing: fields.WayChoice = Way.PASS


def _way(value: Any) -> Any:
    """One for both directions, or a table."""
    if isinstance(value, dict):
        return Ways.model_validate(value)
    try:
        return Way(value)
    except ValueError:
        names = ", ".join(Way)
        remedy = 'choose one of them, or write { incoming = "terminate", outgoing = "pass" }'
        raise mistake(f"{shown(value)} is not one of {names}", remedy) from None


def _exempt(value: Any) -> Any:
    """An address, a network, a host, or a domain with all below it."""
    try:
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not a text")
        if value.startswith("."):
            return f".{read_host(value[1:])}"
        if value[:1].isdigit() or ":" in value:
            return str(ip_network(value))
        return read_host(value)
    except ValueError as error:
        example = '"203.0.113.0/24", "mx.example.net" or ".example.net"'
        raise mistake(str(error), f"write it like {example}") from None


WaysChoice = Annotated[Way | Ways, BeforeValidator(_way)]
Exempt = Annotated[str, BeforeValidator(_exempt)]


class TlsIdentity(_Table):
    """[[tls.identity]]: no servers are all that are protected, no names those of the certificate."""

    servers: tuple[fields.Network, ...] = ()
    names: tuple[fields.Host, ...] = ()
    certificate: fields.FilePath
    key: fields.FilePath


class TlsAuthority(_Table):
    """[tls.authority]"""

    certificate: fields.FilePath
    key: fields.FilePath


class Tls(_Table):
    """[tls]"""

    exempt: tuple[Exempt, ...] = Field((), max_length=MAX_EXEMPT, description="each name is compared with all of them")
    verify: Annotated[Verify, fields.choice(Verify)] = Verify.RECORD
    minimum: Annotated[Minimum, fields.choice(Minimum)] = Minimum.V12
    roots: fields.FilePath = PurePosixPath(ROOTS)
    identity: tuple[TlsIdentity, ...] = Field((), max_length=MAX_IDENTITIES, description="each is a key in memory")
    authority: TlsAuthority | None = None

    @property
    def exempt_networks(self) -> list[IPv4Network | IPv6Network]:
        """Of `exempt`."""
        return [ip_network(item) for item in self.exempt if _is_network(item)]

    @property
    def exempt_names(self) -> tuple[str, ...]:
        """The others."""
        return tuple(item for item in self.exempt if not _is_network(item))


def _is_network(item: str) -> bool:
    return "/" in item


TlsTables: Mapping[tuple[str, ...], type[BaseModel]] = {
    ("intercept", "starttls"): Ways,
    ("tls",): Tls,
    ("tls", "identity", "*"): TlsIdentity,
    ("tls", "authority"): TlsAuthority,
}
