"""Keys and certificates of TLS, read from their files while there is privilege, and made ready to be shown.

`MistakeError` names the file that cannot be used, and why. Reads and keeps; changes nothing.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from cryptography import x509

from smtp_intercept.app import given
from smtp_intercept.app.config import Config
from smtp_intercept.app.located import KeyPath
from smtp_intercept.app.mistakes import Mistake, MistakeError
from smtp_intercept.app.tls_schema import Minimum, TlsIdentity
from smtp_intercept.direction import Servers
from smtp_intercept.tls.anchors import Anchors
from smtp_intercept.tls.certificates import Certificate
from smtp_intercept.tls.contexts import towards_client
from smtp_intercept.tls.manners import Identity, Means
from smtp_intercept.tls.names import any_matches
from smtp_intercept.tls.part import Own, Part
from smtp_intercept.tls.x509 import Signer, Trust, certificates_in, der_of, facts_of, load_key

MOST_BYTES = 16_777_216  # all roots of a system have 200 KB
SOON_S = 30 * 86_400.0

VERSIONS: Mapping[Minimum, ssl.TLSVersion] = MappingProxyType(
    {
        Minimum.V10: ssl.TLSVersion.TLSv1,
        Minimum.V11: ssl.TLSVersion.TLSv1_1,
        Minimum.V12: ssl.TLSVersion.TLSv1_2,
        Minimum.V13: ssl.TLSVersion.TLSv1_3,
    }
)

T = TypeVar("T")


def part(config: Config, clock: Callable[[], float] = time.time, anchors: Anchors | None = None) -> Part:
    """All that a process needs to take part. `MistakeError` with every mistake."""
    found = [_or_mistakes(partial(identity, config, n)) for n in range(len(config.tls.identity))]
    own = [each for each in found if isinstance(each, Own)]
    signer = _or_mistakes(partial(authority, config))
    roots = _or_mistakes(partial(trust, config))
    mistakes = [each for result in (*found, signer, roots) if isinstance(result, list) for each in result]
    if mistakes or isinstance(signer, list) or isinstance(roots, list):
        raise MistakeError(*mistakes)
    tls = config.tls
    means = Means(
        identities=tuple(each.identity for each in own),
        constraints=signer.authority.constraints if signer else None,
        exempt_hosts=Servers.of(tls.exempt_networks) if tls.exempt_networks else None,
        exempt_names=tls.exempt_names,
    )
    required = tls.verify is tls.verify.REQUIRE
    return Part(
        means, tuple(own), signer, roots, minimum=VERSIONS[tls.minimum], required=required, clock=clock, anchors=anchors
    )


def _or_mistakes(read: Callable[[], T]) -> T | list[Mistake]:
    try:
        return read()
    except MistakeError as error:
        return list(error.mistakes)


def identity(config: Config, number: int) -> Own:
    """One of [[tls.identity]]."""
    entry = config.tls.identity[number]
    return made(config, number, *_pair(("tls", "identity", number), entry.certificate, entry.key))


def made(config: Config, number: int, chain: bytes, key: bytes) -> Own:
    """The same, of what its files have now."""
    at, entry = ("tls", "identity", number), config.tls.identity[number]
    try:
        context = towards_client(chain, key, VERSIONS[config.tls.minimum])
        leaf = certificates_in(chain)[0]
    except (OSError, ValueError, IndexError) as error:
        raise _unusable(at, entry.certificate, entry.key, error) from None
    servers = Servers.of(entry.servers) if entry.servers else None
    return Own(Identity(number, servers, entry.names or facts_of(leaf).names), context, der_of(leaf))


def authority(config: Config) -> Signer | None:
    """[tls.authority]; None without one."""
    if (entry := config.tls.authority) is None:
        return None
    at = ("tls", "authority")
    chain, key = _pair(at, entry.certificate, entry.key)
    try:
        return Signer(certificates_in(chain)[0], load_key(key))
    except ValueError as error:
        raise _unusable(at, entry.certificate, entry.key, error) from None


def trust(config: Config) -> Trust:
    """Of [tls] roots."""
    at, path = ("tls", "roots"), config.tls.roots
    found = certificates_in(_octets(at, path, "install ca-certificates, or name a PEM file of those that are trusted"))
    if not found:
        raise MistakeError(Mistake(at, f"{path} has no certificate", "name a PEM file of those that are trusted"))
    return Trust(found)


def _pair(at: KeyPath, certificate: PurePosixPath, key: PurePosixPath) -> tuple[bytes, bytes]:
    remedy = "name a PEM file that root may read"
    chain = _or_mistakes(partial(_octets, (*at, "certificate"), certificate, remedy))
    secret = _or_mistakes(partial(_octets, (*at, "key"), key, remedy))
    if isinstance(chain, list) or isinstance(secret, list):
        raise MistakeError(*(each for result in (chain, secret) if isinstance(result, list) for each in result))
    if not certificates_in(chain):
        reason = f"{certificate} has no certificate that can be read"
        raise MistakeError(Mistake((*at, "certificate"), reason, "it is a PEM file, -----BEGIN CERTIFICATE-----"))
    return chain, secret


def _octets(at: KeyPath, path: PurePosixPath, remedy: str) -> bytes:
    try:
        return given.octets(Path(path), MOST_BYTES)
    except given.GivenError as error:
        raise MistakeError(Mistake(at, f"{path} {error.reason}", remedy)) from None


def _unusable(at: KeyPath, certificate: PurePosixPath, key: PurePosixPath, error: Exception) -> MistakeError:
    reason = f"{certificate} and {key} cannot be used: {getattr(error, 'strerror', None) or error}"
    remedy = "both are PEM files, the key without a pass phrase and the certificate's own"
    return MistakeError(Mistake((*at, "certificate"), reason, remedy))


def cautions(config: Config, now: float) -> Iterator[str]:
    """Of certificates that can be used, and not for long, or not for the names that they are to have."""
    for number, entry in enumerate(config.tls.identity):
        if (leaf := _first(entry.certificate)) is not None:
            key = f"tls.identity[{number}].certificate: {entry.certificate}"
            yield from _dates(key, leaf, now)
            yield from _names(key, leaf, entry)
    if config.tls.authority is not None and (leaf := _first(config.tls.authority.certificate)) is not None:
        yield from _dates(f"tls.authority.certificate: {config.tls.authority.certificate}", leaf, now)


def facts(path: PurePosixPath) -> Certificate | None:
    """Of the first certificate in a file; None if it cannot be read."""
    leaf = _first(path)
    return None if leaf is None else facts_of(leaf)


def _first(path: PurePosixPath) -> x509.Certificate | None:
    """What cannot be read is a mistake, and told as one."""
    try:
        found = certificates_in(given.octets(Path(path), MOST_BYTES))
    except given.GivenError:
        return None
    return found[0] if found else None


def _dates(key: str, certificate: x509.Certificate, now: float) -> Iterator[str]:
    facts = facts_of(certificate)
    if facts.not_after <= now:
        yield f"{key}: has expired on {day(facts.not_after)}: clients that verify refuse it"
    elif facts.not_after - now < SOON_S:
        yield f"{key}: expires on {day(facts.not_after)}"
    if now < facts.not_before:
        yield f"{key}: is not valid before {day(facts.not_before)}"


def _names(key: str, certificate: x509.Certificate, entry: TlsIdentity) -> Iterator[str]:
    known = facts_of(certificate).names
    if strange := [name for name in entry.names if not any_matches(known, name)]:
        yield f"{key}: does not name {', '.join(strange)}"


def day(seconds: float) -> str:
    """As people write it."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
